package build_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"gantry/internal/testkit"
)

// cliCase is a directory in which the command line is run against a daemon.
type cliCase struct {
	t   *testing.T
	d   *testkit.Daemon
	dir string
	env []string

	limit time.Duration // of one command; 0 for two minutes
}

// newCLI writes files to a directory of their own.
func newCLI(t *testing.T, d *testkit.Daemon, files map[string]string) *cliCase {
	t.Helper()
	c := &cliCase{t: t, d: d, dir: t.TempDir()}
	for name, text := range files {
		c.write(name, text)
	}
	return c
}

func (c *cliCase) write(name, text string) {
	c.t.Helper()
	at := filepath.Join(c.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cliCase) read(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

func (c *cliCase) command(program string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(c.t.Context(), cmp.Or(c.limit, 2*time.Minute))
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "XDG_CACHE_HOME=" + filepath.Join(c.dir, ".cache"), "DOCKER_HOST=unix://" + c.d.Socket}, c.env...)
	return cmd
}

// run runs gantry and returns what it said and its exit code.
func (c *cliCase) run(stdin string, args ...string) (out, errs string, code int) {
	c.t.Helper()
	cmd := c.command(c.d.Program("gantry"), args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		c.t.Fatalf("gantry %s: %v", strings.Join(args, " "), err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// ok runs gantry, which must succeed.
func (c *cliCase) ok(args ...string) (out, errs string) {
	c.t.Helper()
	out, errs, code := c.run("", args...)
	if code != 0 {
		c.t.Fatalf("gantry %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out, errs
}

func (c *cliCase) has(text string, wants ...string) {
	c.t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			c.t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

// tarNames lists a tar.
func (c *cliCase) tarNames(data string) string {
	c.t.Helper()
	var names []string
	for r := tar.NewReader(strings.NewReader(data)); ; {
		h, err := r.Next()
		if err != nil {
			return strings.Join(names, " ")
		}
		names = append(names, h.Name)
	}
}

func TestCommandLine(t *testing.T) {
	d := testkit.StartBusybox(t)
	for name, test := range map[string]func(*testing.T, *testkit.Daemon){
		"outputs": cliOutputs, "composed": cliComposed, "contexts": cliContexts, "ignored": cliIgnored, "secrets": cliSecrets, "agents": cliAgents, "errors": cliErrors,
		"calls": cliCalls, "explain": cliExplain, "bake": cliBake, "privileges": cliPrivileges, "cache": cliCache, "cancel": cliCancel, "plugin": cliPlugin, "builder": cliBuilder,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, d)
		})
	}
}

func cliOutputs(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /dir/a\nENV X=1\n", "a": "hello"})
	_, errs := c.ok("build", "-t", "outputs:1", "--iidfile", "iid", "--metadata-file", "meta.json", "--label", "l=v", "--annotation", "n=m", ".")
	c.has(errs, `building with "default" instance using docker driver`, "naming to docker.io/library/outputs:1")
	if got, _ := c.ok("image", "inspect", "-f", "{{.Config.Env}} {{.Config.Labels.l}}", "outputs:1"); !strings.Contains(got, "X=1") || !strings.HasSuffix(got, "v\n") {
		t.Error(got)
	}
	var meta map[string]any
	if err := json.Unmarshal([]byte(c.read("meta.json")), &meta); err != nil || meta["image.name"] != "docker.io/library/outputs:1" {
		t.Error(err, meta)
	}
	if id, _ := c.ok("image", "inspect", "-f", "{{.Id}}", "outputs:1"); strings.TrimSpace(id) != c.read("iid") {
		t.Errorf("the image is %s, the ID file has %s", id, c.read("iid"))
	}
	if id, errs := c.ok("build", "-q", "."); !regexp.MustCompile(`^sha256:[0-9a-f]{64}\n$`).MatchString(id) || errs != "" {
		t.Errorf("%q %q", id, errs)
	}
	c.ok("build", "-o", "out", ".")
	if c.read("out/dir/a") != "hello" {
		t.Error(c.read("out/dir/a"))
	}
	data, _ := c.ok("build", "-o", "-", ".")
	c.has(c.tarNames(data), "dir/a")
	c.ok("build", "-t", "x:2", "-o", "type=oci,dest=oci.tar", "-o", "type=docker,dest=docker.tar", "-o", "type=oci,tar=false,dest=layout", ".")
	c.has(c.tarNames(c.read("oci.tar")), "index.json", "oci-layout")
	c.has(c.tarNames(c.read("docker.tar")), "manifest.json")
	if !json.Valid([]byte(c.read("layout/index.json"))) {
		t.Error(c.read("layout/index.json"))
	}
	c.ok("build", "--load", "-t", "loaded:1", "-o", "type=cacheonly", ".")
	c.ok("image", "inspect", "loaded:1")
	if _, errs, code := c.run("", "build", "--push", "."); code != 1 || !strings.Contains(errs, "ERROR: failed to build: tag is needed when pushing to registry") {
		t.Error(code, errs)
	}
	// A layout that was written is a named context.
	c.write("named/Dockerfile", "FROM other\nCOPY --from=dir b /b\n")
	c.write("b/b", "from a directory")
	c.ok("build", "--build-context", "other=oci-layout://layout:2", "--build-context", "dir=b", "-o", "out2", "named")
	if c.read("out2/dir/a") != "hello" || c.read("out2/b") != "from a directory" {
		t.Error("named contexts")
	}
}

func cliContexts(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"ctx/a": "A", "elsewhere/D": "FROM scratch\nCOPY a /\n"})
	c.ok("build", "-f", "elsewhere/D", "-o", "out", "ctx")
	if c.read("out/a") != "A" {
		t.Error(c.read("out/a"))
	}
	if out, errs, code := c.run("FROM scratch\nCOPY a /stdin\n", "build", "-f", "-", "-o", "-", "ctx"); code != 0 || !strings.Contains(out, "stdin") {
		t.Error(code, errs)
	}
	if out, errs, code := c.run("FROM busybox\nRUN echo hi >/lone\n", "build", "-o", "-", "-"); code != 0 || !strings.Contains(out, "lone") {
		t.Error(code, errs)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{"Dockerfile": "FROM scratch\nCOPY in /from-tar\n", "in": "x"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if out, errs, code := c.run(b.String(), "build", "-o", "-", "-"); code != 0 || !strings.Contains(out, "from-tar") {
		t.Error(code, errs)
	}
	// What is outside of the context is not there, however it is named.
	c.write("secret", "outside")
	for _, link := range []string{"link", "dir/link"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(c.dir, "ctx/dir"), 0o755), os.Symlink("../../secret", filepath.Join(c.dir, "ctx", link))); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []string{"../secret", "link/", "dir/../../secret"} {
		c.write("ctx/Dockerfile", "FROM scratch\nCOPY "+from+" /x/\n")
		if out, _, _ := c.run("", "build", "-o", "-", "ctx"); strings.Contains(out, "outside") {
			t.Errorf("COPY %s reads outside of the context", from)
		}
	}
}

func cliIgnored(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "# all but\n*\n!src\nsrc/**/*.tmp\n!**/keep.tmp\n",
		"top": "1", "src/a": "2", "src/b.tmp": "3", "src/d/c.tmp": "4", "src/d/keep.tmp": "5",
		"second.Dockerfile": "FROM scratch\nCOPY . /\n", "second.Dockerfile.dockerignore": "src\n*Dockerfile*\n.*\n",
	})
	data, _ := c.ok("build", "-o", "-", ".")
	if got := c.tarNames(data); got != "src/ src/a src/d/ src/d/keep.tmp" {
		t.Error(got)
	}
	data, _ = c.ok("build", "-f", "second.Dockerfile", "-o", "-", ".")
	if got := c.tarNames(data); got != "top" {
		t.Error(got)
	}
}

