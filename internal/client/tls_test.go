package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gantry/internal/errs"
)

// overTLS starts a TLS server and returns its host and what trusts it.
func overTLS(t *testing.T, h http.HandlerFunc) (string, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = false
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return "tcp://" + s.Listener.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func TestTLSCarriesCallsAndStreams(t *testing.T) {
	host, trust := overTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("not over TLS")
		}
		if !strings.HasSuffix(r.URL.Path, "/attach") {
			io.WriteString(w, r.Method+" "+r.URL.Path)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		b, _ := io.ReadAll(conn)
		conn.Write(b)
	})
	c := open(t, Options{Host: host, TLS: trust, Version: "1.50"})
	if b, err := c.Raw(t.Context(), "/x", nil); err != nil || string(b) != "GET /v1.50/x" {
		t.Errorf("got %q, %v", b, err)
	}
	conn, err := c.Hijack(t.Context(), "/attach", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "there and back")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); string(b) != "there and back" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	raw, err := c.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, ok := raw.(*tls.Conn); !ok {
		t.Errorf("a bare connection is a %T", raw)
	}
}

func TestADaemonThatIsNotTrusted(t *testing.T) {
	host, _ := overTLS(t, func(http.ResponseWriter, *http.Request) { t.Error("asked all the same") })
	c := open(t, Options{Host: host, TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}})
	_, err := c.Raw(t.Context(), "/x", nil)
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Hijack(t.Context(), "/attach", nil, nil); err == nil {
		t.Error("a stream is made")
	}
	if _, err := c.Dial(t.Context()); err == nil {
		t.Error("a connection is made")
	}
}

func TestKindsFollowTheStatus(t *testing.T) {
	for status, want := range map[int]errs.Kind{
		400: errs.Invalid, 401: errs.Unauthenticated, 403: errs.Denied, 404: errs.NotFound, 409: errs.Conflict,
		500: errs.Unknown, 501: errs.Unsupported, 503: errs.Unavailable,
	} {
		err := error(&Error{Status: status})
		if got := KindOf(err); got != want || IsNotFound(err) != (status == 404) {
			t.Errorf("%d is %v", status, got)
		}
	}
	if KindOf(&ConnectError{Err: io.EOF}) != errs.Unavailable || !errors.Is(&ConnectError{Err: io.EOF}, io.EOF) {
		t.Error("nobody there is not unavailable")
	}
	if IsNotFound(nil) {
		t.Error("nothing is not found")
	}
}

// Whether the child ends before it is written to or after, its words are the error.
func TestACommandThatEndsAtOnceSaysWhy(t *testing.T) {
	conn, err := dialCommand(t.Context(), []string{"sh", "-c", "echo refused >&2; exit 1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for err == nil {
		_, err = conn.Write(make([]byte, 1<<16))
	}
	if err.Error() != "command sh: refused" {
		t.Errorf("writing: %v", err)
	}
}

func TestDeleteAndAnswersThatAreNoJSON(t *testing.T) {
	host := serve(t, t.TempDir()+"/s", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodDelete {
			io.WriteString(w, "{broken")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	c := open(t, Options{Host: host, Version: "1.50"})
	if err := c.Delete(t.Context(), "/x", nil, nil); err != nil {
		t.Error(err)
	}
	var out struct{}
	if err := c.Get(t.Context(), "/x", nil, &out); err == nil || !strings.Contains(err.Error(), "reading the daemon's answer") {
		t.Errorf("got %v", err)
	}
	if c.Host() != host || c.Version() != "1.50" {
		t.Errorf("is %s, %s", c.Host(), c.Version())
	}
}
