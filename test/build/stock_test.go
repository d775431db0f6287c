package build_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestDockerPyBuilds runs testdata/images_build.py, which asserts for itself.
func TestDockerPyBuilds(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import docker").Run() != nil {
		t.Skip("python3 with the docker module is not on this machine")
	}
	d := testkit.StartBusybox(t)
	cmd := exec.Command(python, "testdata/images_build.py")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket, "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// stockCache is where docker's own plugins are kept when they are compiled.
const stockCache = "/var/cache/gantry-test/stock"

// A stockPlugin is one of docker's command line, as its module has it.
type stockPlugin struct {
	module, version, path string
	stamp                 string // the variable that is its version: others ask it
}

var (
	stockBuildx  = stockPlugin{"github.com/docker/buildx", "v0.37.2", "./cmd/buildx", "github.com/docker/buildx/version.Version"}
	stockCompose = stockPlugin{"github.com/docker/compose/v2", "v2.40.3", "./cmd", "github.com/docker/compose/v2/internal.Version"}
)

// compile returns the program.
func (p stockPlugin) compile(t *testing.T) string {
	t.Helper()
	if os.Getenv("GANTRY_BUILDX") == "" {
		t.Skip("GANTRY_BUILDX=1 shows it; docker's plugins are compiled first, which takes minutes")
	}
	path := filepath.Join(stockCache, filepath.FromSlash(p.module)+"@"+p.version)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	// In its own directory: what has replacements can't be installed by its name.
	env := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	download := exec.Command("go", "mod", "download", "-json", p.module+"@"+p.version)
	download.Env, download.Dir = env, t.TempDir()
	out, err := download.Output()
	var is struct{ Dir, Error string }
	if e := json.Unmarshal(out, &is); err != nil || e != nil || is.Error != "" {
		t.Fatalf("%s: %v %v %s", p.module, err, e, is.Error)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X "+p.stamp+"="+p.version, "-o", path, p.path)
	build.Env, build.Dir = env, is.Dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", p.module, err, out)
	}
	return path
}

// plug makes plugins of docker's command line of programs, by name.
func (c *cliCase) plug(t *testing.T, programs map[string]string) {
	t.Helper()
	plugins := filepath.Join(c.dir, ".docker", "cli-plugins")
	must(t, os.MkdirAll(plugins, 0o755))
	for name, program := range programs {
		must(t, os.RemoveAll(filepath.Join(plugins, name)))
		must(t, os.Symlink(program, filepath.Join(plugins, name)))
	}
}

// TestDockerBuildx drives the daemon with the stock docker and its stock plugin.
func TestDockerBuildx(t *testing.T) {
	buildx := stockBuildx.compile(t)
	docker, err := exec.LookPath("docker")
	must(t, err)
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{
		"Dockerfile":      "FROM busybox AS base\nARG WORD=none\nCOPY f /f\nRUN --mount=type=cache,target=/c echo $WORD >/word\nFROM scratch AS files\nCOPY --from=base /word /\nFROM base\nCMD [\"cat\", \"/word\"]\n",
		"f":               "file\n",
		"compose.yaml":    "services:\n  web:\n    image: composed:1\n    build:\n      context: .\n      args: {WORD: composed}\n",
		"docker-bake.hcl": "group \"default\" { targets = [\"one\", \"two\"] }\ntarget \"one\" {\n  tags = [\"baked:1\"]\n  args = { WORD = \"one\" }\n}\ntarget \"two\" {\n  inherits = [\"one\"]\n  target = \"files\"\n  output = [\"baked\"]\n}\n",
	})
	c.plug(t, map[string]string{"docker-buildx": buildx})
	stock := func(args ...string) string {
		t.Helper()
		out, err := c.command(docker, args...).CombinedOutput()
		if err != nil {
			t.Errorf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	word := func(image, want string) {
		t.Helper()
		if got := d.OK(t, "run", "--rm", image); got != want {
			t.Errorf("%s says %q, not %q", image, got, want)
		}
	}
	reg := registry.New(t, registry.Options{})
	name := reg.Host + "/team/stock:1"
	c.has(stock("build", "-t", "stock:1", "--build-arg", "WORD=built", "."), "naming to docker.io/library/stock:1")
	word("stock:1", "built")
	c.has(stock("build", "-t", "stock:1", "--build-arg", "WORD=built", "."), "CACHED")
	stock("buildx", "build", "--load", "-t", "stock:2", "--build-arg", "WORD=loaded", "--metadata-file", "meta.json", "--iidfile", "iid", ".")
	word("stock:2", "loaded")
	if !json.Valid([]byte(c.read("meta.json"))) || !strings.HasPrefix(c.read("iid"), "sha256:") {
		t.Error(c.read("meta.json"), c.read("iid"))
	}
	stock("buildx", "build", "--push", "-t", name, ".")
	if _, _, ok := reg.Manifest("team/stock", "1"); !ok {
		t.Error("nothing was pushed")
	}
	stock("buildx", "build", "--target", "files", "-o", "out", "--build-arg", "WORD=files", ".")
	if c.read("out/word") != "files\n" {
		t.Error(c.read("out/word"))
	}
	stock("buildx", "build", "--target", "files", "-o", "type=oci,dest=x.tar", ".")
	c.has(c.tarNames(c.read("x.tar")), "oci-layout")
	stock("buildx", "build", "--cache-to", "type=registry,ref="+reg.Host+"/team/cache,mode=max", ".")
	stock("buildx", "build", "--cache-from", "type=registry,ref="+reg.Host+"/team/cache", ".")
	stock("buildx", "build", "--check", ".")
	stock("buildx", "bake", "--allow", "fs=*")
	word("baked:1", "one")
	if c.read("baked/word") != "one\n" {
		t.Error(c.read("baked/word"))
	}
	stock("buildx", "bake", "-f", "compose.yaml")
	word("composed:1", "composed")
	c.has(stock("buildx", "ls"), "docker", "running")
	c.has(stock("buildx", "inspect"), "Driver:", "docker", "linux/amd64")
	c.has(stock("buildx", "du"), "Total:")
	c.has(stock("buildx", "history", "ls"), "Completed")
	c.has(stock("buildx", "history", "inspect"), "Build Steps:")
	c.has(stock("buildx", "history", "logs"), "RUN")
	c.has(stock("buildx", "imagetools", "inspect", name), "sha256:")
	out, err := c.command(docker, "build", "--build-arg", "WORD=x", "-f", "nosuch", ".").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("%v: %s", err, out)
	}
	c.has(stock("buildx", "prune", "-f", "-a"), "Total:")
}
