package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
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
	buildx := plugin(t, "v0.37.2")
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
	plugins := filepath.Join(c.dir, ".docker", "cli-plugins")
	must(t, os.MkdirAll(plugins, 0o755))
	must(t, os.Symlink(buildx, filepath.Join(plugins, "docker-buildx")))
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
