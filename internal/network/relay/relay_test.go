package relay

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bound holds a socket as the owner of the host's ports does: by its number.
func bound(t *testing.T, typ int) (int, netip.AddrPort) {
	t.Helper()
	port := 0
	for {
		fd, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip("no IPv6 here:", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16(), Port: port}); err != nil {
			t.Skip("no IPv6 here:", err)
		}
		if port != 0 {
			t.Cleanup(func() { unix.Close(fd) })
			return fd, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port))
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port = sa.(*unix.SockaddrInet6).Port
		unix.Close(fd)
	}
}

func relayOf(t *testing.T, fd int) *Relay {
	r := New(t.Context(), func(Port) (*os.File, error) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(dup), "port"), err
	})
	t.Cleanup(r.Close)
	return r
}

// TestStreams: a connection carries both ways, half closes are passed on, and a
// port that stops and is served again goes elsewhere.
func TestStreams(t *testing.T) {
	fd, host := bound(t, unix.SOCK_STREAM)
	r := relayOf(t, fd)
	echo := func(prefix string) netip.AddrPort {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					all, _ := io.ReadAll(c) // ends with the client's half
					io.WriteString(c, prefix)
					c.Write(all)
				}()
			}
		}()
		return netip.MustParseAddrPort(l.Addr().String())
	}
	for _, name := range []string{"one", "two"} {
		p := []Port{{Host: host, To: echo(name)}}
		if err := r.Serve(p); err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat([]byte(name), 100000)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				c, err := net.Dial("tcp", host.String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.Write(body)
				c.(*net.TCPConn).CloseWrite()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, append([]byte(name), body...)) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			})
		}
		wg.Wait()
		idle, err := net.Dial("tcp", host.String())
		if err != nil {
			t.Fatal(err)
		}
		r.Stop(p)
		idle.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := idle.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("%s: a connection outlives its port: %v", name, err)
		}
		idle.Close()
		if c, err := net.Dial("tcp", host.String()); err == nil {
			c.Close()
			t.Errorf("%s: a port that is not served accepts", name)
		}
	}
}

// TestDatagrams: clients have flows of their own, answered from where they
// asked.
func TestDatagrams(t *testing.T) {
	fd, host := bound(t, unix.SOCK_DGRAM)
	r := relayOf(t, fd)
	srv, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := srv.ReadFrom(buf)
			if err != nil {
				return
			}
			srv.WriteTo(append(buf[:n], from.String()...), from)
		}
	}()
	p := []Port{{UDP: true, Host: host, To: netip.MustParseAddrPort(srv.LocalAddr().String())}}
	if err := r.Serve(p); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		c, err := net.Dial("udp", host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var last string
		for range 2 {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write([]byte("x"))
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil || last != "" && string(buf[:n]) != last {
				t.Fatalf("%q after %q, %v", buf[:n], last, err)
			}
			last = string(buf[:n])
		}
		if seen[last] {
			t.Errorf("two clients share %s", last)
		}
		seen[last] = true
	}
	r.Stop(p)
	if err := r.Serve(p); err != nil {
		t.Errorf("served anew: %v", err)
	}
	r.Close()
	if err := r.Serve(p); err == nil {
		t.Error("a closed relay serves")
	}
}
