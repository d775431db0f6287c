package hostdev

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/internal/ocispec"
	"gantry/internal/plan"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host   string
		failed string
	}{
		{"/dev/null", ""},
		{link, ""},
		{"/dev/nosuch", `error gathering device information while adding custom device "/dev/nosuch": no such file or directory`},
		{file, `error gathering device information while adding custom device "` + file + `": not a device node`},
		{dir, `error gathering device information while adding custom device "` + dir + `": not a device node`},
	} {
		got, err := Find(&plan.Plan{Devices: []plan.Device{{Host: c.host, Container: "/dev/x", Permissions: "rw"}}})
		if c.failed != "" {
			if err == nil || err.Error() != c.failed {
				t.Errorf("%s: got %v, want %s", c.host, err, c.failed)
			}
			continue
		}
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: got %v, %v", c.host, got, err)
		}
		d := got[0]
		if d.Path != "/dev/x" || d.Type != "c" || d.Number != (ocispec.DeviceNumber{Major: 1, Minor: 3}) || d.Access != "rw" || d.Mode != 0o666 {
			t.Errorf("%s: got %+v", c.host, d)
		}
	}
}

func TestFindInDirectory(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"a": 3, "sub/b": 5} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Find(&plan.Plan{Devices: []plan.Device{{Host: dir, Container: "/dev/d", Permissions: "r"}}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, d := range got {
		paths = append(paths, d.Path)
	}
	if want := []string{"/dev/d/a", "/dev/d/sub/b"}; !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
}

func TestAll(t *testing.T) {
	got, err := Find(&plan.Plan{AllDevices: true, Devices: []plan.Device{
		{Host: "/dev/null", Container: "/dev/null", Permissions: "r"}, {Host: "/dev/null", Container: "/dev/other", Permissions: "r"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, d := range got {
		count[d.Path]++
	}
	if count["/dev/null"] != 1 || count["/dev/zero"] != 1 || count["/dev/other"] != 1 {
		t.Errorf("got %v", count)
	}
	for path, n := range count {
		if n > 1 || ofContainer[path] || filepath.Dir(path) == "/dev/pts" {
			t.Errorf("%s, %d times", path, n)
		}
	}
}

func TestNumbers(t *testing.T) {
	got, err := Numbers([]string{"/dev/null"})
	if err != nil || got["/dev/null"] != (ocispec.DeviceNumber{Major: 1, Minor: 3}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Numbers([]string{"/dev/nosuch"}); err == nil {
		t.Error("a missing device has numbers")
	}
	if _, err := Numbers([]string{"/"}); err == nil {
		t.Error("a directory has numbers")
	}
}
