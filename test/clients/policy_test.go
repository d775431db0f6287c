package clients_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// eventually waits until fn says yes.
func (s story) eventually(what string, fn func() bool) {
	s.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if fn() {
			return
		}
	}
	s.Fatalf("%s: it did not come to that", what)
}

func (s story) health(name string) string {
	s.Helper()
	return strings.TrimSpace(s.ok("inspect", "-f", "{{.State.Health.Status}}", name))
}

func TestLinks(t *testing.T) {
	t.Setenv("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS", "1")
	each(t, func(s story) {
		defer s.ok("rm", "-f", "ldb", "lweb", "hostly")
		s.ok("run", "-d", "--name", "hostly", "--network", "host", "busybox", "sleep", "1000")
		s.ok("run", "-d", "--name", "ldb", "-e", "PASS=x", "--expose", "5432", "--expose", "53/udp", "busybox", "sleep", "1000")
		s.ok("run", "-d", "--name", "lweb", "--link", "ldb:my-db", "busybox", "sleep", "1000")
		if got := s.ok("inspect", "-f", "{{.HostConfig.Links}}", "lweb"); got != "[/ldb:/lweb/my-db]\n" {
			s.Errorf("links %s", got)
		}
		if got := s.ok("ps", "--no-trunc", "--format", "{{.Names}}", "--filter", "name=ldb"); got != "ldb,lweb/my-db\n" {
			s.Errorf("names %s", got)
		}
		if got := s.ok("inspect", "-f", "{{.Name}}", "lweb/my-db"); got != "/ldb\n" {
			s.Errorf("by the link's name: %s", got)
		}
		ip := func() string {
			return strings.TrimSpace(s.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "ldb"))
		}
		id := strings.TrimSpace(s.ok("inspect", "-f", "{{.Config.Hostname}}", "ldb"))
		want := ip() + "\tmy-db " + id + " ldb\n"
		if got := s.ok("exec", "lweb", "cat", "/etc/hosts"); !strings.Contains(got, want) {
			s.Errorf("%q is not in %q", want, got)
		}
		s.ok("exec", "lweb", "ping", "-c1", "my-db")
		env := s.ok("exec", "lweb", "cat", "/proc/1/environ")
		for _, v := range []string{
			"MY_DB_NAME=/lweb/my-db", "MY_DB_PORT=udp://" + ip() + ":53", "MY_DB_PORT_5432_TCP=tcp://" + ip() + ":5432",
			"MY_DB_PORT_5432_TCP_ADDR=" + ip(), "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_ENV_PASS=x",
		} {
			if !strings.Contains("\x00"+env, "\x00"+v+"\x00") {
				s.Errorf("%q is not in %q", v, env)
			}
		}
		// The target comes back with another address.
		s.ok("exec", "lweb", "sh", "-c", "echo 10.1.1.1 mine >> /etc/hosts")
		old := ip()
		s.ok("stop", "-t", "0", "ldb")
		s.ok("run", "-d", "--name", "between", "busybox", "sleep", "1000")
		s.ok("start", "ldb")
		s.ok("rm", "-f", "between")
		if ip() == old {
			s.Log("the address is the same: nothing to follow")
		}
		s.eventually("hosts follow the target", func() bool {
			got := s.ok("exec", "lweb", "cat", "/etc/hosts")
			return strings.Count(got, "my-db") == 1 && strings.Contains(got, ip()+"\tmy-db ") && strings.HasSuffix(got, "10.1.1.1 mine\n")
		})
		s.fails(125, "could not get container for nosuch", "run", "--rm", "--link", "nosuch:x", "busybox", "true")
		s.fails(125, "host type networking can't be used with links", "run", "--rm", "--link", "hostly:x", "busybox", "true")
		s.ok("stop", "-t", "0", "ldb", "lweb")
		s.fails(1, "Cannot link to a non running container: /ldb AS /lweb/my-db", "start", "lweb")
		s.fails(1, "Conflict, cannot remove the default link name of the container", "rm", "--link", "ldb")
		s.fails(1, "No such container: nosuch/x", "rm", "--link", "nosuch/x")
		s.ok("rm", "--link", "lweb/my-db")
		s.ok("start", "lweb")
		if got := s.ok("exec", "lweb", "cat", "/etc/hosts"); strings.Contains(got, "my-db") {
			s.Errorf("a removed link is in hosts: %q", got)
		}
	})
}

