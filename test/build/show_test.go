package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// show skips what takes minutes, unless it is asked for.
func show(t *testing.T) {
	t.Helper()
	if os.Getenv("GANTRY_SHOW") == "" {
		t.Skip("GANTRY_SHOW=1 shows it; it takes minutes")
	}
}

// aptSources copies this machine's package sources into a context, as the
// directory apt.
func (c *cliCase) aptSources() {
	c.t.Helper()
	c.write("apt/sources.list", "") // what the image has, is not reached
	for _, pattern := range []string{"sources.list", "sources.list.d/*.sources", "sources.list.d/*.list", "apt.conf.d/99*"} {
		paths, err := filepath.Glob(filepath.Join("/etc/apt", pattern))
		must(c.t, err)
		for _, p := range paths {
			b, err := os.ReadFile(p)
			must(c.t, err)
			c.write("apt/"+strings.TrimPrefix(p, "/etc/apt/"), string(b))
		}
	}
}

// TestShowNginx is a site as people build it: Debian, packages from a mirror,
// files, a port, a health check; and it is run and read.
func TestShowNginx(t *testing.T) {
	show(t)
	curl, err := exec.LookPath("curl")
	must(t, err)
	d := testkit.StartDaemon(t)
	d.OK(t, "import", testkit.Debian(t), "debian:bookworm")
	c := newCLI(t, d, map[string]string{
		"site/index.html": "<h1>lifted by a crane</h1>\n",
		"Dockerfile": `FROM debian:bookworm
COPY apt/ /etc/apt/
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx && rm -rf /var/lib/apt/lists/*
COPY site/ /var/www/html/
EXPOSE 80
HEALTHCHECK --interval=1s --timeout=10s --retries=60 CMD bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'
CMD ["nginx", "-g", "daemon off;"]
`})
	c.aptSources()
	c.limit = 10 * time.Minute
	began := time.Now()
	_, errs := c.ok("build", "--progress=plain", "-t", "site", ".")
	t.Logf("apt-get install nginx and all: %v", time.Since(began).Round(time.Millisecond))
	c.has(errs, "Setting up nginx")
	d.OK(t, "run", "-d", "--name", "website", "-p", "127.0.0.1::80", "site")
	deadline := time.Now().Add(2 * time.Minute)
	for health := ""; health != "healthy"; time.Sleep(200 * time.Millisecond) {
		health = d.OK(t, "inspect", "-f", "{{.State.Health.Status}}", "website")
		if time.Now().After(deadline) {
			t.Fatalf("it is %s: %s", health, d.OK(t, "inspect", "-f", "{{json .State.Health}}", "website"))
		}
	}
	at := d.OK(t, "port", "website", "80")
	out, err := exec.Command(curl, "-sS", "--noproxy", "*", "-i", "http://"+at+"/").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Server: nginx") || !strings.HasSuffix(string(out), "<h1>lifted by a crane</h1>\n") {
		t.Errorf("%v: %s", err, out)
	}
	d.OK(t, "rm", "-f", "website")
	// Another page changes one layer: nothing is installed again.
	c.write("site/index.html", "<h1>and set down</h1>\n")
	began = time.Now()
	_, errs = c.ok("build", "--progress=plain", "-t", "site", ".")
	t.Logf("with another page: %v", time.Since(began).Round(time.Millisecond))
	if strings.Contains(errs, "Setting up nginx") {
		t.Error("nginx was installed again")
	}
	if got := d.OK(t, "run", "--rm", "site", "cat", "/var/www/html/index.html"); got != "<h1>and set down</h1>" {
		t.Error(got)
	}
}

// TestShowGo compiles with this machine's Go in one stage, with its caches in
// cache mounts, and runs the program alone in another.
func TestShowGo(t *testing.T) {
	show(t)
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	goroot := strings.TrimSpace(string(out))
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{
		"go.mod":                                "module example.com/app\n\ngo 1.24\n\nrequire example.com/words v1.0.0\n",
		"vendor/modules.txt":                    "# example.com/words v1.0.0\n## explicit; go 1.24\nexample.com/words\n",
		"vendor/example.com/words/words.go":     "// Package words has words.\npackage words\n\n// Hello is one.\nconst Hello = \"hello\"\n",
		"vendor/example.com/words/untested.txt": "not compiled\n",
		"main.go":                               goMain("one"),
		"Dockerfile": `FROM busybox AS build
ENV PATH=/usr/local/go/bin:/bin CGO_ENABLED=0 GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=vendor GOCACHE=/cache/build GOMODCACHE=/cache/mod
WORKDIR /src
COPY . .
RUN --network=none --mount=type=cache,target=/cache/build --mount=type=cache,target=/cache/mod --mount=type=bind,from=go,target=/usr/local/go \
    go build -v -trimpath -o /out/app .
FROM scratch
COPY --from=build /out/app /app
ENTRYPOINT ["/app"]
`})
	c.limit = 10 * time.Minute
	build := func() (string, time.Duration) {
		began := time.Now()
		_, errs := c.ok("build", "--progress=plain", "--build-context", "go="+goroot, "-t", "app", ".")
		return errs, time.Since(began)
	}
	first, cold := build()
	c.has(first, "encoding/json\n", "example.com/words\n", "example.com/app\n")
	if got := d.OK(t, "run", "--rm", "app", "you"); got != "hello you one" {
		t.Error(got)
	}
	c.write("main.go", goMain("two"))
	second, warm := build()
	t.Logf("the first build took %v, one with another source %v", cold.Round(time.Millisecond), warm.Round(time.Millisecond))
	c.has(second, "example.com/app\n")
	if regexp.MustCompile(`(?m) (encoding/json|example\.com/words)$`).MatchString(second) || warm > cold {
		t.Errorf("what is compiled already was compiled again, in %v after %v:\n%s", warm, cold, second)
	}
	if got := d.OK(t, "run", "--rm", "app", "you"); got != "hello you two" {
		t.Error(got)
	}
	// The image has the program and nothing else.
	d.OK(t, "create", "--name", "whole", "app")
	if data, _, code := c.run("", "export", "whole"); code != 0 || !onlyProgram(t, data) {
		t.Errorf("%d: the image has %s", code, c.tarNames(data))
	}
	d.OK(t, "rm", "whole")
}

// onlyProgram tells whether the tar of a container has app, and of all else only
// what every container gets.
func onlyProgram(t *testing.T, data string) bool {
	c := &cliCase{t: t}
	found := false
	for name := range strings.FieldsSeq(c.tarNames(data)) {
		switch top, _, _ := strings.Cut(name, "/"); top {
		case "app":
			found = true
		case "dev", "etc", "proc", "sys", ".dockerenv":
		default:
			return false
		}
	}
	return found
}

func goMain(word string) string {
	return `package main

import (
	"fmt"
	"encoding/json"
	"os"

	"example.com/words"
)

func main() {
	_ = json.Valid(nil)
	fmt.Println(words.Hello, os.Args[1], "` + word + `")
}
`
}
