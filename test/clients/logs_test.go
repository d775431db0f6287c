package clients_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// lineServer is a server of a protocol whose messages are lines or end in a NUL.
// It can be ended and begin again at the same address.
type lineServer struct {
	t    *testing.T
	addr string
	cut  byte

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	lines []string
	delay time.Duration // every 50 lines
}

func newLineServer(t *testing.T, cut byte) *lineServer {
	s := &lineServer{t: t, addr: "127.0.0.1:0", cut: cut}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *lineServer) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.l, s.addr = l, l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
}

func (s *lineServer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString(s.cut)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.lines = append(s.lines, strings.TrimSuffix(line, string(s.cut)))
		d, n := s.delay, len(s.lines)
		s.mu.Unlock()
		if n%50 == 0 {
			time.Sleep(d)
		}
	}
}

// stop ends the server and all connections at once, whatever they hold.
func (s *lineServer) stop() {
	s.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *lineServer) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

// rawServer keeps all bytes that it is sent.
type rawServer struct {
	addr string
	mu   sync.Mutex
	b    strings.Builder
}

func newRawServer(t *testing.T) *rawServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &rawServer{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(s, c) }()
		}
	}()
	return s
}

func (s *rawServer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *rawServer) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// counted returns how many of the lines that end in 0, 1, 2, … have arrived in
// this order, whatever came twice in between.
func (s *lineServer) counted() int {
	next := 0
	for _, l := range s.got() {
		if strings.HasSuffix(l, " "+strconv.Itoa(next)) {
			next++
		}
	}
	return next
}

// With every driver what a container writes arrives where it shall, and `logs`
// shows it too.
func TestLogDrivers(t *testing.T) {
	each(t, func(s story) {
		syslog, gelf := newLineServer(s.T, '\n'), newLineServer(s.T, 0)
		var mu sync.Mutex
		var posts strings.Builder
		fluent := newRawServer(s.T)
		web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			io.Copy(&posts, r.Body)
		}))
		defer web.Close()
		say := []string{"--label", "l=v", "--log-opt", "labels=l", "--log-opt", "tag={{.Name}}", "busybox", "sh", "-c", "echo out; echo err >&2"}
		for _, c := range []struct {
			driver  string
			opts    string
			arrived func() string
			want    []string
		}{
			{"syslog", "syslog-address=tcp://" + syslog.addr + " syslog-format=rfc5424micro", func() string { return strings.Join(syslog.got(), "\n") }, []string{" syslog-c ", "<30>1 ", "<27>1 ", " out", " err"}},
			{"gelf", "gelf-address=tcp://" + gelf.addr, func() string { return strings.Join(gelf.got(), "\n") }, []string{`"_tag":"gelf-c"`, `"_l":"v"`, `"short_message":"out"`, `"short_message":"err"`}},
			{"splunk", "splunk-token=T splunk-url=" + web.URL, func() string { mu.Lock(); defer mu.Unlock(); return posts.String() }, []string{`"line":"out"`, `"attrs":{"l":"v"}`, `"tag":"splunk-c"`}},
			{"fluentd", "fluentd-address=tcp://" + fluent.addr, fluent.got, []string{"\xa9fluentd-c", "\xa3log\xa3out", "\xa3log\xa3err", "\xaecontainer_name\xaa/fluentd-c", "\xa1l\xa1v", "\xa6source\xa6stdout"}},
			{"local", "", func() string { return "" }, nil},
			{"json-file", "", func() string { return "" }, nil},
		} {
			args := []string{"run", "--name", c.driver + "-c", "--log-driver", c.driver}
			for _, o := range strings.Fields(c.opts) {
				args = append(args, "--log-opt", o)
			}
			s.ok(append(args, say...)...)
			if got := s.ok("logs", "--details", c.driver+"-c"); !strings.Contains(got, "l=v") || !strings.Contains(got, "out\n") {
				s.Errorf("%s: logs show %q", c.driver, got)
			}
			for _, want := range c.want {
				testkit.Eventually(s.T, c.driver+" "+want, func() bool { return strings.Contains(c.arrived(), want) })
			}
			s.ok("rm", c.driver+"-c")
		}
		s.fails(125, `error looking up logging plugin nosuch: plugin "nosuch" not found`, "run", "--log-driver", "nosuch", "busybox", "true")
		s.fails(125, "unknown log opt 'x' for syslog log driver", "run", "--log-driver", "syslog", "--log-opt", "x=1", "busybox", "true")
		s.fails(125, "failed to initialize logging driver: splunk: splunk-url is expected", "run", "--log-driver", "splunk", "busybox", "true")
		s.fails(125, "failed to initialize logging driver: template: log-tag", "run", "--log-opt", "tag={{.Nope}}", "busybox", "true")
		s.ok("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
		s.fails(1, "configured logging driver does not support reading", "logs", "silent")
		s.ok("run", "--name", "uncached", "--log-driver", "syslog", "--log-opt", "cache-disabled=true", "--log-opt", "syslog-address=tcp://"+syslog.addr, "busybox", "echo", "x")
		s.fails(1, "configured logging driver does not support reading", "logs", "uncached")
		s.ok("rm", "silent", "uncached")
	})
}

