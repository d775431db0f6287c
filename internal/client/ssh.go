package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/internal/errs"
)

// remoteCommand runs on the far side of ssh. It prefers gantry and works with a
// host that has only docker.
const remoteCommand = "if command -v gantry >/dev/null 2>&1; then exec gantry system dial-stdio; else exec docker system dial-stdio; fi"

// sshCommand returns the argv that connects standard input and output with the
// daemon behind an ssh:// host.
func sshCommand(host string) ([]string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, errs.New(errs.Invalid, "ssh host: %w", err)
	}
	if u.Hostname() == "" {
		return nil, errs.New(errs.Invalid, "ssh host connection is not valid: no host specified")
	}
	if _, set := u.User.Password(); set {
		return nil, errs.New(errs.Invalid, "ssh host connection is not valid: plain-text password is not supported")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errs.New(errs.Invalid, "ssh host connection is not valid: query parameters and fragments are not allowed")
	}
	argv := []string{"ssh", "-o", "ConnectTimeout=30", "-T"}
	if name := u.User.Username(); name != "" {
		argv = append(argv, "-l", name)
	}
	if p := u.Port(); p != "" {
		argv = append(argv, "-p", p)
	}
	cmd := remoteCommand
	if sock := strings.TrimSuffix(u.Path, "/"); sock != "" {
		cmd = "export DOCKER_HOST=" + quoteShell("unix://"+sock) + "; export GANTRY_HOST=\"$DOCKER_HOST\"; " + cmd
	}
	// "--" keeps a host that begins with "-" from being an option.
	return append(argv, "--", u.Hostname(), cmd), nil
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// commandConn is a connection over the standard streams of a child process.
type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tailBuffer
	once   sync.Once
	reap   sync.Once
	ended  chan struct{} // closed when the child has been reaped and has no more to say
}

// lastWords is how long a child that has closed its output may take to say why.
const lastWords = time.Second

// dialCommand starts argv and returns its streams as a connection. The child
// outlives ctx: a pooled connection is used by later requests too.
func dialCommand(ctx context.Context, argv []string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	c := &commandConn{cmd: cmd, stderr: &tailBuffer{}, ended: make(chan struct{})}
	cmd.Stderr, cmd.WaitDelay = c.stderr, lastWords
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *commandConn) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	if n == 0 && (err == io.EOF || errors.Is(err, os.ErrClosed)) {
		err = c.reason(err)
	}
	return n, err
}

// reason returns what the child has said about its end, or else err.
func (c *commandConn) reason(err error) error {
	select {
	case <-c.wait():
	case <-time.After(lastWords):
	}
	if text := c.stderr.String(); text != "" {
		return fmt.Errorf("command %s: %s", c.cmd.Args[0], strings.TrimSpace(text))
	}
	return err
}

// wait begins to wait for the child's end.
func (c *commandConn) wait() <-chan struct{} {
	c.reap.Do(func() {
		go func() {
			defer close(c.ended)
			_ = c.cmd.Wait()
		}()
	})
	return c.ended
}

// Write gives the child b. One that has ended already is why it can't.
func (c *commandConn) Write(b []byte) (int, error) {
	n, err := c.in.Write(b)
	// Its pipe is closed here once its end is known.
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		err = c.reason(err)
	}
	return n, err
}

// CloseWrite ends the child's standard input.
func (c *commandConn) CloseWrite() error { return c.in.Close() }

func (c *commandConn) Close() error {
	c.once.Do(func() {
		_ = c.in.Close()
		_ = c.out.Close()
		_ = c.cmd.Process.Kill()
		<-c.wait()
	})
	return nil
}

type commandAddr struct{}

func (commandAddr) Network() string { return "command" }
func (commandAddr) String() string  { return "command" }

func (c *commandConn) LocalAddr() net.Addr  { return commandAddr{} }
func (c *commandConn) RemoteAddr() net.Addr { return commandAddr{} }
func (c *commandConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
func (c *commandConn) SetReadDeadline(t time.Time) error {
	return deadline(c.out, t, (*os.File).SetReadDeadline)
}
func (c *commandConn) SetWriteDeadline(t time.Time) error {
	return deadline(c.in, t, (*os.File).SetWriteDeadline)
}

func deadline(s any, t time.Time, set func(*os.File, time.Time) error) error {
	if f, ok := s.(*os.File); ok {
		return set(f, t)
	}
	return nil
}

// tailBuffer keeps the last few kilobytes of what the child complains about.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
