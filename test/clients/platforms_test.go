package clients_test

import (
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestPlatforms: an image for two platforms comes, is looked at, run, saved,
// loaded and removed, one platform at a time.
func TestPlatforms(t *testing.T) {
	reg := registry.New(t, registry.Options{})
	busybox, err := testkit.BusyboxImage("")
	if err != nil {
		t.Fatal(err)
	}
	var list []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		list = append(list, reg.Put("multi", "", registry.Image{
			Layers:   append(busybox.Layers[:len(busybox.Layers):len(busybox.Layers)], testkit.Layer(testkit.File{Name: "arch", Data: []byte(arch + "\n")})),
			Platform: &ocispec.Platform{OS: "linux", Architecture: arch}, Cmd: []string{"/bin/cat", "/arch"},
		}))
	}
	index := reg.PutIndex("multi", "1", list...)
	name := reg.Host + "/multi:1"
	each(t, func(s story) {
		arch := func(args ...string) string {
			s.Helper()
			return strings.TrimSpace(s.ok(append(append([]string{"image", "inspect", "-f", "{{.Architecture}}"}, args...), name)...))
		}
		s.ok("pull", "-q", "--platform", "linux/arm64", name)
		if got := arch(); got != "arm64" {
			s.Errorf("pulled for arm64, it is for %s", got)
		}
		s.fails(1, "does not provide the specified platform (linux/amd64)", "image", "inspect", "--platform", "linux/amd64", name)
		// What is missing is fetched, and is what runs then.
		if got := s.ok("run", "--rm", "--network", "none", "--platform", "linux/amd64", name); got != "amd64\n" {
			s.Errorf("on amd64: %q", got)
		}
		if arch() != "amd64" || arch("--platform", "linux/arm64") != "arm64" {
			s.Errorf("both are here: %s, %s", arch(), arch("--platform", "linux/arm64"))
		}
		if got := strings.TrimSpace(s.ok("image", "inspect", "-f", "{{.Id}}", name)); got != index.Digest.String() {
			s.Errorf("it is %s, not the index %s", got, index.Digest)
		}
		id := strings.TrimSpace(s.ok("create", "--platform", "linux/arm64", name))
		if got := s.ok("cp", id+":/arch", "-"); !strings.Contains(got, "arm64\n") {
			s.Errorf("created for arm64: %q", got)
		}
		s.fails(1, "", "rmi", "--platform", "linux/arm64", name) // in use
		s.ok("rm", id)
		s.ok("history", "--platform", "linux/arm64", name)
		s.fails(1, "does not provide the specified platform (linux/s390x)", "history", "--platform", "linux/s390x", name)

		one := filepath.Join(s.TempDir(), "one.tar")
		all := filepath.Join(s.TempDir(), "all.tar")
		s.ok("save", "--platform", "linux/arm64", "-o", one, name)
		s.ok("save", "-o", all, name)
		s.ok("rmi", "--platform", "linux/arm64", name)
		s.fails(1, "linux/arm64", "image", "inspect", "--platform", "linux/arm64", name)
		if got := s.ok("run", "--rm", "--network", "none", name); got != "amd64\n" {
			s.Errorf("what is left says %q", got)
		}
		s.ok("rmi", name)
		s.ok("load", "-i", one)
		if got := arch(); got != "arm64" {
			s.Errorf("loaded for arm64, it is for %s", got)
		}
		s.ok("load", "--platform", "linux/amd64", "-i", all)
		if got := arch(); got != "amd64" {
			s.Errorf("loaded with amd64, it is for %s", got)
		}
		s.fails(1, "linux/s390x", "load", "--platform", "linux/s390x", "-i", all)
		tree := s.ok("images", "--tree")
		if !strings.Contains(tree, "linux/amd64") || !strings.Contains(tree, "linux/arm64") {
			s.Errorf("the tree has\n%s", tree)
		}
		s.ok("rmi", name)
	})
}
