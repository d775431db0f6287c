package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gantry/internal/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const own = "/proc/self/ns/net"

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

func target(t *testing.T, url string) *plan.Probe {
	t.Helper()
	hp := strings.SplitN(strings.TrimPrefix(url[strings.Index(url, "://")+3:], ""), "/", 2)
	ap := netip.MustParseAddrPort(hp[0])
	path := "/"
	if len(hp) > 1 {
		path += hp[1]
	}
	return &plan.Probe{Scheme: url[:strings.Index(url, "://")], Host: ap.Addr().String(), Port: ap.Port(), Path: path, Method: "GET", Status: []plan.StatusRange{{Low: 200, High: 399}}}
}

func TestHTTP(t *testing.T) {
	needRoot(t)
	var followed atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Probe") != "yes" || r.Host != "svc.example" || r.Header.Get("Authorization") != "" {
			w.WriteHeader(400)
		}
		fmt.Fprint(w, "fine")
	})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		fmt.Fprint(w, "no database")
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/secret", http.StatusFound) })
	mux.HandleFunc("/secret", func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	for _, secure := range []string{"plain", "tls"} {
		s := httptest.NewUnstartedServer(mux)
		if secure == "tls" {
			s.StartTLS()
		} else {
			s.Start()
		}
		defer s.Close()
		p := target(t, s.URL+"/ok")
		p.Header = map[string]string{"X-Probe": "yes", "Host": "svc.example"}
		out, err := Prober{}.Probe(t.Context(), own, "", p)
		if err != nil || !strings.Contains(out, "200 OK") || !strings.HasSuffix(out, "\nfine") {
			t.Errorf("%s: %q, %v", secure, out, err)
		}
		if _, err := (Prober{}).Probe(t.Context(), own, "", target(t, s.URL+"/bad")); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "no database") {
			t.Errorf("%s: %v", secure, err)
		}
		if _, err := (Prober{}).Probe(t.Context(), own, "", target(t, s.URL+"/away")); err != nil {
			t.Errorf("a redirect is an answer: %v", err)
		}
		if out, err := (Prober{}).Probe(t.Context(), own, "", target(t, s.URL+"/endless")); err != nil || len(out) > maxOutput+200 {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestHostileAnswers(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kinds := make(chan func(net.Conn), 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			(<-kinds)(c)
			c.Close()
		}
	}()
	for name, answer := range map[string]func(net.Conn){
		"no HTTP": func(c net.Conn) { io.WriteString(c, "+PONG\r\n") },
		"closes":  func(net.Conn) {},
		"endless headers": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 100))
		},
		"silent": func(c net.Conn) { c.SetReadDeadline(time.Now().Add(5 * time.Second)); io.Copy(io.Discard, c) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		kinds <- answer
		began := time.Now()
		if out, err := (Prober{}).Probe(ctx, own, "", target(t, "http://"+l.Addr().String()+"/")); err == nil {
			t.Errorf("%s: taken for health: %q", name, out)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		cancel()
	}
}

func TestTCP(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	p := &plan.Probe{Scheme: "tcp", Host: "localhost", Port: port}
	if out, err := (Prober{}).Probe(t.Context(), own, "", p); err != nil || out != fmt.Sprintf("connected to localhost:%d", port) {
		t.Errorf("%q, %v: localhost is ::1 too", out, err)
	}
	l.Close()
	if _, err := (Prober{}).Probe(t.Context(), own, "", p); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	full := backlogged(t)
	began := time.Now()
	if _, err := (Prober{}).Probe(ctx, own, "", full); err == nil || time.Since(began) > time.Second {
		t.Errorf("%v after %v: a connection that never comes", err, time.Since(began))
	}
}

// backlogged is a listener that takes no more connections.
func backlogged(t *testing.T) *plan.Probe {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := sa.(*unix.SockaddrInet4).Port
	for range 4 {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 50*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return &plan.Probe{Scheme: "tcp", Host: "127.0.0.1", Port: uint16(port)}
}

// TestOtherNamespace probes what only another network namespace can reach, and
// looks that the daemon's own threads have stayed at home.
func TestOtherNamespace(t *testing.T) {
	needRoot(t)
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	ready, end := make(chan *net.TCPAddr, 1), make(chan bool)
	path := make(chan string, 1)
	gone := make(chan bool)
	go func() {
		defer close(gone)
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			close(ready)
			return
		}
		path <- fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		up(t)
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			close(ready)
			return
		}
		ready <- l.Addr().(*net.TCPAddr)
		<-end
		l.Close()
	}()
	addr := <-ready
	if addr == nil {
		t.FailNow()
	}
	ns := <-path
	p := &plan.Probe{Scheme: "tcp", Host: "127.0.0.1", Port: uint16(addr.Port)}
	if _, err := (Prober{}).Probe(t.Context(), ns, "", p); err != nil {
		t.Errorf("in its namespace: %v", err)
	}
	if _, err := (Prober{}).Probe(t.Context(), fmt.Sprintf("/proc/self/fd/%d", here.Fd()), "", p); err == nil {
		t.Error("reached from outside")
	}
	tasks, _ := os.ReadDir("/proc/self/task")
	var away int
	for _, task := range tasks {
		if at, err := os.Readlink(filepath.Join("/proc/self/task", task.Name(), "ns/net")); err == nil && at != home {
			away++
		}
	}
	if away > 1 {
		t.Errorf("%d threads are in another network", away)
	}
	close(end)
	<-gone
}

// up switches the loopback interface on.
func up(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err == nil {
		req.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestLookup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1\tlocalhost\n# 9.9.9.9 db\n172.17.0.2 db DB2 # mine\nbad db\nfd00::2 db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string][]string{
		"10.0.0.1": {"10.0.0.1"}, "localhost": {"127.0.0.1", "::1"}, "db": {"172.17.0.2", "fd00::2"}, "db2": {"172.17.0.2"}, "other": nil,
	} {
		got, err := lookup(host, file)
		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}
		if !slices.Equal(texts, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %v, %v", host, texts, err)
		}
	}
	if _, err := lookup("db", file+"x"); err == nil {
		t.Error("without a file")
	}
}
