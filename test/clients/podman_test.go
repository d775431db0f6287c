package clients_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// TestPodman uses gantry-shim as the OCI runtime of another engine.
func TestPodman(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "gantry-podman-")
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	unpackBusybox(t, rootfs)
	global := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", testkit.Bin(t, "gantry-shim")}
	// Limits below those of the test itself: podman's own defaults may be
	// more than this machine's root may set.
	mine := []string{"--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"}
	s := story{t, clients.CLI{Path: podman}}
	do := func(args ...string) []string { return append(append([]string{}, global...), args...) }
	run := func(args ...string) []string {
		return append(do("run"), append(append([]string{}, mine...), args...)...)
	}
	t.Cleanup(func() {
		s.ok(do("rm", "-f", "-t", "0", "-a")...)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})

	s.fails(3, "from podman", run("--rm", "--rootfs", rootfs, "sh", "-c", "echo from podman; exit 3")...)
	s.fails(127, "nosuch", run("--rm", "--rootfs", rootfs, "nosuch")...)
	s.ok(run("-d", "--name", "box", "-m", "64m", "--rootfs", rootfs, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")...)
	if got := s.ok(do("exec", "box", "sh", "-c", "echo $0 $$")...); !strings.HasPrefix(got, "sh ") {
		t.Errorf("exec: %q", got)
	}
	s.fails(4, "", do("exec", "box", "sh", "-c", "exit 4")...)
	s.ok(do("pause", "box")...)
	if got := s.ok(do("ps", "--filter", "status=paused", "--format", "{{.Names}}")...); got != "box\n" {
		t.Errorf("paused: %q", got)
	}
	s.ok(do("unpause", "box")...)
	s.ok(do("stop", "-t", "5", "box")...)
	if got := s.ok(do("inspect", "-f", "{{.State.ExitCode}}", "box")...); got != "5\n" {
		t.Errorf("exit code after stop: %q", got)
	}
	term := s.terminal(run("-it", "--rm", "--rootfs", rootfs, "sh")...)
	s.must(term.Expect("/ # "))
	s.must(term.Type("stty size; exit 6\r"))
	s.must(term.Expect("24 80"))
	if code, err := term.Wait(); err != nil || code != 6 {
		t.Errorf("terminal: exit %d, %v", code, err)
	}
}

// unpackBusybox makes a root file system with a busybox.
func unpackBusybox(t *testing.T, dir string) {
	t.Helper()
	data, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, h.FileInfo().Mode().Perm())
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, filepath.Clean("/"+h.Linkname)), path)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, h.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
