package clients

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestManifest puts lists together by gantry and by the docker command line, each
// in a directory of its own, and both say and push the same. Then each goes on with
// what the other one has begun.
func TestManifest(t *testing.T) {
	r := registry.New(t, registry.Options{Auth: registry.Token, User: "u", Password: "secret"})
	layer := testkit.Layer(testkit.File{Name: "f", Data: []byte("x")})
	r.Put("base/a", "amd64", registry.Image{Layers: [][]byte{layer}, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	r.Put("base/a", "arm64", registry.Image{Layers: [][]byte{layer}, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	r.Put("base/d", "1", registry.Image{Layers: [][]byte{layer}, Docker: true})
	gantry := testkit.Bin(t, "gantry")
	run := func(program, dir string, args ...string) string {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
		out, err := cmd.CombinedOutput()
		text := strings.TrimSpace(string(out))
		if err != nil {
			text = "failed: " + strings.ReplaceAll(text, "errors:\n", "")
		}
		return text
	}
	programs := []string{"docker", gantry}
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := os.WriteFile(dir+"/config.json", []byte(`{"auths":{"`+r.Host+`":{"auth":"dTpzZWNyZXQ="}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := r.Host + "/"
	for _, line := range []string{
		"inspect H/base/a:amd64", "inspect -v H/base/a:amd64", "inspect -v H/base/d:1",
		"create H/base/a:list H/base/a:amd64 H/base/a:arm64", "create H/base/a:list H/base/a:amd64", "create --amend H/base/a:list H/base/a:amd64",
		"create H/other/b:1 H/base/a:arm64 H/base/d:1",
		"annotate H/base/a:list H/base/a:arm64 --variant v8 --os-version 1 --os-features x,y", "annotate H/base/a:list H/base/a:nosuch --arch arm",
		"inspect H/base/a:list", "inspect -v H/base/a:list", "inspect H/base/a:list H/base/a:amd64", "inspect H/base/a:list H/base/a:nosuch",
		"push H/base/a:list", "push -p H/other/b:1", "push H/other/b:1", "inspect H/other/b:1", "inspect -v H/other/b:1",
		"rm H/base/a:list", "rm H/base/a:list", "inspect H/base/a:list",
	} {
		var got [2]string
		for i, program := range programs {
			f := strings.Fields(strings.ReplaceAll(line, "H/", h))
			args := append([]string{"manifest", f[0]}, f[1:]...)
			switch f[0] {
			case "create", "push", "inspect":
				args = append([]string{"manifest", f[0], "--insecure"}, f[1:]...)
			}
			got[i] = run(program, dirs[i], args...)
		}
		if got[0] != got[1] {
			t.Errorf("manifest %s:\ndocker: %s\ngantry: %s", line, got[0], got[1])
		}
	}
	// The files are the same.
	run("docker", dirs[0], "manifest", "create", "--insecure", h+"mixed:1", h+"base/a:amd64")
	run(gantry, dirs[0], "manifest", "create", "--amend", h+"mixed:1", h+"base/a:arm64")
	if got := run("docker", dirs[0], "manifest", "push", "--insecure", h+"mixed:1"); strings.Count(got, "Pushed ref") != 2 {
		t.Errorf("docker pushes what gantry has amended: %s", got)
	}
	if got := run(gantry, dirs[0], "manifest", "inspect", h+"base/a:nosuch"); got != "failed: no such manifest: "+h+"base/a:nosuch" {
		t.Errorf("what is not there: %s", got)
	}
	// Without credentials nothing is changed.
	nobody := t.TempDir()
	run(gantry, nobody, "manifest", "create", h+"mine:1", h+"base/a:amd64")
	if got := run(gantry, nobody, "manifest", "push", h+"mine:1"); !strings.HasPrefix(got, "failed: ") {
		t.Errorf("without credentials: %s", got)
	}
}
