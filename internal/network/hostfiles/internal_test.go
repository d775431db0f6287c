package hostfiles

import "testing"

func TestResolvInternal(t *testing.T) {
	at := addrs("127.0.0.11")[0]
	for _, c := range []struct {
		r    Resolv
		want string
	}{
		{Resolv{HostPath: "/etc/resolv.conf", HostFile: []byte("nameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch a\n"), Internal: at},
			"nameserver 127.0.0.11\nsearch a\noptions ndots:0\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [host(127.0.0.1) 10.0.0.1 host(fd00::1)]\n# Overrides: []\n# Option ndots from: internal\n"},
		{Resolv{HostPath: "/etc/resolv.conf", DNS: addrs("127.0.0.2"), Options: []string{"ndots:2"}, Internal: at},
			"nameserver 127.0.0.11\noptions ndots:2\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [127.0.0.2]\n# Overrides: [nameservers options]\n# Option ndots from: override\n"},
		{Resolv{HostPath: "/etc/resolv.conf", Internal: at},
			"nameserver 127.0.0.11\noptions ndots:0\n\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n# Used default nameservers.\n# ExtServers: [8.8.8.8 8.8.4.4]\n# Overrides: []\n# Option ndots from: internal\n"},
	} {
		if got := string(c.r.Render()); got != head+c.want {
			t.Errorf("got\n%s\nwant\n%s", got, head+c.want)
		}
	}
}
