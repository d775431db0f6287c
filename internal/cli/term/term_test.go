package term

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

func TestParseKeys(t *testing.T) {
	for in, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11", "ctrl-@": "\x00", "ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x1b\x1c\x1d\x1e\x1f", "a": "a", "ctrl-a,x": "\x01x",
	} {
		got, err := ParseKeys(in)
		if string(got) != want || err != nil {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "ctrl-", "ctrl-pp", "shift-a", "ctrl-p,,ctrl-q", "ctrl-1"} {
		if got, err := ParseKeys(in); err == nil {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestDetachReader(t *testing.T) {
	for _, c := range []struct {
		in, keys, out string
		detached      bool
	}{
		{"hello", "\x10\x11", "hello", false},
		{"ab\x10\x11cd", "\x10\x11", "ab", true},
		{"a\x10b\x11", "\x10\x11", "a\x10b\x11", false},
		{"\x10\x10\x11", "\x10\x11", "\x10", true},
		{"tail\x10", "\x10\x11", "tail\x10", false},
		{"anything\x10\x11", "", "anything\x10\x11", false},
		{"xq", "q", "x", true},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
			got, err := io.ReadAll(NewDetachReader(r, []byte(c.keys)))
			if string(got) != c.out || errors.Is(err, ErrDetached) != c.detached || err != nil && !c.detached {
				t.Errorf("%q: got %q, %v", c.in, got, err)
			}
		}
	}
}

func frame(stream byte, s string) string {
	return string([]byte{stream, 0, 0, 0, 0, 0, byte(len(s) >> 8), byte(len(s))}) + s
}

func TestDemux(t *testing.T) {
	in := frame(1, "out1") + frame(2, "err1") + frame(1, "") + frame(1, strings.Repeat("x", 40000)) + frame(2, "err2")
	var out, errb bytes.Buffer
	if err := Demux(&out, &errb, iotest.HalfReader(strings.NewReader(in))); err != nil {
		t.Fatal(err)
	}
	if out.String() != "out1"+strings.Repeat("x", 40000) || errb.String() != "err1err2" {
		t.Errorf("got %d bytes and %q", out.Len(), errb.String())
	}
	out.Reset()
	if err := Demux(&out, nil, strings.NewReader(frame(2, "dropped")+frame(1, "kept"))); err != nil || out.String() != "kept" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	if err := Demux(nil, nil, strings.NewReader(frame(3, "disk full"))); err == nil || err.Error() != "error from daemon in stream: disk full" {
		t.Errorf("got %v", err)
	}
	if err := Demux(nil, nil, strings.NewReader(frame(9, "?"))); err == nil || err.Error() != "unrecognized input header: 9" {
		t.Errorf("got %v", err)
	}
	// A peer that announces a huge error text costs no memory.
	huge := "\x03\x00\x00\x00\xff\xff\xff\xff" + strings.Repeat("e", 1<<20)
	if err := Demux(nil, nil, strings.NewReader(huge)); err == nil || len(err.Error()) > maxSystemFrame+100 {
		t.Errorf("got %d bytes", len(err.Error()))
	}
}

func TestRawModeAndBack(t *testing.T) {
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if !IsTerminal(tty) {
		t.Fatal("a pty is a terminal")
	}
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 33, Cols: 111}); err != nil {
		t.Fatal(err)
	}
	if s := SizeOf(tty); s != (Size{Height: 33, Width: 111}) {
		t.Errorf("size %v", s)
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	st, err := RawInput(tty)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("raw mode has local flags %#x", raw.Lflag)
	}
	if err := st.Restore(); err != nil {
		t.Fatal(err)
	}
	after, _ := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if *after != *before {
		t.Errorf("modes are %+v, were %+v", after, before)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) || SizeOf(f) != (Size{}) {
		t.Error("/dev/null is no terminal")
	}
	if _, err := RawInput(f); err == nil {
		t.Error("/dev/null has no modes")
	}
	if err := (*State)(nil).Restore(); err != nil {
		t.Error(err)
	}
}
