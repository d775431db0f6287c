package clients_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// TestRuntimes runs containers with other OCI runtimes: runc, and our own
// program called as one.
func TestRuntimes(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := testkit.StartDaemon(t, "--config-file", file, "--add-runtime", "other="+runc, "--add-runtime", "self="+testkit.Bin(t, "gantry-shim"))
	d.LoadBusybox(t)
	s := story{t, clients.CLI{Path: d.Program("gantry"), Env: []string{"GANTRY_HOST=unix://" + d.Socket, "DOCKER_CONTEXT=", "DOCKER_CONFIG=" + t.TempDir(), "TERM=xterm"}}}
	s.fails(125, "unknown or invalid runtime name: nosuch", "run", "--rm", "--runtime", "nosuch", "busybox", "true")
	if got := s.ok("info", "--format", `{{range $k, $v := .Runtimes}}{{$k}}={{$v.Path}} {{end}}`); !strings.Contains(got, "other="+runc+" ") || !strings.Contains(got, "gantry=") {
		t.Errorf("info: %s", got)
	}
	for _, name := range []string{"other", "self"} {
		t.Run(name, func(t *testing.T) {
			s := s
			s.T = t
			s.runtime(d, name)
		})
	}

	// One more with a reload, and without it again: then it starts no more.
	reload := func(text, names string) {
		s.must(os.WriteFile(file, []byte(text), 0o600))
		s.must(syscall.Kill(d.Pid(), syscall.SIGHUP))
		for end := time.Now().Add(20 * time.Second); s.ok("info", "--format", "{{range $k, $v := .Runtimes}}{{$k}} {{end}}") != names+"\n"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the runtimes do not become %s", names)
			}
		}
	}
	reload(`{"runtimes":{"late":{"path":"`+runc+`"}}}`, "gantry late other runc self ")
	s.ok("run", "--name", "late", "--runtime", "late", "busybox", "true")
	reload("{}", "gantry other runc self ")
	s.fails(1, "unknown or invalid runtime name: late", "start", "late")
}

// runtime is the life of containers of one other runtime.
func (s story) runtime(d *testkit.Daemon, name string) {
	run := func(args ...string) []string { return append([]string{"run", "--runtime", name}, args...) }
	s.fails(7, "", run("--rm", "busybox", "sh", "-c", "exit 7")...)
	s.fails(127, `unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH`, run("--rm", "busybox", "nosuch")...)
	s.fails(126, "permission denied", run("--rm", "busybox", "/etc/passwd")...)
	if got := s.ok(run("--rm", "-e", "A=b", "-h", "named", "-u", "1:2", "--network", "none", "--tmpfs", "/scratch", "busybox", "sh", "-c", "echo $A; hostname; id -u; id -g; grep -c ' /scratch tmpfs' /proc/mounts")...); got != "b\nnamed\n1\n2\n1\n" {
		s.Errorf("isolated as asked: %q", got)
	}
	term := s.terminal(run("-it", "--rm", "busybox", "sh")...)
	s.must(term.Expect("/ # "))
	s.must(term.Type("stty size; exit 3\r"))
	s.must(term.Expect("24 80"))
	if code, err := term.Wait(); err != nil || code != 3 {
		s.Errorf("terminal: exit %d, %v", code, err)
	}

	s.ok(run("-d", "--name", "box", "-m", "64m", "-v", "kept:/data", "busybox", "sh", "-c", "echo one >>/data/f; echo two >>/own; trap 'exit 5' TERM; while :; do sleep 0.05; done")...)
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), filepath.Join(d.Root, "containers")) {
		s.Errorf("the host sees the container's root: %v", err)
	}
	s.fails(4, "said", "exec", "box", "sh", "-c", "echo said; exit 4")
	s.fails(127, `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch"`, "exec", "box", "nosuch")
	s.ok("pause", "box")
	s.ok("unpause", "box")
	s.ok("update", "-m", "96m", "--memory-swap", "96m", "box")
	if got := s.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "box"); !strings.Contains(got, "/ 96MiB") {
		s.Errorf("limit: %q", got)
	}
	// The daemon finds it again.
	d.Kill()
	d.Start(s.T)
	if got := s.ok("exec", "box", "cat", "/own"); got != "two\n" {
		s.Errorf("after the daemon's end: %q", got)
	}
	s.ok("stop", "box")
	if got := s.ok("inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Runtime}}", "box"); got != "5 "+name+"\n" {
		s.Errorf("after stop: %q", got)
	}
	s.ok("start", "box")
	for end := time.Now().Add(10 * time.Second); s.ok("exec", "box", "cat", "/own") != "two\ntwo\n"; {
		if time.Now().After(end) {
			s.Fatal("its files are not those of its first run")
		}
	}
	s.ok("rm", "-f", "box")
	s.ok("volume", "rm", "kept")
}