func cliSecrets(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"s": "from a file", "Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=f --mount=type=secret,id=e,env=E --mount=type=secret,id=AUTO cat /run/secrets/f /run/secrets/AUTO > /got; echo \" $E\" >> /got\nFROM scratch\nCOPY --from=0 /got /\n"})
	c.env = []string{"V=a variable", "AUTO=found"}
	c.ok("build", "--secret", "id=f,src=s", "--secret", "id=e,env=V", "--secret", "id=AUTO", "-o", "out", ".")
	if got := c.read("out/got"); got != "from a filefound a variable\n" {
		t.Errorf("%q", got)
	}
	if _, errs, code := c.run("", "build", "--secret", "id=x,src=nope", "."); code != 1 || !strings.Contains(errs, "failed to stat nope") {
		t.Error(code, errs)
	}
}

func cliAgents(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=ssh,required=true test -S \"$SSH_AUTH_SOCK\"\n"})
	socket := filepath.Join(c.dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(agent.NewKeyring(), conn)
			}()
		}
	}()
	if _, errs, code := c.run("", "build", "--no-cache", "."); code != 1 || !strings.Contains(errs, "ERROR: failed to build") {
		t.Error(code, errs)
	}
	c.env = []string{"SSH_AUTH_SOCK=" + socket}
	c.ok("build", "--ssh", "default", ".")
}