// Long lines, bytes that are no text and unterminated ends come back as written.
func TestLogsKeepBytes(t *testing.T) {
	d := testkit.StartBusybox(t)
	script := `printf 'a\000b\377c\r\n\n'; head -c 40000 /dev/zero | tr '\0' x; printf '\nend'`
	want := "a\x00b\xffc\r\n\n" + strings.Repeat("x", 40000) + "\nend"
	for _, driver := range []string{"local", "json-file"} {
		d.OK(t, "run", "--name", driver, "--log-driver", driver, "busybox", "sh", "-c", script)
		if driver == "json-file" {
			want = strings.ReplaceAll(want, "\xff", "\ufffd") // its form has no other bytes than UTF-8
		}
		if got, err := d.Gantry("logs", driver); err != nil || got != want && got != strings.TrimSpace(want) {
			t.Errorf("%s: %d bytes, %v: %.60q", driver, len(got), err, got)
		}
	}
	d.OK(t, "run", "-t", "--name", "tty", "--log-driver", "local", "busybox", "sh", "-c", "echo one; echo two >&2")
	if got, err := d.Gantry("logs", "tty"); err != nil || strings.TrimSpace(got) != "one\r\ntwo" {
		t.Errorf("terminal: %q %v", got, err)
	}
}

// What a client has seen of a container's output, logs show too: at once, while
// the container runs, and after its end.
func TestLogsShowWhatWasSeen(t *testing.T) {
	d := testkit.StartBusybox(t)
	cli := clients.CLI{Path: "/usr/local/bin/docker", Env: []string{"DOCKER_HOST=unix://" + d.Socket}}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 4 {
				name := fmt.Sprintf("c%d-%d", w, i)
				driver := []string{"json-file", "local"}[i%2]
				args := []string{"run", "--name", name, "--log-driver", driver, "busybox", "echo", name}
				if i%3 == 0 {
					args = append([]string{"run", "-t"}, args[1:]...)
				}
				if r, err := cli.Run(nil, args...); err != nil || !strings.Contains(r.Stdout, name) {
					t.Errorf("run: %+v %v", r, err)
				}
				if r, err := cli.Run(nil, "logs", name); err != nil || strings.TrimSpace(r.Stdout) != name {
					t.Errorf("logs after the end: %+v %v", r, err)
				}
				// logs -f from the moment of the start.
				if r, err := cli.Run(nil, "start", name); err != nil || r.Code != 0 {
					t.Errorf("start: %+v %v", r, err)
				}
				if r, err := cli.Run(nil, "logs", "-f", name); err != nil || strings.Count(r.Stdout, name) != 2 {
					t.Errorf("logs of the second run: %+v %v", r, err)
				}
			}
		})
	}
	wg.Wait()
}

// A remote that ends and comes back loses nothing, nor does one that is slow.
func TestRemoteRestarts(t *testing.T) {
	t.Parallel()
	d := testkit.StartBusybox(t)
	s := newLineServer(t, '\n')
	d.OK(t, "run", "-d", "--name", "cc", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+s.addr, "busybox",
		"sh", "-c", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done")
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		s.stop()
		time.Sleep(200 * time.Millisecond)
		s.start()
	}
	testkit.Eventually(t, "every line", func() bool { return s.counted() == 200 })
	d.OK(t, "wait", "cc")
	// Removal drains what is left; nothing stays behind.
	s.mu.Lock()
	s.delay = 50 * time.Millisecond
	s.lines = nil
	s.mu.Unlock()
	d.OK(t, "run", "--name", "last", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+s.addr, "busybox",
		"sh", "-c", "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done")
	d.OK(t, "rm", "last")
	testkit.Eventually(t, "the rest", func() bool { return s.counted() == 500 })
	if left, _ := filepath.Glob(filepath.Join(d.Root, "containers", "*", "*.cursor")); len(left) != 1 {
		t.Errorf("cursors: %v", left)
	}
}

