package listen

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUnix(t *testing.T) {
	// A path that no socket address has room for.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	path := filepath.Join(dir, "g.sock")
	ls, err := Open(t.Context(), "unix://"+path, Options{Group: "no-such-group"})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", st, err)
	}
	if a := ls[0].Addr(); a.Network() != "unix" || a.String() != path {
		t.Errorf("address %s %s", a.Network(), a)
	}
	if _, err := Open(t.Context(), "unix://"+path, Options{}); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("taken socket: %v", err)
	}
	if err := ls[0].Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket's file is still there")
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "g.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	ls, err := Open(t.Context(), "unix://"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ls[0].Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "unix://"+path, Options{}); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

func TestRefused(t *testing.T) {
	for _, host := range []string{"unix://@abstract", "unix://relative", "fd://", "udp://x"} {
		if _, err := Open(t.Context(), host, Options{}); err == nil {
			t.Errorf("%s: opened", host)
		}
	}
	if _, err := pick(make([]net.Listener, 2), "9"); err == nil {
		t.Error("fd://9 of two")
	}
	if got, err := pick(make([]net.Listener, 2), "4"); err != nil || len(got) != 1 {
		t.Error("fd://4", got, err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	l.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q %v", buf[:n], err)
	}
}
