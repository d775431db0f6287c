package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestManagedPluginKinds: an installed plugin serves networks and addresses, and
// authorizes requests from the moment that the daemon takes any; one that would
// only be used for what the engine does not support is not enabled.
func TestManagedPluginKinds(t *testing.T) {
	d := testkit.StartBusybox(t)
	prefix := fmt.Sprintf("nk%04d", os.Getpid()%10000)
	t.Cleanup(func() {
		d.Args()
		_, _ = d.Gantry("rm", "-f", "user")
		_, _ = d.Gantry("network", "rm", "kit")
		_, _ = d.Gantry("plugin", "rm", "-f", "netkit")
		links, _ := net.Interfaces()
		for _, l := range links {
			if strings.HasPrefix(l.Name, prefix) {
				t.Errorf("link %s stays", l.Name)
				_ = exec.Command("ip", "link", "del", l.Name).Run()
			}
		}
	})
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "rootfs", "plugin"), "./testdata/netplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	configure := func(types, rest string) {
		t.Helper()
		text := `{"description":"kinds","entrypoint":["/plugin"],"interface":{"types":[` + types + `],"socket":"netkit.sock"}` + rest + `}`
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	no := func(text string, args ...string) {
		t.Helper()
		if out, err := d.Gantry(args...); err == nil || !strings.Contains(out+err.Error(), text) {
			t.Errorf("%v: %v, %q; want %q", args, err, out, text)
		}
	}
	configure(`"docker.logdriver/1.0"`, "")
	d.OK(t, "plugin", "create", "logger", dir)
	no("plugins of this kind are not supported", "plugin", "enable", "logger")
	if out := d.OK(t, "plugin", "inspect", "-f", "{{.Enabled}}", "logger"); out != "false" {
		t.Error(out)
	}
	d.OK(t, "plugin", "rm", "logger")

	configure(`"docker.networkdriver/1.0","docker.ipamdriver/1.0","docker.authz/1.0"`,
		`,"network":{"type":"host"},"linux":{"capabilities":["CAP_NET_ADMIN"]},"env":[{"name":"PREFIX","settable":["value"],"value":"`+prefix+`"}]`)
	d.OK(t, "plugin", "create", "netkit", dir)
	d.OK(t, "plugin", "enable", "netkit")
	d.OK(t, "network", "create", "-d", "netkit", "--ipam-driver", "netkit", "kit")
	d.OK(t, "run", "-d", "--name", "user", "--network", "kit", "busybox", "sleep", "1000")
	shown := d.OK(t, "exec", "user", "ip", "-4", "-o", "addr", "show", "kit0")
	if at := d.OK(t, "inspect", "-f", "{{.NetworkSettings.Networks.kit.IPAddress}}", "user"); !strings.HasPrefix(at, "10.77.0.") || !strings.Contains(shown, " "+at+"/24 ") {
		t.Errorf("address %q, %q", at, shown)
	}
	no("is in use", "plugin", "disable", "netkit")
	d.Stop(t)
	d.Args("--authorization-plugin", "netkit:latest")
	d.Start(t)
	no("authorization denied by plugin netkit:latest: netkit says no", "inspect", "forbidden")
	d.OK(t, "rm", "-f", "user")
	d.OK(t, "network", "rm", "kit")
	d.Stop(t)
	d.Args()
	d.Start(t)
	d.OK(t, "plugin", "disable", "netkit")
	d.OK(t, "plugin", "rm", "netkit")
}
