// Package clients drives a real daemon with real clients: the stock docker
// command line, gantry, and docker-py, each through the same stories. It
// asserts what a person at a terminal would see. It must not import the engine.
package clients

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// A CLI is one command line program and the daemon it talks to.
type CLI struct {
	Path string
	Env  []string
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run executes the program with stdin and waits for it.
func (c CLI) Run(stdin io.Reader, args ...string) (Result, error) {
	cmd := c.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return Result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}, err
}

func (c CLI) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.Path, args...)
	cmd.Env = append(os.Environ(), c.Env...)
	return cmd
}

// A Terminal is a program running at a pseudo terminal.
type Terminal struct {
	cmd *exec.Cmd
	pty *os.File

	mu   sync.Mutex
	seen []byte
	more chan struct{}
}

// AtTerminal starts the program at a terminal of 24 by 80 characters.
func (c CLI) AtTerminal(args ...string) (*Terminal, error) {
	cmd := c.command(args...)
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return nil, err
	}
	t := &Terminal{cmd: cmd, pty: f, more: make(chan struct{}, 1)}
	go t.read()
	return t, nil
}

func (t *Terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := t.pty.Read(buf)
		t.mu.Lock()
		t.seen = append(t.seen, buf[:n]...)
		t.mu.Unlock()
		select {
		case t.more <- struct{}{}:
		default:
		}
		if err != nil { // EIO when the program has ended
			return
		}
	}
}

// Expect waits until text has appeared since the last Expect.
func (t *Terminal) Expect(text string) error {
	deadline := time.After(20 * time.Second)
	for {
		t.mu.Lock()
		i := bytes.Index(t.seen, []byte(text))
		if i >= 0 {
			t.seen = t.seen[i+len(text):]
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-t.more:
		case <-deadline:
			t.mu.Lock()
			defer t.mu.Unlock()
			return fmt.Errorf("%q did not appear; the screen has %q", text, t.seen)
		}
	}
}

// Type sends keys.
func (t *Terminal) Type(keys string) error {
	_, err := io.WriteString(t.pty, keys)
	return err
}

// Resize changes the size of the terminal.
func (t *Terminal) Resize(rows, cols uint16) error {
	return pty.Setsize(t.pty, &pty.Winsize{Rows: rows, Cols: cols})
}

// Wait returns the program's exit code.
func (t *Terminal) Wait() (int, error) {
	done := make(chan error, 1)
	go func() { done <- t.cmd.Wait() }()
	defer t.pty.Close()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return 0, err
		}
		return t.cmd.ProcessState.ExitCode(), nil
	case <-time.After(20 * time.Second):
		t.cmd.Process.Kill()
		return 0, fmt.Errorf("%s does not end", strings.Join(t.cmd.Args, " "))
	}
}
