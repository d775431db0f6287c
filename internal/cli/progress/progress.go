// Package progress shows the messages of a long operation of the daemon (pull,
// push, load, build): bars that move on a terminal, plain lines elsewhere.
// Package cli calls it. It writes to the writer it is given, and must not know
// what the operation is.
package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/cli/term"
	"gantry/internal/errs"
)

// Message is one object of the stream.
type Message struct {
	Stream string  `json:"stream"`
	Status string  `json:"status"`
	ID     string  `json:"id"`
	Detail *Detail `json:"progressDetail"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errorDetail"`
	ErrorText string          `json:"error"`
	Aux       json.RawMessage `json:"aux"`
}

// Detail says how far it is; total may be unknown (0).
type Detail struct {
	Current    int64  `json:"current"`
	Total      int64  `json:"total"`
	Units      string `json:"units"`
	HideCounts bool   `json:"hidecounts"`
}

// Error is one that the daemon reported in the stream.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Show reads messages from r and shows them on w until r ends. aux gets the
// messages that carry data (may be nil). The error is an *Error if the daemon
// sent one.
func Show(w io.Writer, r io.Reader, aux func(Message)) error {
	d := display{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(f) {
		d.live = true
		d.width = int(term.SizeOf(f).Width)
	}
	dec := json.NewDecoder(r)
	for {
		var m Message
		if err := dec.Decode(&m); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("reading the daemon's messages: %w", err)
		}
		if m.Error != nil || m.ErrorText != "" {
			return streamError(m)
		}
		if len(m.Aux) > 0 {
			if aux != nil {
				aux(m)
			}
			continue
		}
		d.show(m)
	}
}

func streamError(m Message) error {
	e := &Error{Message: m.ErrorText}
	if m.Error != nil {
		e.Code = m.Error.Code
		if m.Error.Message != "" {
			e.Message = m.Error.Message
		}
	}
	if e.Code == 401 {
		return errs.New(errs.Unauthenticated, "authentication is required")
	}
	return e
}

// display knows which line of the screen belongs to which id.
type display struct {
	w     io.Writer
	live  bool
	width int
	lines map[string]int
	n     int // lines used
}

func (d *display) show(m Message) {
	if m.Stream != "" {
		_, _ = io.WriteString(d.w, m.Stream)
		return
	}
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	bar := ""
	if m.Detail != nil {
		bar = m.Detail.bar(d.width)
	}
	if !d.live {
		// Without a terminal only what stays is shown.
		if bar == "" && text != "" {
			fmt.Fprintln(d.w, text)
		}
		return
	}
	if bar != "" {
		text += " " + bar
	}
	if m.ID == "" {
		if text != "" {
			fmt.Fprintf(d.w, "%s\n", text)
			d.lines, d.n = nil, 0
		}
		return
	}
	line, ok := d.lines[m.ID]
	if !ok {
		if d.lines == nil {
			d.lines = map[string]int{}
		}
		line = d.n
		d.lines[m.ID] = line
		d.n++
		fmt.Fprintln(d.w)
	}
	up := d.n - line
	var b bytes.Buffer
	fmt.Fprintf(&b, "\x1b[%dA\x1b[2K\r%s\x1b[%dB\r", up, text, up)
	_, _ = d.w.Write(b.Bytes())
}

// barWidth is how many cells a bar has on a wide terminal.
const barWidth = 50

// bar draws the progress; "" if there is none.
func (p Detail) bar(width int) string {
	if p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	cur, total := units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total))
	if p.Units != "" {
		cur, total = fmt.Sprintf("%d %s", p.Current, p.Units), fmt.Sprintf("%d %s", p.Total, p.Units)
	}
	if p.Total <= 0 || p.Current > p.Total {
		return cur
	}
	done := int(float64(p.Current) / float64(p.Total) * barWidth)
	s := ""
	if width > 110 || width == 0 {
		head := ">"
		if done >= barWidth {
			head = ""
		}
		s = "[" + strings.Repeat("=", done) + head + strings.Repeat(" ", barWidth-done-len(head)) + "]  "
	}
	if p.HideCounts {
		return s
	}
	return s + cur + "/" + total
}