func TestHealthStories(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("rm", "-f", "hcmd", "hslow", "hweb", "htcp", "hjoin", "hhost", "hnone")
		fast := []string{"--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "300ms"}
		run := func(name string, flags []string, args ...string) {
			s.Helper()
			s.ok(append(append([]string{"run", "-d", "--name", name}, append(fast, flags...)...), args...)...)
		}
		run("hcmd", []string{"--health-cmd", "echo looked; test -e /ok"}, "busybox", "sh", "-c", "touch /ok; sleep 1000")
		run("hslow", []string{"--health-cmd", "echo partly; sleep 5"}, "busybox", "sleep", "1000")
		// What a stock client can say, too.
		web := "mkdir -p /w/d; echo fine > /w/index.html; httpd -p 127.0.0.1:8080 -h /w; sleep 1000"
		run("hweb", []string{"--health-cmd", "http://localhost:8080/ 200"}, "busybox", "sh", "-c", web)
		run("htcp", []string{"--health-cmd", "tcp://127.0.0.1:8080", "--network", "container:hweb"}, "busybox", "sleep", "1000")
		run("hjoin", []string{"--health-cmd", "http://localhost:8080/nosuch", "--network", "container:hweb"}, "busybox", "sleep", "1000")
		run("hnone", []string{"--health-cmd", "http://127.0.0.1:8080/", "--network", "none"}, "busybox", "sh", "-c", web)
		run("hhost", []string{"--health-cmd", "tcp://localhost:1", "--network", "host"}, "busybox", "sleep", "1000")
		for name, want := range map[string]string{"hcmd": "healthy", "hweb": "healthy", "htcp": "healthy", "hnone": "healthy", "hslow": "unhealthy", "hjoin": "unhealthy", "hhost": "unhealthy"} {
			s.eventually(name+" "+want, func() bool { return s.health(name) == want })
		}
		s.eventually("a log of five", func() bool {
			return strings.TrimSpace(s.ok("inspect", "-f", "{{len .State.Health.Log}}", "hcmd")) == "5"
		})
		for name, want := range map[string]string{
			"hcmd": "0 looked\n", "hslow": "-1 Health check exceeded timeout (300ms): partly\n", "hweb": "0 GET /: 200 OK in ", "htcp": "0 connected to 127.0.0.1:8080",
			"hjoin": "1 GET /nosuch: 404 Not Found in ", "hhost": "connection refused",
		} {
			got := s.ok("inspect", "-f", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}", name)
			if !strings.Contains(got, want) {
				s.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if got := s.ok("ps", "--filter", "health=unhealthy", "--filter", "name=hjoin", "--format", "{{.Status}}"); !strings.HasSuffix(got, "(unhealthy)\n") {
			s.Errorf("ps: %q", got)
		}
		s.ok("exec", "hcmd", "rm", "/ok")
		s.eventually("it falls ill", func() bool { return s.health("hcmd") == "unhealthy" })
		s.ok("exec", "hcmd", "touch", "/ok")
		s.eventually("it recovers", func() bool { return s.health("hcmd") == "healthy" })
		time.Sleep(time.Second) // docker's --until knows whole seconds
		events := s.ok("events", "--since", "1m", "--until", "0s", "--filter", "container="+strings.TrimSpace(s.ok("inspect", "-f", "{{.Id}}", "hcmd")), "--filter", "event=health_status", "--format", "{{.Action}}")
		if events != "health_status: healthy\nhealth_status: unhealthy\nhealth_status: healthy\n" {
			s.Errorf("events %q", events)
		}
		for _, bad := range []string{"http://localhost:0/", "http:///x", "tcp://localhost", "http://h/ 99", "http://u:p@h/", "http://h/ method=PUT"} {
			s.fails(125, "invalid health check: ", "run", "--rm", "--health-cmd", bad, "busybox", "true")
		}
		s.fails(125, "on-unhealthy needs a health check", "run", "--restart", "on-unhealthy", "busybox", "true")
	})
}

// TestOnUnhealthy: the policy starts again what its check gives up on, so often
// as it says.
func TestOnUnhealthy(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("rm", "-f", "sick")
		s.ok("run", "-d", "--name", "sick", "--restart", "on-unhealthy:2", "--stop-signal", "KILL", "--health-interval", "100ms", "--health-retries", "1",
			"--health-cmd", "test -e /started-thrice", "busybox", "sleep", "1000")
		s.eventually("two restarts", func() bool { return s.ok("inspect", "-f", "{{.RestartCount}}", "sick") == "2\n" })
		s.eventually("and no more", func() bool { return s.health("sick") == "unhealthy" })
		time.Sleep(300 * time.Millisecond)
		if got := s.ok("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "sick"); got != "2 running\n" {
			s.Errorf("%s", got)
		}
		s.ok("stop", "-t", "0", "sick")
		if got := s.ok("inspect", "-f", "{{.State.Status}} {{.State.Health.Status}}", "sick"); got != "exited unhealthy\n" {
			s.Errorf("%s", got)
		}
	})
}

