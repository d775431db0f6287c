package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestEngineOnSystemd runs the three programs, and runc if it is there, with
// control groups that systemd makes.
func TestEngineOnSystemd(t *testing.T) {
	t.Parallel() // a machine waits a lot
	kernel(t)
	system := testkit.Debian(t)
	files := map[string]string{"/test/busybox.tar": busyboxTar(t), "/test/systemd.sh": "testdata/systemd.sh"}
	for _, p := range []string{"gantry", "gantryd"} {
		files["/usr/bin/"+p] = testkit.Bin(t, p)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	files["/test/busybox"] = busybox
	if runc, err := exec.LookPath("runc"); err == nil {
		files["/usr/bin/runc"] = runc
	} else if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	// The root that the kernel unpacks can't be pivoted away from; a bind mount of
	// it in its place can.
	script := "for m in " + strings.Join(insert(t, files), " ") + "; do /test/busybox insmod /test/mod/$m || exit 1; done\n" +
		"mkdir -p /newroot\n" +
		"unshare -m sh -c 'mount --rbind / /newroot && cd /newroot && mount --move . / && exec chroot . sh /test/systemd.sh'\n"
	if out := boot(t, system, files, script); !strings.Contains(out, "all passed") {
		t.Error("the script did not reach its end")
	}
}

// insert adds the kernel modules to a machine's files and returns their names in
// the order in which they can be inserted.
func insert(t *testing.T, files map[string]string) (names []string) {
	t.Helper()
	at, err := filepath.Glob(filepath.Join(kernelDir, "lib/modules/*"))
	if err != nil || len(at) != 1 {
		t.Fatalf("modules: %v, %v", at, err)
	}
	for _, m := range modules {
		out, err := exec.Command("/sbin/modprobe", "-d", kernelDir, "-S", filepath.Base(at[0]), "--show-depends", m).Output()
		if err != nil {
			t.Fatalf("module %s: %v", m, err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" {
				continue
			}
			if name := filepath.Base(f[1]); !slices.Contains(names, name) {
				names = append(names, name)
				files["/test/mod/"+name] = f[1]
			}
		}
	}
	return names
}
