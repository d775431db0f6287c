package clients

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestImageDiff compares an image with one that was committed from it.
func TestImageDiff(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "--name", "box", "busybox", "sh", "-c", "echo 12345 >/new; rm /bin/vi; echo x >>/etc/group; touch /etc/passwd")
	d.OK(t, "commit", "-c", "ENV A=b", "box", "made:1")
	got := d.OK(t, "image", "diff", "busybox", "made:1")
	for _, want := range []string{"config Env: ", `"A=b"`, "layers: 1 shared", "+ layer ", "A /new 6B", "C /etc/group ", "D /bin/vi "} {
		if !strings.Contains(got, want) {
			t.Errorf("the difference lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "C /etc/passwd") || strings.Contains(got, "C /etc\n") {
		t.Errorf("a time alone is a difference:\n%s", got)
	}
	if got := d.OK(t, "image", "diff", "made:1", "made:1"); got != "" {
		t.Errorf("an image differs from itself: %s", got)
	}
	if got := d.OK(t, "image", "diff", "--format", "json", "made:1", "busybox"); !strings.Contains(got, `{"Path":"/new","Kind":2,"Old":6,"New":0}`) {
		t.Errorf("as JSON: %s", got)
	}
	if _, err := d.Gantry("image", "diff", "busybox", "nosuch"); err == nil || !strings.Contains(err.Error(), "No such image: nosuch:latest") {
		t.Errorf("of an image that is not there: %v", err)
	}
}

// TestImageVerify damages an unpacked layer and a blob: both are found; the layer
// is repaired, and the blob of an image that no registry has is named.
func TestImageVerify(t *testing.T) {
	for _, driver := range []string{"overlayfs", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			d := testkit.StartBusybox(t, "--storage-driver", driver)
			d.OK(t, "run", "--name", "box", "busybox", "sh", "-c", "rm /bin/vi; echo x >/home/x")
			d.OK(t, "commit", "box", "made:1")
			if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, "0 faults") || !strings.HasPrefix(got, "2 images, ") {
				t.Fatalf("of good images: %s", got)
			}
			layers := filepath.Join(d.Root, "snapshots", "snapshots")
			if driver != "overlayfs" {
				layers = filepath.Join(d.Root, "drivers", driver, "snapshots")
			}
			found, err := filepath.Glob(filepath.Join(layers, "*", "fs", "etc", "passwd"))
			if err != nil || len(found) == 0 {
				t.Fatalf("no layer found: %v", err)
			}
			st, err := os.Stat(found[0])
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			data[0] ^= 1 // as a disk may: neither size nor time tell
			if err := os.WriteFile(found[0], data, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(found[0], st.ModTime(), st.ModTime()); err != nil {
				t.Fatal(err)
			}
			out, err := d.Gantry("image", "verify", "made:1")
			if err == nil || !strings.Contains(out, "  /etc/passwd") {
				t.Errorf("a flipped bit: %s %v", out, err)
			}
			if out := d.OK(t, "image", "verify", "--repair"); !strings.Contains(out, "; repaired") {
				t.Errorf("repair: %s", out)
			}
			if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, "0 faults") {
				t.Errorf("after the repair: %s", got)
			}
			if got := d.OK(t, "run", "--rm", "busybox", "head", "-c", "4", "/etc/passwd"); got != "root" {
				t.Errorf("the repaired layer shows %q", got)
			}
			damageBlob(t, d)
			out, err = d.Gantry("image", "verify", "--repair", "busybox")
			if err == nil || !strings.Contains(out, "has the digest sha256:") || !strings.Contains(out, "not repaired: it could not be fetched") {
				t.Errorf("a damaged blob: %s %v", out, err)
			}
			d.LoadBusybox(t) // which brings it again
			if got := d.OK(t, "image", "verify", "busybox"); !strings.HasSuffix(got, "0 faults") {
				t.Errorf("after a load: %s", got)
			}
		})
	}
}

// damageBlob changes one byte of the largest blob.
func damageBlob(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(d.Root, "content", "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var largest []byte
	name := ""
	for _, b := range blobs {
		if data, err := os.ReadFile(b); err == nil && len(data) > len(largest) {
			largest, name = data, b
		}
	}
	largest = bytes.Clone(largest)
	largest[len(largest)/2] ^= 1
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, largest, 0o600); err != nil {
		t.Fatal(err)
	}
}
