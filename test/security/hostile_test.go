package security

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// loadHostile gives the daemon an image whose root file system has files over
// busybox's.
func loadHostile(t *testing.T, d *testkit.Daemon, ref string, files ...testkit.File) {
	t.Helper()
	i, err := testkit.BusyboxImage(ref)
	if err != nil {
		t.Fatal(err)
	}
	i.Layers = append(i.Layers, testkit.Layer(files...))
	path := filepath.Join(t.TempDir(), "image.tar")
	var buf bytes.Buffer
	if err := i.DockerArchive(&buf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	d.OK(t, "load", "-q", "-i", path)
}

// snapshot lists a tree with modes, sizes and times.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, p, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// CVE-2019-19921, CVE-2025-52881, CVE-2026-41579, CVE-2025-52565: the image
// ships links where the runtime mounts and writes. Whether such a container
// runs or is refused: the host stays as it was, and what should be masked is.
func TestImageShipsLinks(t *testing.T) {
	d := testkit.StartBusybox(t)
	canary := t.TempDir()
	if err := os.Chmod(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"null", "pts", "shm", "mqueue", "console", "hosts", "resolv.conf", "hostname", "passwd"} {
		if err := os.WriteFile(filepath.Join(canary, f), []byte("canary "+f), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, canary)
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	up := "../../../../../../../.." + canary
	for name, files := range map[string][]testkit.File{
		"proc":   {{Name: "proc", Link: up}},
		"dev":    {{Name: "dev", Link: up}},
		"sys":    {{Name: "sys", Link: up}},
		"etc":    {{Name: "etc", Link: up}},
		"null":   {{Name: "dev/null", Link: "/proc/sysrq-trigger"}, {Name: "dev/console", Link: up + "/console"}},
		"shm":    {{Name: "dev/shm", Link: up + "/shm"}, {Name: "dev/pts", Link: up}, {Name: "dev/mqueue", Link: up}},
		"hosts":  {{Name: "etc/hosts", Link: up + "/hosts"}, {Name: "etc/resolv.conf", Link: up + "/resolv.conf"}, {Name: "etc/hostname", Link: up + "/hostname"}},
		"passwd": {{Name: "etc/passwd", Link: up + "/passwd"}, {Name: "etc/group", Link: "/dev/zero"}},
		"data":   {{Name: "data", Link: up}},
		"root":   {{Name: "proc", Link: "/"}, {Name: "sys", Link: "/proc/1/root"}},
	} {
		t.Run(name, func(t *testing.T) {
			ref := "hostile-" + name + ":latest"
			loadHostile(t, d, ref, files...)
			for _, args := range [][]string{
				{"run", "--rm", ref, "sh", "-c", "echo x >/proc/sys/kernel/core_pattern; echo y >/proc/sysrq-trigger; true"},
				{"run", "--rm", "-u", "nobody", ref, "true"},
				{"run", "--rm", "-v", "/data", "--tmpfs", "/data/tmp", ref, "sh", "-c", "echo x >/data/f"},
				{"run", "--rm", "-w", "/data/new/dir", ref, "pwd"},
				{"run", "--rm", "--sysctl", "net.core.somaxconn=77", ref, "true"},
			} {
				out, err := d.Gantry(args...)
				t.Logf("%v: %q, %v", args[2:], out, err) // refused or not, what follows must hold
			}
			if after := snapshot(t, canary); after != before {
				t.Fatalf("the host has changed:\n%s\nbefore:\n%s", after, before)
			}
			if now, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || !bytes.Equal(now, pattern) {
				t.Fatalf("the host's core pattern is %q, %v", now, err)
			}
		})
	}
}

// CVE-2021-30465: two containers share a volume, and one of them exchanges a
// directory with a link while the other starts with a mount below it.
func TestMountTargetRace(t *testing.T) {
	d := testkit.StartBusybox(t)
	canary := t.TempDir()
	before := snapshot(t, canary)
	d.OK(t, "run", "-d", "--name", "attacker", "-v", "shared:/s", "busybox", "sh", "-c",
		"mkdir -p /s/a; ln -s "+"../../../../../../.."+canary+" /s/b; while :; do mv /s/a /s/c; mv /s/b /s/a; mv /s/a /s/b; mv /s/c /s/a; done 2>/dev/null")
	for range 40 {
		// It may fail when the target is a link just then.
		_, _ = d.Gantry("run", "--rm", "-v", "shared:/s", "--tmpfs", "/s/a/deep/tmp", "-v", "/anonymous", "busybox", "true")
	}
	if after := snapshot(t, canary); after != before {
		t.Errorf("the host has changed:\n%s\nbefore:\n%s", after, before)
	}
}
