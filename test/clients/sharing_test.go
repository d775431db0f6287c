package clients_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSharing: volumes and namespaces of other containers, and of the host.
func TestSharing(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("volume", "rm", "sharedro")
		defer s.ok("rm", "-f", "-v", "donor", "heir", "guest", "late")
		s.ok("run", "-d", "--name", "donor", "--ipc", "shareable", "-v", "/data", "-v", "sharedro:/ro:ro", "busybox",
			"sh", "-c", "[ -e /data/a ] || echo a > /data/a; echo q > /dev/shm/q; sleep 1000")
		if got := s.ok("run", "--rm", "--volumes-from", "donor", "busybox", "sh", "-c", "cat /data/a; touch /data/b /ro/x 2>&1; ls /data"); got != "a\ntouch: /ro/x: Read-only file system\na\nb\n" {
			s.Errorf("volumes-from: %q", got)
		}
		s.fails(1, "Read-only file system", "run", "--rm", "--volumes-from", "donor:ro", "busybox", "touch", "/data/c")
		s.ok("run", "--rm", "--volumes-from", "donor:z", "busybox", "test", "-e", "/data/b")
		s.fails(125, "invalid mode: bad", "run", "--rm", "--volumes-from", "donor:bad", "busybox", "true")
		s.fails(125, "No such container: nosuch", "run", "--rm", "--volumes-from", "nosuch", "busybox", "true")
		s.fails(125, "volumes-from specification cannot be an empty string", "run", "--rm", "--volumes-from", "", "busybox", "true")
		// The heir keeps the data when the donor goes.
		s.ok("create", "--name", "heir", "--volumes-from", "donor:ro", "busybox", "cat", "/data/a")
		if got := s.ok("inspect", "-f", "{{.HostConfig.VolumesFrom}} {{range .Mounts}}{{.Destination}}={{.RW}} {{end}}", "heir"); got != "[donor:ro] /data=false /ro=false \n" && got != "[donor:ro] /ro=false /data=false \n" {
			s.Errorf("%q", got)
		}

		for _, c := range []struct{ flags, script, want string }{
			{"--ipc container:donor", "cat /dev/shm/q", "q\n"},
			{"--ipc none", "ls /dev/shm", ""},
			{"--ipc private", "ls /dev/shm", ""},
			{"--pid container:donor", "cat /proc/1/cmdline | tr '\\0' ' '", "sleep 1000 "},
		} {
			r, err := s.cli.Run(nil, append(append([]string{"run", "--rm"}, strings.Fields(c.flags)...), "busybox", "sh", "-c", c.script)...)
			if err != nil || r.Stdout != c.want {
				s.Errorf("%s: %+v, %v", c.flags, r, err)
			}
		}
		host, err := os.Hostname()
		if err != nil {
			s.Fatal(err)
		}
		if got := s.ok("run", "--rm", "--uts", "host", "busybox", "hostname"); got != host+"\n" {
			s.Errorf("uts host: %q", got)
		}
		for _, ns := range []string{"pid", "ipc"} {
			want, err := os.Readlink("/proc/self/ns/" + ns)
			if got := s.ok("run", "--rm", "--"+ns, "host", "busybox", "readlink", "/proc/self/ns/"+ns); err != nil || got != want+"\n" {
				s.Errorf("%s host: %q, want %q", ns, got, want)
			}
		}
		s.fails(125, "invalid IPC mode: bad", "run", "--rm", "--ipc", "bad", "busybox", "true")
		s.fails(125, "conflicting options: hostname and the UTS mode", "run", "--rm", "--uts", "host", "-h", "x", "busybox", "true")
		s.fails(125, "No such container: nosuch", "run", "--rm", "--pid", "container:nosuch", "busybox", "true")

		// The donor goes: its guests can't be started, and say why.
		s.ok("create", "--name", "guest", "--pid", "container:donor", "busybox", "true")
		s.ok("create", "--name", "late", "--network", "container:donor", "busybox", "true")
		s.ok("stop", "-t", "0", "donor")
		s.fails(1, "cannot join PID namespace of a non running container: container donor is exited", "start", "guest")
		s.fails(1, "cannot join network namespace of a non running container: container donor is exited", "start", "late")
		s.ok("start", "donor")
		s.ok("start", "guest", "late")
		s.ok("rm", "-f", "donor")
		s.fails(1, "joining PID namespace of container: No such container: ", "start", "guest")
		if got := s.ok("start", "-a", "heir"); got != "a\n" {
			s.Errorf("the heir reads %q", got)
		}
	})
}

// TestSmallWords: rename, port, wait, top and --cidfile.
func TestSmallWords(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("rm", "-f", "wone", "wtwo", "wnew")
		s.ok("run", "-d", "--name", "wone", "-p", "28931:80", "-p", "127.0.0.1:28932:81/udp", "busybox", "sleep", "1000")
		s.ok("run", "-d", "--name", "wtwo", "--link", "wone:x", "busybox", "sleep", "1000")
		s.fails(1, `Error when allocating new name: Conflict. The container name "/wtwo" is already in use by container "`, "rename", "wone", "wtwo")
		s.fails(1, "Renaming a container with the same name as its current name", "rename", "wone", "wone")
		s.fails(1, "Error when allocating new name: Invalid container name (/bad name)", "rename", "wone", "bad name")
		s.ok("rename", "wone", "wnew")
		if got := s.ok("inspect", "-f", "{{.HostConfig.Links}}", "wtwo"); got != "[/wnew:/wtwo/x]\n" {
			s.Errorf("a link follows the name: %s", got)
		}
		if got := s.ok("events", "--since", "1m", "--until", "1s", "--filter", "event=rename", "--filter", "container=wnew", "--format", "{{.Actor.Attributes.oldName}} {{.Actor.Attributes.name}}"); got != "" && got != "/wone wnew\n" {
			s.Errorf("event %q", got)
		}
		if got := s.ok("port", "wnew"); got != "80/tcp -> 0.0.0.0:28931\n80/tcp -> [::]:28931\n81/udp -> 127.0.0.1:28932\n" {
			s.Errorf("port: %q", got)
		}
		s.fails(1, "Error: No public port '81' published for wnew", "port", "wnew", "81")
		if got := strings.Fields(s.ok("top", "wnew", "-o", "pid,comm")); len(got) != 4 || got[0] != "PID" || got[3] != "sleep" {
			s.Errorf("top: %q", got)
		}
		s.fails(1, "Couldn't find PID field in ps output", "top", "wnew", "-o", "comm")
		if got := s.ok("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "wnew"); got != "wnew 1\n" {
			s.Errorf("stats: %q", got)
		}
		file := filepath.Join(s.TempDir(), "cid")
		s.ok("create", "--cidfile", file, "--name", "wone", "busybox", "sh", "-c", "exit 4")
		id, err := os.ReadFile(file)
		if err != nil || s.ok("inspect", "-f", "{{.Id}}", "wone") != string(id)+"\n" {
			s.Errorf("cidfile %q, %v", id, err)
		}
		s.fails(125, "container ID file found, make sure the other container isn't running or delete "+file, "run", "--rm", "--cidfile", file, "busybox", "true")
		s.ok("start", "wone")
		if got := s.ok("wait", "wone"); got != "4\n" {
			s.Errorf("wait: %q", got)
		}
	})
}
