package progress

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"gantry/internal/errs"
)

const pull = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}
{"status":"Downloading","progressDetail":{"current":512,"total":1024},"id":"aaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaa"}
{"status":"Status: Downloaded newer image for x"}
{"aux":{"ID":"sha256:1"}}
{"stream":"Step 1/1 : FROM x\n"}
`

func TestPlainLines(t *testing.T) {
	var b bytes.Buffer
	aux := ""
	if err := Show(&b, strings.NewReader(pull), func(m Message) { aux = string(m.Aux) }); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/x\naaa: Pulling fs layer\naaa: Pull complete\nStatus: Downloaded newer image for x\nStep 1/1 : FROM x\n"
	if b.String() != want || aux != `{"ID":"sha256:1"}` {
		t.Errorf("got %q, aux %s", b.String(), aux)
	}
}

func TestErrors(t *testing.T) {
	var e *Error
	err := Show(io.Discard, strings.NewReader(`{"errorDetail":{"code":3,"message":"returned 3"},"error":"returned 3"}`), nil)
	if !errors.As(err, &e) || e.Code != 3 || err.Error() != "returned 3" {
		t.Errorf("got %v", err)
	}
	if err := Show(io.Discard, strings.NewReader(`{"error":"old style"}`), nil); err == nil || err.Error() != "old style" {
		t.Errorf("got %v", err)
	}
	if err := Show(io.Discard, strings.NewReader(`{"errorDetail":{"code":401}}`), nil); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	if err := Show(io.Discard, strings.NewReader(`{"status":`), nil); err == nil {
		t.Error("half a message is an error")
	}
}

func TestBarsMoveOnATerminal(t *testing.T) {
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := pty.Setsize(user, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	if err := Show(tty, strings.NewReader(pull), nil); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	_ = user.SetReadDeadline(time.Now().Add(time.Second))
	b, _ := io.ReadAll(user)
	got := string(b)
	if !strings.Contains(got, "\x1b[1A\x1b[2K\raaa: Downloading [=========================>                        ]  512B/1.024kB\x1b[1B") {
		t.Errorf("got %q", got)
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		d     Detail
		width int
		want  string
	}{
		{Detail{}, 200, ""}, {Detail{Current: 5}, 200, "5B"}, {Detail{Current: 20, Total: 10}, 200, "20B"}, {Detail{Current: 1, Total: 2, Units: "layers"}, 80, "1 layers/2 layers"},
		{Detail{Current: 2, Total: 2}, 200, "[" + strings.Repeat("=", 50) + "]  2B/2B"},
	} {
		if got := c.d.bar(c.width); got != c.want {
			t.Errorf("%+v: got %q", c.d, got)
		}
	}
}