func cliErrors(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN exit 3\n", "D2": "FROM busybox\nBOGUS\n", "D3": "FROM busybox\nCOPY nope /\n"})
	_, errs, code := c.run("", "build", ".")
	if code != 1 {
		t.Error(code)
	}
	c.has(errs, "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN exit 3\n", `ERROR: failed to build: failed to solve: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`)
	for _, x := range [][]string{
		{"failed to solve: dockerfile parse error on line 2: unknown instruction: BOGUS", "-f", "D2", "."},
		{`"/nope": not found`, "-f", "D3", "."},
		{"open nofile: no such file or directory", "-f", "nofile", "."},
		{`failed to build: unable to prepare context: path "nodir" not found`, "nodir"},
		{`target stage "x" could not be found`, "--target", "x", "."},
		{"type is required for output", "-o", "a=b,c=d", "."},
		{`network mode "bridge2" not supported by buildkit`, "--network", "bridge2", "."},
		{"--no-cache and --no-cache-filter cannot currently be used together", "--no-cache", "--no-cache-filter", "x", "."},
		{"'gantry buildx build' requires 1 argument"},
		{`no builder "other" found`, "--builder", "other", "."},
		{"progress=plain and quiet cannot be used together", "-q", "--progress=plain", "."},
		{"unknown flag: --nope", "--nope", "."},
	} {
		_, errs, code := c.run("", append([]string{"build"}, x[1:]...)...)
		if code != 1 {
			t.Errorf("%v: exit code %d", x[1:], code)
		}
		c.has(errs, "ERROR: ", x[0])
	}
	c.env = []string{"DOCKER_HOST=unix://" + c.dir + "/nobody"}
	if _, errs, code := c.run("", "build", "."); code != 1 || !strings.Contains(errs, "Cannot connect to the daemon at unix://"+c.dir+"/nobody") {
		t.Error(code, errs)
	}
}