// In blocking mode a full record holds the container up and nothing is lost; in
// the other the container runs on and what was dropped is counted. A container
// that is held up can be killed.
func TestSlowRemoteInBothModes(t *testing.T) {
	t.Parallel()
	d := testkit.StartBusybox(t, "--metrics-addr", "127.0.0.1:0")
	s, down := newLineServer(t, '\n'), newLineServer(t, '\n')
	s.delay = 3 * time.Millisecond
	down.stop()
	opts := func(s *lineServer, more ...string) []string {
		return append([]string{"--log-driver", "syslog", "--log-opt", "syslog-address=tcp://" + s.addr, "--log-opt", "cache-max-size=100k", "--log-opt", "cache-max-file=2"}, more...)
	}
	count := []string{"busybox", "sh", "-c", "seq 0 7000 | sed 's,^,some text to make lines longer ,'"}
	var stuck sync.WaitGroup
	stuck.Go(func() {
		d.OK(t, append(append([]string{"run", "-d", "--name", "stuck"}, opts(down)...), "busybox", "yes", "stuck")...)
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		d.OK(t, "kill", "stuck")
		d.OK(t, "wait", "stuck")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("kill took %v", took)
		}
		d.OK(t, "rm", "stuck")
	})
	defer stuck.Wait()
	d.OK(t, append(append([]string{"run", "--name", "held"}, opts(s)...), count...)...)
	testkit.Eventually(t, "all of the held one", func() bool { return s.counted() == 7001 })
	began := time.Now()
	d.OK(t, append(append([]string{"run", "--name", "free"}, opts(down, "--log-opt", "mode=non-blocking")...), count...)...)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the container was held up for %v", took)
	}
	down.start()
	testkit.Eventually(t, "the newest", func() bool { g := down.got(); return len(g) > 0 && strings.HasSuffix(g[len(g)-1], " 7000") })
	n := len(down.got())
	if n >= 7000 {
		t.Errorf("%d lines arrived", n)
	}
	if !strings.Contains(d.Log(), "dropped before they could be sent") {
		t.Error("nobody was told of dropped entries")
	}
	if lost := logLost(t, d, "free"); lost == 0 || lost+n < 7001 {
		t.Errorf("%d entries are lost and %d have arrived, of 7001", lost, n)
	}
	if lost := logLost(t, d, "held"); lost != 0 {
		t.Errorf("%d entries are lost", lost)
	}
	if text := metrics(t, d); !strings.Contains(text, `gantry_log_entries_lost_total{why="unsent"} `+strconv.Itoa(logLost(t, d, "free"))) {
		t.Errorf("metrics: %s", text)
	}
}

// logLost is how many entries of a container's log are lost, by its inspection.
func logLost(t *testing.T, d *testkit.Daemon, name string) int {
	t.Helper()
	resp, err := d.Client().Get("http://gantry/containers/" + name + "/json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct{ Gantry struct{ LogLost int } }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return body.Gantry.LogLost
}

// metrics reads the metrics of a daemon that serves them at a free port.
func metrics(t *testing.T, d *testkit.Daemon) string {
	t.Helper()
	_, rest, _ := strings.Cut(d.Log(), "tcp://127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	resp, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestFullDisk: a container whose log can't be written goes on, and what is lost is
// counted.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	root := loopDisk(t, 64<<20)
	d := testkit.StartDaemon(t, "--data-root", root, "--metrics-addr", "127.0.0.1:0")
	d.LoadBusybox(t)
	d.OK(t, "run", "-d", "--name", "talker", "busybox", "sh", "-c", "trap 'seq 1 20000' USR1; while :; do sleep 0.05; done")
	defer d.OK(t, "rm", "-f", "talker")
	hog := filepath.Join(root, "hog")
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	d.OK(t, "kill", "-s", "USR1", "talker")
	testkit.Eventually(t, "the loss is told", func() bool { return logLost(t, d, "talker") > 0 })
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	d.OK(t, "kill", "-s", "USR1", "talker")
	total := func() (written int) { return strings.Count(d.OK(t, "logs", "talker")+"\n", "\n") }
	testkit.Eventually(t, "every line is written or counted", func() bool { return total()+logLost(t, d, "talker") == 40000 })
	if text := metrics(t, d); !strings.Contains(text, `gantry_log_entries_lost_total{why="unwritten"} `+strconv.Itoa(logLost(t, d, "talker"))) {
		t.Errorf("metrics: %s", text)
	}
	lost := logLost(t, d, "talker")
	d.Kill()
	d.Start(t)
	if n := logLost(t, d, "talker"); n != lost {
		t.Errorf("%d lost entries, and %d to the next daemon", lost, n)
	}
}

// A log is bounded unless the user says otherwise.
func TestLogsAreBounded(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "--name", "cc", "--log-opt", "max-size=100k", "--log-opt", "max-file=3", "busybox", "seq", "0", "60000")
	var path []string
	if err := json.Unmarshal([]byte(d.OK(t, "inspect", "-f", "[{{json .LogPath}}]", "cc")), &path); err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(path[0] + "*")
	if len(found) != 3 {
		t.Errorf("files: %v", found)
	}
	if got := d.OK(t, "logs", "-n", "1", "cc"); got != "60000" {
		t.Errorf("last line %q", got)
	}
}
