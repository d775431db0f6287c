package life

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/internal/testkit"
)

// via runs the command line against another socket of the daemon.
func via(d *testkit.Daemon, socket string, args ...string) (string, error) {
	cmd := exec.Command(d.Program("gantry"), args...)
	cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+socket, "DOCKER_HOST=", "DOCKER_CONTEXT=", "DOCKER_CONFIG="+filepath.Dir(d.Socket))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestScopedSocket is row S11 with the real programs: a socket of the policy ci
// beside the full one.
func TestScopedSocket(t *testing.T) {
	dir := t.TempDir()
	work, outside := filepath.Join(dir, "work"), filepath.Join(dir, "outside")
	for _, p := range []string{work + "/real", outside} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, outside+"/secret", "secret")
	write(t, work+"/real/file", "mine")
	file := filepath.Join(dir, "policy.json")
	write(t, file, `{"operations":["@read","@run","@write"],"labels":{"team":"a"},"images":["busybox"],"create":{"binds":[{"path":"`+work+`"}],"memory":"64m"}}`)
	sock, look := filepath.Join(dir, "ci.sock"), filepath.Join(dir, "look.sock")
	d := testkit.StartBusybox(t, "--api-socket", "path="+sock+",policy="+file+",mode=0600", "--api-socket", "path="+look+",policy=read-only")
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	d.OK(t, "run", "-d", "--name", "theirs", "busybox", "sleep", "100")
	if out, err := via(d, sock, "run", "-d", "--name", "mine", "-v", work+"/real:/w", "busybox", "sh", "-c", "cat /w/file; sleep 100"); err != nil {
		t.Fatal(out)
	}
	if got := d.OK(t, "inspect", "-f", "{{.Config.Labels.team}} {{.HostConfig.Memory}}", "mine"); got != "a 67108864" {
		t.Errorf("what the policy gives: %s", got)
	}
	if out, _ := via(d, sock, "ps", "--format", "{{.Names}}"); out != "mine" {
		t.Errorf("ps shows %q", out)
	}
	if out, err := via(d, sock, "exec", "mine", "cat", "/w/file"); err != nil || out != "mine" {
		t.Errorf("exec: %s", out)
	}
	for _, denied := range [][]string{
		{"exec", "theirs", "true"}, {"rm", "-f", "theirs"}, {"logs", "theirs"}, {"inspect", "--type", "container", "theirs"}, {"exec", "--privileged", "mine", "true"},
		{"run", "--rm", "--privileged", "busybox", "true"}, {"run", "--rm", "-v", "/:/host", "busybox", "true"}, {"run", "--rm", "--pid", "container:theirs", "busybox", "true"},
		{"run", "--rm", "-v", outside + ":/o", "busybox", "true"}, {"run", "--rm", "--network", "host", "busybox", "true"}, {"run", "--rm", "-m", "1g", "busybox", "true"},
		{"run", "--rm", "hello-world"}, {"volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/", "v"}, {"container", "prune", "-f"}, {"doctor", "--fix"},
	} {
		if out, err := via(d, sock, denied...); err == nil || !strings.Contains(out, "policy "+file+" denies ") {
			t.Errorf("%v: %v %s", denied, err, out)
		}
	}
	links(t, d, sock, work, outside)
	if out, err := via(d, look, "ps", "-q"); err != nil || len(strings.Fields(out)) < 2 {
		t.Errorf("read-only ps: %s", out)
	}
	if out, err := via(d, look, "kill", "theirs"); err == nil || !strings.Contains(out, "policy read-only denies container.kill") {
		t.Errorf("read-only kill: %s", out)
	}
	write(t, file, `{"operations":["system.ping"]}`)
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	testkit.Eventually(t, "new policy", func() bool { _, err := via(d, sock, "ps"); return err != nil })
}

// links: a source that a link leads elsewhere is refused, at the create and at
// every start, whoever changed it in between.
func links(t *testing.T, d *testkit.Daemon, sock, work, outside string) {
	if err := os.Symlink(outside, work+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{work + "/link", work + "/link/../link"} {
		if out, err := via(d, sock, "run", "--rm", "-v", source+":/o", "busybox", "cat", "/o/secret"); err == nil || strings.HasSuffix(out, "secret") {
			t.Errorf("a link that leads out was followed: %s", out)
		}
	}
	if err := os.Mkdir(work+"/later", 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := via(d, sock, "create", "--name", "later", "-v", work+"/later:/o", "busybox", "cat", "/o/secret"); err != nil {
		t.Fatal(out)
	}
	if err := os.Remove(work + "/later"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, work+"/later"); err != nil {
		t.Fatal(err)
	}
	// The full socket starts what the scoped one made: it is bounded all the same.
	if out, err := d.Gantry("start", "-a", "later"); err == nil || strings.Contains(out, "secret") {
		t.Errorf("a link that was put there afterwards was followed: %s %v", out, err)
	}
	if err := os.Remove(work + "/later"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(work+"/later", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, work+"/later/secret", "own")
	if out, err := d.Gantry("start", "-a", "later"); err != nil || strings.TrimSpace(out) != "own" {
		t.Errorf("%s %v", out, err)
	}
}