func cliCalls(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "# base The base\nFROM busybox as base\nARG X=1\nCMD true\n", "Good": "FROM busybox\n"})
	out, _, code := c.run("", "build", "--check", ".")
	if code != 1 {
		t.Error(code)
	}
	c.has(out, "Check complete, 2 warnings have been found!", "WARNING: FromAsCasing", "WARNING: JSONArgsRecommended", "Dockerfile:4\n")
	if out, _ := c.ok("build", "--check", "-f", "Good", "."); out != "Check complete, no warnings found.\n" {
		t.Errorf("%q", out)
	}
	out, _ = c.ok("build", "--call", "outline", ".")
	c.has(out, "TARGET:", "base", "BUILD ARG", "X")
	out, _ = c.ok("build", "--call", "targets,format=json", ".")
	if !json.Valid([]byte(out)) {
		t.Error(out)
	}
	_, errs := c.ok("build", ".")
	c.has(errs, "2 warnings found (use docker --debug to expand)", " - FromAsCasing: ")
	_, errs = c.ok("-D", "build", ".")
	c.has(errs, "More info: https://")
	_, errs = c.ok("build", "--progress=rawjson", ".")
	for line := range strings.Lines(errs) {
		if !json.Valid([]byte(line)) {
			t.Error(line)
		}
	}
}

func cliExplain(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nARG V=1\nCOPY site/ /srv/\nRUN echo $V >/v\nRUN true\n", "site/index.html": "1", "site/big": strings.Repeat("x", 5000)})
	_, errs := c.ok("build", "--explain", ".")
	c.has(errs, "3 of 3 steps ran:", "never built", "Largest directories of the context", "site\n")
	_, errs = c.ok("build", "--explain", ".")
	c.has(errs, "Every step was taken from the cache.")
	c.write("site/index.html", "22")
	_, errs = c.ok("build", "--explain", ".")
	c.has(errs, "[2/4] COPY site/ /srv/\n     site/index.html changed\n", "[3/4] RUN echo 1 >/v\n     a step before it ran: [2/4] COPY site/ /srv/\n")
	_, errs = c.ok("build", "--explain", "--build-arg", "V=2", ".")
	c.has(errs, `build argument V is now "2"`)
	_, errs = c.ok("build", "--explain", "--build-arg", "V=2", "--no-cache", ".")
	c.has(errs, "the cache was not to be used (--no-cache)")
}

func cliBake(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"docker-bake.hcl": `
variable "NAME" { default = "world" }
group "default" { targets = ["hello", "tools"] }
target "base" { dockerfile-inline = "FROM busybox\nRUN echo shared >/base" }
target "hello" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\nARG NAME\nRUN cat /base && echo $${NAME} >/name"
  args = { NAME = NAME }
  output = ["out/hello"]
}
target "tools" {
  name = "tool-${t}"
  matrix = { t = ["a", "b"] }
  dockerfile-inline = "FROM scratch\nLABEL t=${t}"
  tags = ["tool:${t}"]
}
`})
	_, errs := c.ok("bake", "--metadata-file", "meta.json")
	c.has(errs, "[hello ", "[tool-a ")
	if c.read("out/hello/base") != "shared\n" || c.read("out/hello/name") != "world\n" {
		t.Error("the result of another target is a context")
	}
	if out, _ := c.ok("image", "inspect", "-f", "{{.Config.Labels.t}}", "tool:a", "tool:b"); out != "a\nb\n" {
		t.Errorf("%q", out)
	}
	var meta map[string]map[string]any
	if err := json.Unmarshal([]byte(c.read("meta.json")), &meta); err != nil || meta["tool-a"]["image.name"] != "docker.io/library/tool:a" {
		t.Error(err, meta)
	}
	c.env = []string{"NAME=you"}
	c.ok("bake", "hello", "--set", "hello.output=other")
	if c.read("other/name") != "you\n" {
		t.Error(c.read("other/name"))
	}
	out, _ := c.ok("bake", "--print", "tools")
	c.has(out, `"tool-b"`, `"tool:b"`)
	out, _ = c.ok("bake", "--list", "variables")
	c.has(out, "VARIABLE", "NAME")
	c.write("bad.hcl", "\ntarget \"a\" { context = nope }\n")
	if _, errs, code := c.run("", "bake", "-f", "bad.hcl", "a"); code != 1 || !strings.Contains(errs, "bad.hcl:2\n-----") {
		t.Error(code, errs)
	}
}

