package build_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// cliComposed does what `docker compose build` does since 2.37: it runs docker's
// plugin for builds by itself, with targets as JSON on its input.
func cliComposed(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"a/Dockerfile": "FROM busybox\nARG W\nCOPY f /f\nRUN echo $W >/w\nCMD [\"cat\", \"/w\", \"/f\"]\n", "a/f": "file\n", "b/f": "other\n"})
	run := func(targets string) (said, metadata string, code int) {
		t.Helper()
		cmd := c.command(d.Program("gantry-buildx"), "bake", "--file", "-", "--progress", "rawjson", "--metadata-file", "meta.json", "--allow", "fs.read="+c.dir+"/a", "--allow", "fs.read="+c.dir+"/b")
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(targets, "DIR", c.dir))
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(errs.String()) {
			if !json.Valid([]byte(line)) {
				out = append(out, line...)
			}
		}
		b, _ := os.ReadFile(c.dir + "/meta.json") // none if it failed
		return string(out), string(b), cmd.ProcessState.ExitCode()
	}
	const targets = `{"group": {"default": {"targets": ["web", "db"]}}, "target": {
		"web": {"context": "DIR/a", "dockerfile": "DIR/a/Dockerfile", "args": {"W": "x$${y}"}, "labels": {"com.docker.compose.project": "p"}, "tags": ["composed-web"], "shm-size": "0", "extra-hosts": {"h": "192.0.2.1"}, "output": ["type=docker"]},
		"db": {"context": "DIR/b", "contexts": {"w": "target:web"}, "dockerfile-inline": "FROM busybox\nCOPY --from=w /w /w\nCMD [\"cat\", \"/w\"]", "tags": ["composed-db"], "shm-size": "67108864", "ulimits": ["nofile=10:20"], "output": ["type=docker"]}}}`
	said, metadata, code := run(targets)
	var images map[string]struct {
		Digest string `json:"containerimage.digest"`
		Name   string `json:"image.name"`
	}
	if err := json.Unmarshal([]byte(metadata), &images); err != nil || code != 0 || said != "" {
		t.Fatalf("%v: %d %s", err, code, said)
	}
	for _, name := range []string{"web", "db"} {
		if got := images[name]; got.Name != "docker.io/library/composed-"+name+":latest" || !strings.HasPrefix(got.Digest, "sha256:") {
			t.Errorf("%s is told as %+v", name, got)
		}
	}
	if got, _ := c.ok("run", "--rm", "composed-web"); got != "x${y}\nfile\n" {
		t.Errorf("%q", got)
	}
	if got, _ := c.ok("run", "--rm", "composed-db"); got != "x${y}\n" {
		t.Errorf("%q", got)
	}
	if said, _, code := run(strings.Replace(targets, "DIR/a/Dockerfile", "DIR/a/none", 1)); code != 1 || !strings.Contains(said, "ERROR: ") {
		t.Errorf("%d: %s", code, said)
	}
	// `compose build --check`: a target that another one is made of is not built.
	said, _, code = run(strings.ReplaceAll(targets, `"output": ["type=docker"]`, `"call": "lint"`))
	if code != 0 || strings.Count(said, "Check complete") != 2 {
		t.Errorf("%d: %s", code, said)
	}
	if said, _, code := run(strings.Replace(targets, `"output": ["type=docker"]`, `"call": "lint"`, 1)); code != 1 || !strings.Contains(said, "target db: its context w is the result of target web, which is not built") {
		t.Errorf("%d: %s", code, said)
	}
	// It goes by the version of the plugin, without the v before it.
	var about struct{ Version string }
	out, err := c.command(d.Program("gantry-buildx"), "docker-cli-plugin-metadata").Output()
	if err != nil || json.Unmarshal(out, &about) != nil || !regexp.MustCompile(`^v0\.(1[7-9]|[2-9]\d|\d{3})\.`).MatchString(about.Version) {
		t.Errorf("%v: %s", err, out)
	}
}
