package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
)

// serve answers on a unix socket in dir and returns the host.
func serve(t *testing.T, sock string, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return "unix://" + sock
}

func open(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestSpeaksTheHighestVersionAndFallsBackOnce(t *testing.T) {
	var paths []string
	host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		if strings.HasPrefix(r.URL.Path, "/v1.56/") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			io.WriteString(w, `{"message":"client version 1.56 is too new. Maximum supported API version is 1.41"}`)
			return
		}
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, `{"Got":`+string(b)+`}`)
	})
	c := open(t, Options{Host: host})
	var out struct{ Got int }
	for range 2 {
		if err := c.Post(context.Background(), "/x", nil, 7, &out); err != nil || out.Got != 7 {
			t.Fatalf("got %v, %v", out, err)
		}
	}
	if got := strings.Join(paths, " "); got != "/v1.56/x /v1.41/x /v1.41/x" {
		t.Errorf("asked %s", got)
	}
	if c.AtLeast("1.42") || !c.AtLeast("1.41") || c.Version() != "1.41" {
		t.Errorf("agreed on %s", c.Version())
	}
}

func TestAStreamedBodySettlesTheVersionFirst(t *testing.T) {
	var got []string
	host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.Path)
		w.Header().Set("Api-Version", "1.44")
		io.Copy(io.Discard, r.Body)
	})
	c := open(t, Options{Host: host})
	for range 2 {
		res, err := c.Stream(context.Background(), Request{Method: "POST", Path: "/images/load", Body: strings.NewReader("tar")})
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if s := strings.Join(got, ", "); s != "HEAD /_ping, POST /v1.44/images/load, POST /v1.44/images/load" {
		t.Errorf("asked %s", s)
	}
}

func TestAFixedVersionStays(t *testing.T) {
	host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		io.WriteString(w, "client version is too new. Maximum supported API version is 1.41")
	})
	c := open(t, Options{Host: host, Version: "1.50"})
	if err := c.Get(context.Background(), "/x", nil, nil); KindOf(err) != errs.Invalid || c.Version() != "1.50" {
		t.Errorf("got %v with %s", err, c.Version())
	}
}

func TestErrors(t *testing.T) {
	answers := map[string]struct {
		status int
		ctype  string
		body   string
		want   string
		kind   errs.Kind
	}{
		"json":  {404, "application/json", `{"message":"No such container: x"}`, "Error response from daemon: No such container: x", errs.NotFound},
		"text":  {409, "text/plain", "busy\n", "Error response from daemon: busy", errs.Conflict},
		"empty": {501, "text/plain", "", "Error response from daemon: request returned 501 Not Implemented for API route and version /v1.56/a, check if the server supports the requested API version", errs.Unsupported},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", a.ctype)
				w.WriteHeader(a.status)
				io.WriteString(w, a.body)
			})
			err := open(t, Options{Host: host}).Get(context.Background(), "/a", nil, nil)
			if err == nil || err.Error() != a.want || KindOf(err) != a.kind {
				t.Errorf("got %q of kind %v", err, KindOf(err))
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	c := open(t, Options{Host: "unix:///nonexistent.sock"})
	err := c.Get(context.Background(), "/x", nil, nil)
	var ce *ConnectError
	if !errors.As(err, &ce) || err.Error() != "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?" {
		t.Errorf("got %v", err)
	}
	if _, err := c.Hijack(context.Background(), "/x", nil, nil); !errors.As(err, &ce) {
		t.Errorf("hijack: got %v", err)
	}
}

func TestACancelledCallGivesItsCause(t *testing.T) {
	host := serve(t, filepath.Join(t.TempDir(), "s"), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if err := open(t, Options{Host: host}).Get(ctx, "/x", nil, nil); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestSocketPathsLongerThanAnAddress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 60))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("unix", filepath.Join("/proc/self/fd", itoa(int(d.Fd())), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `"hi"`) })}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	var got string
	if err := open(t, Options{Host: "unix://" + filepath.Join(dir, "s")}).Get(context.Background(), "/", nil, &got); err != nil || got != "hi" {
		t.Errorf("got %q, %v", got, err)
	}
}

func itoa(n int) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

func TestHijackGivesBothDirectionsAndHalfClose(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
	} {
		host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "tcp" || r.Header.Get("Connection") != "Upgrade" {
				t.Errorf("header %v", r.Header)
			}
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, head+"early ")
			b, _ := io.ReadAll(conn)
			conn.Write(b)
		})
		conn, err := open(t, Options{Host: host}).Hijack(context.Background(), "/attach", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "late")
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn)
		if string(b) != "early late" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		conn.Close()
	}
}

func TestHijackRefused(t *testing.T) {
	host := serve(t, filepath.Join(t.TempDir(), "s"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(409)
		io.WriteString(w, `{"message":"is paused"}`)
	})
	_, err := open(t, Options{Host: host}).Hijack(context.Background(), "/attach", nil, nil)
	if KindOf(err) != errs.Conflict || err.Error() != "Error response from daemon: is paused" {
		t.Errorf("got %v", err)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"bogus://x":         "invalid bind address format: bogus://x",
		"nonsense":          "unable to parse docker host `nonsense`",
		"ssh://u:pw@h":      "ssh host connection is not valid: plain-text password is not supported",
		"ssh://":            "unable to parse docker host `ssh://`",
		"tcp://1.2.3.4:5/x": "",
	} {
		_, err := New(Options{Host: host})
		if got := ""; err != nil {
			got = err.Error()
			if got != want {
				t.Errorf("%s: got %q", host, got)
			}
		} else if want != got {
			t.Errorf("%s: no error", host)
		}
	}
}

func TestSSHCommand(t *testing.T) {
	argv, err := sshCommand("ssh://me@-oProxyCommand=x:2222/run/o'k.sock")
	if err == nil {
		// A host can't become an option: it stands behind "--".
		i := -1
		for j, a := range argv {
			if a == "--" {
				i = j
			}
		}
		if i < 0 || argv[i+1] != "-oProxyCommand=x" {
			t.Errorf("argv %q", argv)
		}
	}
	argv, err = sshCommand("ssh://me@host:2222/run/o'k.sock")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(argv[:len(argv)-1], " ")
	if got != "ssh -o ConnectTimeout=30 -T -l me -p 2222 -- host" {
		t.Errorf("argv %s", got)
	}
	if last := argv[len(argv)-1]; !strings.HasPrefix(last, `export DOCKER_HOST='unix:///run/o'\''k.sock'; `) {
		t.Errorf("remote command %s", last)
	}
}

func TestACommandIsAConnection(t *testing.T) {
	conn, err := dialCommand(context.Background(), []string{"cat"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	bad, err := dialCommand(context.Background(), []string{"sh", "-c", "echo no route >&2; exit 255"})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := io.ReadAll(bad); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("got %v", err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"1.9", "1.10", true}, {"1.24", "1.24", false}, {"1.56", "1.40", false}, {"0.9", "1.0", true}} {
		if older(c.a, c.b) != c.want {
			t.Errorf("older(%s, %s) = %v", c.a, c.b, !c.want)
		}
	}
}
