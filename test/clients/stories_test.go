package clients_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// A story is what one person does with one command line.
type story struct {
	*testing.T
	cli clients.CLI
}

// ok runs a command that must succeed and returns its standard output.
func (s story) ok(args ...string) string {
	s.Helper()
	r, err := s.cli.Run(nil, args...)
	if err != nil || r.Code != 0 {
		s.Fatalf("%s %s: exit %d, %v\n%s%s", filepath.Base(s.cli.Path), strings.Join(args, " "), r.Code, err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// fails runs a command that must exit with code and say text.
func (s story) fails(code int, text string, args ...string) {
	s.Helper()
	r, err := s.cli.Run(nil, args...)
	if err != nil || r.Code != code || !strings.Contains(r.Stderr+r.Stdout, text) {
		s.Errorf("%s %s: exit %d (want %d), %v\n%s%s\nwant the text %q", filepath.Base(s.cli.Path), strings.Join(args, " "), r.Code, code, err, r.Stdout, r.Stderr, text)
	}
}

func (s story) terminal(args ...string) *clients.Terminal {
	s.Helper()
	t, err := s.cli.AtTerminal(args...)
	if err != nil {
		s.Fatal(err)
	}
	return t
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// each runs a story with docker and with gantry, each against a daemon of its
// own that has busybox.
func each(t *testing.T, tell func(s story)) {
	d := testkit.StartDaemon(t)
	var image bytes.Buffer
	if err := testkit.Busybox(&image, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	config := t.TempDir()
	env := []string{"DOCKER_HOST=unix://" + d.Socket, "GANTRY_HOST=unix://" + d.Socket, "DOCKER_CONFIG=" + config, "DOCKER_CONTEXT=", "TERM=xterm"}
	gantry := clients.CLI{Path: d.Program("gantry"), Env: env}
	if r, err := gantry.Run(&image, "load"); err != nil || r.Code != 0 {
		t.Fatalf("load: %+v, %v", r, err)
	}
	programs := map[string]clients.CLI{"gantry": gantry}
	if docker, err := exec.LookPath("docker"); err == nil {
		programs["docker"] = clients.CLI{Path: docker, Env: env}
	} else if os.Getenv("CI") != "" && os.Getenv("GANTRY_NO_DOCKER_CLI") == "" {
		t.Log("no docker command line on this machine: only gantry is driven")
	}
	for name, cli := range programs {
		t.Run(name, func(t *testing.T) { tell(story{t, cli}) })
	}
}

func TestForeground(t *testing.T) {
	each(t, func(s story) {
		if got := s.ok("run", "--rm", "busybox", "echo", "hello"); got != "hello\n" {
			s.Errorf("stdout %q", got)
		}
		s.fails(7, "", "run", "--rm", "busybox", "sh", "-c", "exit 7")
		s.fails(127, `exec: "nosuch": executable file not found in $PATH`, "run", "--rm", "busybox", "nosuch")
		s.fails(126, "permission denied", "run", "--rm", "busybox", "/etc/passwd")
		s.fails(125, "Minimum memory limit allowed is 6MB", "run", "--rm", "--memory", "1k", "busybox", "true")
		r, err := s.cli.Run(strings.NewReader("through a pipe"), "run", "-i", "--rm", "busybox", "cat")
		if err != nil || r.Stdout != "through a pipe" {
			s.Errorf("cat: %+v, %v", r, err)
		}
		r, _ = s.cli.Run(nil, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
		if r.Stdout != "out\n" || r.Stderr != "err\n" {
			s.Errorf("streams: %+v", r)
		}
		if got := s.ok("ps", "-aq"); got != "" {
			s.Errorf("containers left: %q", got)
		}
	})
}

func TestInteractive(t *testing.T) {
	each(t, func(s story) {
		term := s.terminal("run", "-it", "--name", "tty", "busybox", "sh")
		s.must(term.Expect("/ # "))
		s.must(term.Type("tty; stty size\r"))
		s.must(term.Expect("/dev/pts/0"))
		s.must(term.Expect("24 80"))
		s.must(term.Resize(40, 100))
		time.Sleep(200 * time.Millisecond)
		s.must(term.Type("stty size\r"))
		s.must(term.Expect("40 100"))

		// ctrl-p ctrl-q leaves it running; attach brings it back.
		s.must(term.Type("X=kept\r"))
		s.must(term.Expect("/ # "))
		s.must(term.Type("\x10\x11"))
		if code, err := term.Wait(); err != nil || code != 0 {
			s.Fatalf("detach: exit %d, %v", code, err)
		}
		if got := s.ok("inspect", "-f", "{{.State.Running}}", "tty"); got != "true\n" {
			s.Fatalf("running after detach: %q", got)
		}
		term = s.terminal("attach", "tty")
		s.must(term.Type("\recho $X\r"))
		s.must(term.Expect("\nkept"))
		s.must(term.Type("exit 3\r"))
		if code, err := term.Wait(); err != nil || code != 3 {
			s.Errorf("exit code %d, %v; want 3", code, err)
		}
		if got := s.ok("ps", "-a", "--filter", "name=tty", "--format", "{{.Status}}"); !strings.HasPrefix(got, "Exited (3)") {
			s.Errorf("status %q", got)
		}
		s.ok("rm", "tty")
	})
}

func TestDetached(t *testing.T) {
	each(t, func(s story) {
		id := strings.TrimSpace(s.ok("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c",
			"mkdir /www; echo page >/www/index.html; echo started; trap 'exit 5' TERM; httpd -h /www; while :; do sleep 0.1; done"))
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
			s.Errorf("id %q", id)
		}
		addr := strings.TrimSpace(s.ok("port", "web", "80"))
		var page string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if resp, err := http.Get("http://" + addr + "/"); err == nil {
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				page = string(b)
				break
			}
		}
		if page != "page\n" {
			s.Errorf("http://%s/ = %q", addr, page)
		}
		if got := s.ok("logs", "web"); got != "started\n" {
			s.Errorf("logs %q", got)
		}
		if got := s.ok("exec", "-e", "A=1", "-w", "/tmp", "web", "sh", "-c", "echo $A; pwd"); got != "1\n/tmp\n" {
			s.Errorf("exec %q", got)
		}
		s.fails(4, "", "exec", "web", "sh", "-c", "exit 4")
		term := s.terminal("exec", "-it", "web", "sh")
		s.must(term.Expect("/ # "))
		s.must(term.Type("hostname\r"))
		s.must(term.Expect(id[:12]))
		s.must(term.Type("exit\r"))
		if code, err := term.Wait(); err != nil || code != 0 {
			s.Errorf("exec -it: exit %d, %v", code, err)
		}
		s.fails(1, "container is running", "rm", "web")
		s.ok("stop", "-t", "5", "web")
		if got := s.ok("inspect", "-f", "{{.State.ExitCode}}", "web"); got != "5\n" {
			s.Errorf("exit code after stop: %q", got)
		}
		if _, err := http.Get("http://" + addr + "/"); err == nil {
			s.Error("the port still answers after stop")
		}
		s.ok("start", "web")
		if got := s.ok("exec", "web", "cat", "/www/index.html"); got != "page\n" {
			s.Errorf("file after restart: %q", got)
		}
		s.ok("rm", "-f", "web")
		s.fails(1, "No such container: web", "logs", "web")
	})
}

func TestLogsFollow(t *testing.T) {
	each(t, func(s story) {
		s.ok("run", "-d", "--name", "lines", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
		if got := s.ok("logs", "-f", "lines"); got != "1\n2\n3\n4\n5\n" {
			s.Errorf("logs -f: %q", got)
		}
		if got := s.ok("logs", "--tail", "2", "lines"); got != "4\n5\n" {
			s.Errorf("logs --tail 2: %q", got)
		}
		if got := s.ok("logs", "-t", "--tail", "1", "lines"); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z 5\n$`).MatchString(got) {
			s.Errorf("logs -t: %q", got)
		}
		if got := s.ok("wait", "lines"); got != "0\n" {
			s.Errorf("wait: %q", got)
		}
		s.ok("rm", "lines")
	})
}

func TestPauseRenameRestartKill(t *testing.T) {
	each(t, func(s story) {
		s.ok("run", "-d", "--name", "one", "busybox", "sleep", "300")
		s.ok("pause", "one")
		if got := s.ok("ps", "--format", "{{.Status}}"); !strings.HasSuffix(got, "(Paused)\n") {
			s.Errorf("status %q", got)
		}
		s.fails(1, "is already paused", "pause", "one")
		s.ok("unpause", "one")
		s.ok("rename", "one", "two")
		s.fails(1, "No such container: one", "kill", "one")
		s.ok("restart", "-t", "0", "two")
		s.ok("kill", "two")
		if got := s.ok("wait", "two"); got != "137\n" {
			s.Errorf("wait: %q", got)
		}
		s.fails(1, "is not running", "top", "two")
		s.ok("start", "two")
		if got := s.ok("top", "two", "-o", "pid,comm"); !strings.HasSuffix(got, " sleep\n") {
			s.Errorf("top: %q", got)
		}
		s.ok("rm", "-f", "two")
	})
}

func TestVolumesAndMounts(t *testing.T) {
	each(t, func(s story) {
		dir := s.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("host\n"), 0o644); err != nil {
			s.Fatal(err)
		}
		if got := s.ok("run", "--rm", "-v", dir+":/d:ro", "busybox", "cat", "/d/f"); got != "host\n" {
			s.Errorf("bind: %q", got)
		}
		s.fails(1, "Read-only file system", "run", "--rm", "-v", dir+":/d:ro", "busybox", "touch", "/d/x")
		s.ok("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo kept >/v/f")
		if got := s.ok("run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/f"); got != "kept\n" {
			s.Errorf("volume: %q", got)
		}
		if got := s.ok("run", "--rm", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m", "busybox", "df", "-k", "/t"); !strings.Contains(got, "1024") {
			s.Errorf("tmpfs: %q", got)
		}
		s.fails(125, "bind source path does not exist: /nonexistent", "run", "--rm", "--mount", "type=bind,source=/nonexistent,target=/x", "busybox", "true")
		s.ok("volume", "rm", "vol")
		s.ok("run", "--rm", "-v", "/anonymous", "busybox", "true")
		if got := s.ok("volume", "ls", "-q"); got != "" {
			s.Errorf("volumes left: %q", got)
		}
	})
}

func TestResourcesAndIsolation(t *testing.T) {
	each(t, func(s story) {
		got := s.ok("run", "--rm", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "busybox", "sh", "-c",
			"cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || (cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cut -d' ' -f1 /sys/fs/cgroup/cpu.max)")
		if got != "67108864\n50\n50000\n" {
			s.Errorf("limits: %q", got)
		}
		got = s.ok("run", "--rm", "busybox", "grep", "-E", "Cap(Prm|Bnd|Amb)|Seccomp:", "/proc/self/status")
		for _, want := range []string{"CapPrm:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "Seccomp:\t2"} {
			if !strings.Contains(got, want) {
				s.Errorf("status lacks %q:\n%s", want, got)
			}
		}
		if got := s.ok("run", "--rm", "-u", "1000:1000", "busybox", "id"); !strings.HasPrefix(got, "uid=1000 gid=1000") {
			s.Errorf("id: %q", got)
		}
		if got := s.ok("run", "--rm", "busybox", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'"); !strings.HasPrefix(got, "1\n") {
			s.Errorf("pid: %q", got)
		}
		s.fails(1, "Read-only file system", "run", "--rm", "--read-only", "busybox", "touch", "/x")
		if got := s.ok("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"); strings.Contains(got, "eth0") {
			s.Errorf("network none: %q", got)
		}
		if got := s.ok("run", "--rm", "--init", "busybox", "ps", "-o", "pid,args"); !strings.Contains(got, "1 /sbin/docker-init") {
			s.Errorf("init: %q", got)
		}
	})
}

func TestRestartPolicyAndEvents(t *testing.T) {
	each(t, func(s story) {
		since := time.Now().Format(time.RFC3339Nano)
		s.fails(3, "", "run", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3")
		deadline := time.Now().Add(15 * time.Second)
		for s.ok("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again") != "2 exited\n" {
			if time.Now().After(deadline) {
				s.Fatalf("restarts: %s", s.ok("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"))
			}
			time.Sleep(50 * time.Millisecond)
		}
		s.ok("rm", "again")
		got := s.ok("events", "--since", since, "--until", time.Now().Add(time.Second).Format(time.RFC3339), "--filter", "container=again", "--filter", "type=container", "--format", "{{.Action}}")
		if strings.Count(got, "die") != 3 || strings.Count(got, "start") != 3 || !strings.HasSuffix(got, "destroy\n") {
			s.Errorf("events:\n%s", got)
		}
	})
}
