package build_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// composeDir is where Debian's docker-compose is unpacked to, with what it
// imports: its docker-py is another one than this machine's may be.
const composeDir = "/var/cache/gantry-test/docker-compose"

// composePackages are docker-compose and what it imports.
const composePackages = "docker-compose python3-docker python3-dockerpty python3-docopt python3-texttable python3-websocket python3-dotenv python3-jsonschema " +
	"python3-yaml python3-distro python3-attr python3-pyrsistent python3-requests python3-urllib3 python3-six python3-chardet python3-certifi python3-idna " +
	"python3-charset-normalizer python3-pkg-resources python3-paramiko python3-packaging"

// TestDockerCompose builds with Debian's docker-compose, by the classic API and by
// way of the docker command line with its stock plugin.
func TestDockerCompose(t *testing.T) {
	buildx := stockBuildx.compile(t)
	program := filepath.Join(composeDir, "usr/bin/docker-compose")
	if _, err := os.Stat(program); err != nil {
		must(t, os.MkdirAll(composeDir, 0o755))
		cmd := exec.Command("sh", "-ec", "apt-get download -qq "+composePackages+"; for d in *.deb; do dpkg-deb -x $d .; done; rm -f ./*.deb")
		cmd.Dir = composeDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker-compose: %v: %s", err, out)
		}
	}
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{
		"compose.yaml": "version: \"3.7\"\nservices:\n  web:\n    image: composed:1\n    build:\n      context: web\n      target: last\n      args: {WORD: given}\n      labels: {made: by-compose}\n",
		"web/Dockerfile": "FROM busybox AS first\nARG WORD=none\nRUN echo $WORD >/word\nFROM first AS last\nCOPY f /f\nCMD [\"cat\", \"/word\", \"/f\"]\n" +
			"FROM last AS unwanted\nRUN false\n",
		"web/f": "file\n",
	})
	c.plug(t, map[string]string{"docker-buildx": buildx})
	for _, env := range [][]string{{"COMPOSE_DOCKER_CLI_BUILD=0"}, {"COMPOSE_DOCKER_CLI_BUILD=1", "DOCKER_BUILDKIT=1"}} {
		c.env = append([]string{"PYTHONPATH=" + filepath.Join(composeDir, "usr/lib/python3/dist-packages")}, env...)
		if out, err := c.command("/usr/bin/python3", program, "-f", "compose.yaml", "build", "--no-cache").CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", env, err, out)
			continue
		}
		if got := d.OK(t, "run", "--rm", "composed:1"); got != "given\nfile" {
			t.Errorf("%q: the image says %q", env, got)
		}
		d.OK(t, "rmi", "composed:1")
	}
}

// TestDockerCompose2 builds and runs a project with docker compose, the plugin of
// today, beside the stock buildx, beside ours, and by the classic API.
func TestDockerCompose2(t *testing.T) {
	buildx, compose := stockBuildx.compile(t), stockCompose.compile(t)
	docker, err := exec.LookPath("docker")
	must(t, err)
	ours, err := filepath.Abs(testkit.Bin(t, "gantry-buildx"))
	must(t, err)
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{
		"compose.yaml": "services:\n  web:\n    build: ./web\n    stop_grace_period: 0s\n    ports: [\"127.0.0.1::80\"]\n    depends_on: {api: {condition: service_healthy}}\n" +
			"  api:\n    stop_grace_period: 0s\n    build: {context: ./api, args: {WORD: given}}\n    healthcheck: {test: [\"CMD\", \"true\"], interval: 1s}\n    volumes: [\"data:/data\"]\nvolumes: {data: {}}\n",
		"web/Dockerfile": "FROM busybox\nRUN mkdir /w\nCOPY f /w/f\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/w\"]\n",
		"web/f":          "file\n",
		"api/Dockerfile": "FROM busybox\nARG WORD\nRUN echo $WORD >/word\nCMD [\"sh\", \"-c\", \"cat /word; sleep 1000\"]\n",
	})
	run := func(args ...string) string {
		t.Helper()
		out, err := c.command(docker, append([]string{"compose", "-p", "project", "-f", "compose.yaml"}, args...)...).Output()
		if err != nil {
			t.Errorf("docker compose %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, x := range []struct{ plugin, env string }{{buildx, "DOCKER_BUILDKIT=1"}, {ours, "DOCKER_BUILDKIT=1"}, {buildx, "DOCKER_BUILDKIT=0"}} {
		c.env = []string{x.env}
		c.plug(t, map[string]string{"docker-buildx": x.plugin, "docker-compose": compose})
		run("build", "--no-cache")
		run("up", "-d")
		host := run("port", "web", "80")
		resp, err := http.Get("http://" + host + "/f")
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "file\n" {
			t.Errorf("%v: %s says %q, %v", x, host, body, err)
		}
		if got := run("exec", "-T", "web", "nslookup", "api"); !strings.Contains(got, "Name:\tapi") {
			t.Errorf("%v: the other service is %q", x, got)
		}
		if got := run("logs", "--no-log-prefix", "api"); got != "given" {
			t.Errorf("%v: its log is %q", x, got)
		}
		run("down", "-v", "--rmi", "local")
		if got := d.OK(t, "ps", "-aq") + d.OK(t, "volume", "ls", "-q") + d.OK(t, "images", "-q", "project-*"); got != "" {
			t.Errorf("%v: left: %q", x, got)
		}
	}
}
