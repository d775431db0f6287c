package shim_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/logs"
	"gantry/internal/logs/jsonfile"
	"gantry/internal/shim"
)

// Docker's recording: a half close ends cat, and what comes after still arrives.
func TestHalfCloseWithStdinOnce(t *testing.T) {
	r := request(t, "sh", "-c", "cat; sleep 0.1; echo after-eof")
	r.OpenStdin, r.StdinOnce = true, true
	b := create(t, launcher(t), r)
	s := b.attach(allThree)
	b.start()
	io.WriteString(s, "line1\n")
	if got := readFrame(t, s); got != "line1\n" {
		t.Errorf("echo: %q", got)
	}
	io.WriteString(s, "line2\n")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _ := frames(t, s); out != "line2\nafter-eof\n" {
		t.Errorf("after the half close: %q", out)
	}
	if e := b.wait(); e.Code != 0 {
		t.Errorf("%+v", e)
	}
}

func readFrame(t *testing.T, s io.Reader) string {
	t.Helper()
	h := make([]byte, 8)
	if _, err := io.ReadFull(s, h); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(h[6])<<8|int(h[7]))
	if _, err := io.ReadFull(s, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Without StdinOnce the half close ends the attachment, not the container, and
// another client reaches the same input.
func TestHalfCloseWithoutStdinOnce(t *testing.T) {
	r := request(t, "cat")
	r.OpenStdin = true
	b := create(t, launcher(t), r)
	s := b.attach(allThree)
	b.start()
	io.WriteString(s, "x1\n")
	if got := readFrame(t, s); got != "x1\n" {
		t.Errorf("echo: %q", got)
	}
	s.CloseWrite()
	if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the half close: %d %v", n, err)
	}
	again := b.attach(allThree)
	io.WriteString(again, "x2\n")
	if got := readFrame(t, again); got != "x2\n" {
		t.Errorf("second client: %q", got)
	}
	again.Close()
	if _, err := b.client.Wait(short(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the container has ended: %v", err)
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestFullCloseEndsStdinOnce(t *testing.T) {
	r := request(t, "cat")
	r.OpenStdin, r.StdinOnce = true, true
	b := create(t, launcher(t), r)
	s := b.attach(allThree)
	b.start()
	io.WriteString(s, "x3\n")
	s.Close()
	b.wait()
}

// Input that the process does not take must not turn the end of its output into
// an error.
func TestUnreadInputIsNoReset(t *testing.T) {
	r := request(t, "sh", "-c", "sleep 0.3; echo done")
	r.OpenStdin, r.StdinOnce = true, true
	b := create(t, launcher(t), r)
	s := b.attach(allThree)
	b.start()
	go func() {
		for range 100 {
			if _, err := s.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}()
	if out, _ := frames(t, s); out != "done\n" {
		t.Errorf("output %q", out)
	}
}

func TestNoStdin(t *testing.T) {
	b := create(t, launcher(t), request(t, "sh", "-c", "cat; echo done"))
	s := b.attach(allThree)
	b.start()
	io.WriteString(s, "nobody reads this\n")
	s.CloseWrite()
	if out, _ := frames(t, s); out != "done\n" {
		t.Errorf("output %q", out)
	}
}

func TestTerminal(t *testing.T) {
	r := request(t, "sh", "-c", "tty; stty size; read x; stty size; echo got $x")
	r.OpenStdin = true
	r.Job.Process.Terminal = true
	r.Job.Process.ConsoleHeight, r.Job.Process.ConsoleWidth = 30, 90
	b := create(t, launcher(t), r)
	s := b.attach(allThree)
	none := b.attach(shim.Streams{Stderr: true})
	b.start()
	in := bufio.NewReader(s)
	expect := func(want string) {
		t.Helper()
		if line, err := in.ReadString('\n'); strings.TrimRight(line, "\r\n") != want || err != nil {
			t.Fatalf("got %q %v, want %q", line, err, want)
		}
	}
	expect("/dev/pts/0")
	expect("30 90")
	if err := b.client.Resize(b.ctx(), 41, 101); err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, "typed\n")
	expect("typed") // the terminal's echo
	expect("41 101")
	expect("got typed")
	if rest, err := io.ReadAll(in); len(rest) != 0 || err != nil {
		t.Errorf("rest %q %v", rest, err)
	}
	if got, err := io.ReadAll(none); len(got) != 0 || err != nil {
		t.Errorf("stderr of a terminal: %q %v", got, err)
	}
	if e := b.wait(); e.Code != 0 {
		t.Errorf("%+v", e)
	}
}

// A client that does not read holds the process up, keeps what it gets, and
// after the end of the process holds nobody up.
func TestSlowClient(t *testing.T) {
	const lines = 200000 // more than sockets and pipes hold
	b := create(t, launcher(t), request(t, "seq", "1", fmt.Sprint(lines)))
	fast, slow := b.attach(output), b.attach(output)
	b.start()
	var fastOut string
	var wg sync.WaitGroup
	wg.Go(func() { fastOut, _ = frames(t, fast) })
	if _, err := b.client.Wait(short(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the process did not wait for its slow client: %v", err)
	}
	slowOut, _ := frames(t, slow)
	wg.Wait()
	b.wait()
	if slowOut != fastOut || strings.Count(slowOut, "\n") != lines || !strings.HasSuffix(slowOut, fmt.Sprintf("\n%d\n", lines)) {
		t.Errorf("slow client got %d bytes, the other %d", len(slowOut), len(fastOut))
	}
	if got := logLines(t, b); len(got) != lines || got[lines-1] != fmt.Sprintln(lines) {
		t.Errorf("log has %d lines", len(got))
	}
}

func logLines(t *testing.T, b *box) (lines []string) {
	t.Helper()
	for e, err := range jsonfile.NewReader(b.log).Entries(t.Context(), logs.ReadOptions{Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(e.Line))
	}
	return lines
}

// Output that pipe and socket hold, however it is cut, is there after the end
// for a client that reads only then; Wait and the log do not wait for it.
func TestClientReadsAfterTheEnd(t *testing.T) {
	b := create(t, launcher(t), request(t, "sh", "-c", "seq 1 10000"))
	s := b.attach(output)
	b.start()
	b.wait()
	if n := len(logLines(t, b)); n != 10000 {
		t.Errorf("log has %d lines", n)
	}
	if err := b.client.Shutdown(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if out, _ := frames(t, s); strings.Count(out, "\n") != 10000 || !strings.HasSuffix(out, "\n10000\n") {
		t.Errorf("got %d bytes", len(out))
	}
}

// A client that goes away in the midst of it is dropped.
func TestClientGoes(t *testing.T) {
	b := create(t, launcher(t), request(t, "seq", "1", "300000"))
	s := b.attach(output)
	b.start()
	if _, err := b.client.Wait(short(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	s.Close()
	b.wait()
	if n := len(logLines(t, b)); n != 300000 {
		t.Errorf("log has %d lines", n)
	}
}

// Followers and clients see every line once while the log turns under load.
func TestRotationUnderLoad(t *testing.T) {
	const lines = 60000
	r := request(t, "seq", "1", fmt.Sprint(lines))
	r.Log.MaxSize, r.Log.MaxFile, r.Log.Compress = 100<<10, 1000, true
	b := create(t, launcher(t), r)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		s := b.attach(output)
		wg.Go(func() {
			if out, _ := frames(t, s); strings.Count(out, "\n") != lines {
				t.Errorf("client got %d lines", strings.Count(out, "\n"))
			}
		})
		wg.Go(func() {
			n := 0
			for e, err := range jsonfile.NewReader(b.log).Entries(t.Context(), logs.ReadOptions{Tail: -1, Follow: true, Ended: ended}) {
				if n++; err != nil || string(e.Line) != fmt.Sprintln(n) {
					t.Errorf("follower: %q %v at %d", e.Line, err, n)
					return
				}
			}
			if n != lines {
				t.Errorf("follower saw %d lines", n)
			}
		})
	}
	b.start()
	b.wait()
	close(ended)
	wg.Wait()
	if _, err := os.Stat(b.log + ".5.gz"); err != nil {
		t.Errorf("not rotated: %v", err)
	}
}

// The daemon may die at any moment: here its connections are closed all at once
// while a counter runs, and another client takes over.
func TestDaemonGone(t *testing.T) {
	b := create(t, launcher(t), request(t, "sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; exit 5"))
	s := b.attach(output)
	b.start()
	readFrame(t, s)
	s.Close()
	pid := b.client.Pid()
	b.client.Close()
	c, err := shim.Dial(b.ctx(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	b.client = c
	if c.Pid() != pid {
		t.Errorf("pid %d, was %d", c.Pid(), pid)
	}
	if e := b.wait(); e.Code != 5 {
		t.Errorf("%+v", e)
	}
	got := logLines(t, b)
	for i, l := range got {
		if l != fmt.Sprintln(i) {
			t.Fatalf("line %d is %q", i, l)
		}
	}
	if len(got) != 3000 {
		t.Errorf("%d lines", len(got))
	}
}

// A shim that is killed leaves no exit record: the container is lost.
func TestShimKilled(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	s := b.attach(output)
	b.start()
	wait := make(chan error, 1)
	go func() {
		_, err := b.client.Wait(b.ctx())
		wait <- err
	}()
	time.Sleep(20 * time.Millisecond)
	pid := b.shimPid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-wait; !errs.Is(err, errs.NotFound) {
		t.Errorf("wait: %v", err)
	}
	if err := b.client.Signal(b.ctx(), 9); !errs.Is(err, errs.Unavailable) {
		t.Errorf("signal: %v", err)
	}
	if _, err := shim.Dial(b.ctx(), b.dir); !errs.Is(err, errs.Unavailable) {
		t.Errorf("dial: %v", err)
	}
	if _, ok := <-b.client.Facts(); ok {
		t.Error("a fact from a dead shim")
	}
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
	// No zombie is left of it.
	for range 100 {
		if unix.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the dead shim was not reaped")
}

// shimPid finds the shim: the parent of the container's first process.
func (b *box) shimPid() int {
	b.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.client.Pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		b.t.Fatal(err)
	}
	return parent
}
