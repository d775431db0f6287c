package clients

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestBootstrap makes a base image with mmdebstrap from a repository of packages
// that the test makes, twice at different times: it is the same, and it runs.
func TestBootstrap(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no mmdebstrap: run `make deps`")
	}
	d := testkit.StartDaemon(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	repo, work := t.TempDir(), t.TempDir()
	if err := os.Chmod(repo, 0o755); err != nil {
		t.Fatal(err)
	}
	aptRepository(t, repo, map[string][]testkit.File{
		"base":  {{Name: "./bin/"}, {Name: "./bin/sh", Data: program, Mode: 0o755}, {Name: "./usr/"}, {Name: "./usr/sbin/"}, {Name: "./etc/"}, {Name: "./etc/machine-id", Data: []byte("0123\n")}, {Name: "./var/"}, {Name: "./var/log/"}, {Name: "./var/log/x.log", Data: []byte("x")}},
		"extra": {{Name: "./etc/"}, {Name: "./etc/extra", Data: []byte("extra\n")}},
	})
	t.Setenv("TMPDIR", work)
	mirror := "deb [trusted=yes] copy://" + repo + " ./"
	make := func(name string, args ...string) string {
		t.Helper()
		args = append([]string{"image", "bootstrap", "-q", "--variant", "extract", "--mirror", mirror, "--date", "2026-01-01", "-t", name}, args...)
		return strings.TrimSpace(d.OK(t, append(args, "debian:bookworm")...))
	}
	one := make("base:1", "--include", "base,extra")
	two := make("base:2", "--include", "base,extra")
	if one != two || !strings.HasPrefix(one, "sha256:") {
		t.Errorf("the same packages and date made %s and %s", one, two)
	}
	if other := make("base:3", "--include", "base"); other == one {
		t.Error("other packages made the same image")
	}
	if got := d.OK(t, "run", "--rm", "base:1", "sh", "-c", "read x </etc/extra; echo $x; [ -s /etc/machine-id ] || echo no id; [ -e /var/log/x.log ] || echo no log; [ -x /usr/sbin/policy-rc.d ] && echo quiet"); got != "extra\nno id\nno log\nquiet" {
		t.Errorf("in a container: %q", got)
	}
	if got := d.OK(t, "image", "inspect", "-f", "{{.Created}} {{.Os}} {{.Config.Cmd}}", "base:1"); got != "2026-01-01T00:00:00Z linux [bash]" {
		t.Errorf("inspected: %s", got)
	}
	if out, err := d.Gantry("image", "bootstrap", "--variant", "extract", "--mirror", mirror, "--include", "nosuch", "-t", "bad:1", "debian:bookworm"); err == nil || !strings.Contains(out+err.Error(), "mmdebstrap failed") || !strings.Contains(out+err.Error(), "nosuch") {
		t.Errorf("a package that is not there: %v %s", err, out)
	}
	if got := d.OK(t, "images", "-q", "bad"); got != "" {
		t.Errorf("a failed bootstrap left %s", got)
	}
	if list, err := os.ReadDir(work); err != nil || len(list) > 0 {
		t.Errorf("left in the temporary directory: %v %v", list, err)
	}
}

// aptRepository makes a flat repository of packages without dependencies.
func aptRepository(t *testing.T, dir string, packages map[string][]testkit.File) {
	t.Helper()
	var index bytes.Buffer
	for name, files := range packages {
		control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nDescription: test\n", name)
		var deb bytes.Buffer
		deb.WriteString("!<arch>\n")
		for _, m := range []struct {
			name string
			data []byte
		}{
			{"debian-binary", []byte("2.0\n")},
			{"control.tar", testkit.Layer(testkit.File{Name: "./control", Data: []byte(control)})},
			{"data.tar", testkit.Layer(append([]testkit.File{{Name: "./"}}, files...)...)},
		} {
			fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
			deb.Write(m.data)
			if len(m.data)%2 == 1 {
				deb.WriteByte('\n')
			}
		}
		file := name + "_1_all.deb"
		if err := os.WriteFile(filepath.Join(dir, file), deb.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, "%sFilename: ./%s\nSize: %d\nSHA256: %x\n\n", control, file, deb.Len(), sha256.Sum256(deb.Bytes()))
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), index.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestBootstrapDebian makes a real one from the mirrors of this machine's apt, if
// GANTRY_BOOTSTRAP says by which tool: twice, and runs it. It takes minutes.
func TestBootstrapDebian(t *testing.T) {
	tool := os.Getenv("GANTRY_BOOTSTRAP")
	if tool == "" {
		t.Skip("GANTRY_BOOTSTRAP is not set")
	}
	d := testkit.StartDaemon(t)
	one := d.OK(t, "image", "bootstrap", "-q", "--tool", tool, "--date", "2026-01-01", "debian:12-slim")
	two := d.OK(t, "image", "bootstrap", "-q", "--tool", tool, "--date", "2026-01-01", "-t", "again", "debian:12-slim")
	if one != two {
		t.Errorf("two makings differ: %s", d.OK(t, "image", "diff", "debian:12-slim", "again"))
	}
	if got := d.OK(t, "run", "--rm", "debian:12-slim", "bash", "-c", ". /etc/os-release; echo $VERSION_CODENAME"); got != "bookworm" {
		t.Errorf("it says %q", got)
	}
}