// A definition may come from others: what it wants beyond the directory must be
// allowed.
func cliPrivileges(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"docker-bake.hcl": `
target "default" {
  dockerfile-inline = "FROM scratch\nCOPY --from=host x /x"
  contexts = { host = "../outside" }
  output = ["out"]
}
target "host" {
  dockerfile-inline = "FROM busybox\nRUN true"
  network = "host"
}
`})
	outside := filepath.Join(filepath.Dir(c.dir), "outside")
	if err := errors.Join(os.MkdirAll(outside, 0o755), os.WriteFile(filepath.Join(outside, "x"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := c.run("", "bake"); code != 1 || !strings.Contains(errs, "--allow fs.read=../outside") {
		t.Error(code, errs)
	}
	c.ok("bake", "--allow", "fs.read="+outside)
	if c.read("out/x") != "x" {
		t.Error(c.read("out/x"))
	}
	if _, errs, code := c.run("", "bake", "host"); code != 1 || !strings.Contains(errs, "--allow network.host") {
		t.Error(code, errs)
	}
}

func cliCache(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN echo cli-cache >/x\n"})
	c.ok("build", "--cache-to", "type=local,dest=cache,mode=max", ".")
	if !json.Valid([]byte(c.read("cache/index.json"))) {
		t.Error(c.read("cache/index.json"))
	}
	_, errs := c.ok("build", "--progress=plain", "--cache-from", "type=local,src=cache", ".")
	c.has(errs, "CACHED", "importing cache manifest from local:")
}

func cliCancel(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN echo began; sleep 1000\n"})
	cmd := c.command(d.Program("gantry-buildx"), "build", "--no-cache", "--progress=plain", ".")
	var mu bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf := make([]byte, 4096)
	for sent := false; ; {
		n, err := r.Read(buf)
		mu.Write(buf[:n])
		if !sent && regexp.MustCompile(`(?m)^#\d+ [0-9.]+ began`).Match(mu.Bytes()) {
			sent = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d\n%s", code, mu.String())
	}
	c.has(mu.String(), "CANCELED")
}

// The program is a plugin of the docker command line too.
func cliPlugin(t *testing.T, d *testkit.Daemon) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker command line on this machine")
	}
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=tmpfs,target=/t echo by docker >/x\n"})
	dir := filepath.Join(c.dir, ".docker", "cli-plugins")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(d.Program("gantry-buildx"), filepath.Join(dir, "docker-buildx"))); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"buildx", "version"}, {"build", "-t", "by-docker", "."}, {"buildx", "build", "-q", "."}, {"buildx", "ls"}} {
		if out, err := c.command(docker, args...).CombinedOutput(); err != nil {
			t.Errorf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if out, _ := c.ok("run", "--rm", "by-docker", "cat", "/x"); out != "by docker\n" {
		t.Errorf("%q", out)
	}
}

func cliBuilder(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN echo builder-test\n"})
	c.ok("build", ".")
	out, _ := c.ok("builder", "du")
	c.has(out, "RECLAIMABLE", "Total:")
	out, _ = c.ok("buildx", "ls")
	c.has(out, "default*", "running", "linux/amd64")
	out, _ = c.ok("buildx", "history", "ls")
	c.has(out, "BUILD ID", "Completed")
	out, _ = c.ok("builder", "history", "logs")
	c.has(out, "RUN echo builder-test")
	c.ok("buildx", "history", "rm", "--all")
	if out, _ := c.ok("buildx", "history", "ls"); strings.Contains(out, "Completed") {
		t.Error(out)
	}
	if _, errs, code := c.run("", "buildx", "create", "x"); code != 1 || !strings.Contains(errs, "no other builders") {
		t.Error(code, errs)
	}
	out, _ = c.ok("buildx", "prune", "-f", "-a")
	c.has(out, "Total:")
}