// TestOrder: who comes after whom, over the death of the daemon and of everything.
func TestOrder(t *testing.T) {
	d := testkit.StartBusybox(t)
	s := story{T: t}
	defer d.OK(t, "rm", "-f", "odb", "oapp", "olast")
	d.OK(t, "run", "-d", "--name", "odb", "--restart", "always", "--health-cmd", "test -e /dev/shm/ok", "--health-interval", "100ms", "busybox", "sh", "-c", "sleep 1; touch /dev/shm/ok; sleep 1000")
	d.OK(t, "run", "-d", "--name", "oapp", "--restart", "always", "--after", "odb:healthy", "busybox", "sleep", "1000")
	d.OK(t, "run", "-d", "--name", "olast", "--restart", "always", "--after", "oapp", "--after", "nosuch", "busybox", "sleep", "1000")
	if _, err := d.Gantry("create", "--name", "nosuch", "--after", "olast", "busybox"); err == nil || !strings.Contains(err.Error(), "nosuch → olast → nosuch") {
		t.Errorf("a cycle: %v", err)
	}
	if _, err := d.Gantry("create", "--after", "oapp:healthy", "busybox"); err == nil || !strings.Contains(err.Error(), "container oapp has no health check") {
		t.Errorf("no check to wait for: %v", err)
	}
	var seen []struct{ Gantry struct{ After []string } }
	if err := json.Unmarshal([]byte(d.OK(t, "inspect", "olast")), &seen); err != nil || len(seen) != 1 || strings.Join(seen[0].Gantry.After, " ") != "oapp nosuch" {
		t.Errorf("inspect: %+v, %v", seen, err)
	}
	// The host dies: shims and containers with the daemon.
	d.Kill()
	killShims(t, d)
	d.Start(t)
	started := func(name string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(d.OK(t, "inspect", "-f", "{{.State.StartedAt}}", name)))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	up := func(name string) bool {
		return d.OK(t, "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", name) != "true 0\n" && strings.HasPrefix(d.OK(t, "inspect", "-f", "{{.State.Status}}", name), "running")
	}
	s.eventually("all are up", func() bool { return up("odb") && up("oapp") && up("olast") })
	if db, app, last := started("odb"), started("oapp"), started("olast"); app.Sub(db) < 900*time.Millisecond || !last.After(app) {
		t.Errorf("started at %v, %v, %v", db, app, last)
	}
	// One whose policy has it wait can be hurried by its user.
	d.OK(t, "update", "--restart", "no", "oapp", "olast")
	d.OK(t, "stop", "-t", "0", "odb", "oapp")
	d.OK(t, "start", "oapp")
}

// TestStopOrder: a daemon that takes its containers with it stops them in the
// reverse order, and the next one starts those that nobody asked to be down.
func TestStopOrder(t *testing.T) {
	d := testkit.StartBusybox(t, "--live-restore=false")
	s := story{T: t}
	script := "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.1; done"
	d.OK(t, "run", "-d", "--name", "sdb", "--restart", "unless-stopped", "busybox", "sh", "-c", script)
	d.OK(t, "run", "-d", "--name", "sapp", "--restart", "unless-stopped", "--after", "sdb", "busybox", "sh", "-c", script)
	d.OK(t, "run", "-d", "--name", "sweb", "--restart", "unless-stopped", "--after", "sapp", "busybox", "sh", "-c", script)
	// Started last, and yet stopped last.
	d.OK(t, "restart", "-t", "0", "sdb")
	d.OK(t, "stop", "-t", "0", "sweb")
	d.Stop(t)
	d.Start(t)
	state := func(name string) string { return d.OK(t, "inspect", "-f", "{{.State.Status}}", name) }
	s.eventually("what ran runs", func() bool { return state("sdb") == "running" && state("sapp") == "running" })
	if got := state("sweb"); got != "exited" {
		t.Errorf("what its user stopped is %s", got)
	}
	at := func(name, field string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, d.OK(t, "inspect", "-f", "{{.State."+field+"}}", name))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if db, app := at("sdb", "FinishedAt"), at("sapp", "FinishedAt"); db.Sub(app) < 200*time.Millisecond {
		t.Errorf("ended: db %v, app %v", db, app)
	}
	if db, app := at("sdb", "StartedAt"), at("sapp", "StartedAt"); !app.After(db) {
		t.Errorf("started: db %v, app %v", db, app)
	}
	d.OK(t, "rm", "-f", "sdb", "sapp", "sweb")
}

// killShims kills what supervises a daemon's containers, and the containers with it.
func killShims(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(d.Socket), "*", "c", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		out, err := exec.Command("pgrep", "-f", "^gantry-shim .*"+filepath.Base(dir)).Output()
		if err != nil {
			continue
		}
		for _, pid := range regexp.MustCompile(`\d+`).FindAllString(string(out), -1) {
			if p, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(p), filepath.Base(dir)) {
				if err := exec.Command("kill", "-9", pid).Run(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
