// Package protocol is what the daemon's half of package shim and the shim
// itself (shim/server) have in common: the values, their wire form, and the
// exit record.
//
// A hand-written flat codec, since the shim must stay small: no reflection, no
// JSON, every length checked against what is there. Nothing here is kept for
// other programs: both halves come from the same build or, after an upgrade of
// the daemon, have the same Version or refuse each other.
//
//	daemon                          shim
//	  | fork, exec, socketpair        |     the socketpair becomes the first
//	  | Request --------------------> |     control connection
//	  | <-------------------- Hello   |     process prepared, or the error
//	  |                               |
//	  | connect, Greeting(control) -> |     any number of them
//	  | <-------------------- Hello   |
//	  | call(id, op, …) ------------> |     in any order, several at once
//	  | <----------- answer(id, …)    |
//	  | <----------- fact(0, "oom")   |
//	  |                               |
//	  | connect, Greeting(stream) --> |     one for each attached client
//	  | <-------------- empty answer  |
//	  | <======= bytes =============> |     half close ends standard input
package protocol

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"gantry/internal/errs"
)

// Version is that of the wire form.
const Version = 1

// SuperviseArg is the first argument of a program that shall be a shim.
const SuperviseArg = "supervise"

// MaxFrame is the largest message in bytes. The kernel takes no more than
// 2 MiB of arguments and environment (execve(2)).
const MaxFrame = 8 << 20

// LogConfig says where a shim writes the container's output.
type LogConfig struct {
	Driver   string // "json-file", "local" or "none"
	Path     string // of the current file; rotated ones get .1, .2, …
	MaxSize  int64  // bytes at which a file is rotated; -1 for never
	MaxFile  int    // number of files kept, at least 1
	Compress bool   // gzip rotated files
	Attrs    map[string]string
	// Cursor, if not empty, is the file that says how far the daemon has
	// sent the log elsewhere: what lies behind it is not dropped.
	Cursor string
}

// Request is shim.Request with its job in wire form.
type Request struct {
	ID        string
	Dir       string
	Job       []byte
	Log       LogConfig
	OpenStdin bool
	StdinOnce bool
	Runtime   []string
	Bundle    string
	Restore   *Checkpoint // nil: the process is started
}

// A Checkpoint is where a container's processes are written to, or read from.
type Checkpoint struct {
	Program      string // path of criu
	Dir          string // of the images; it exists
	LeaveRunning bool   // when writing
}

// Exit is the end of a process.
type Exit struct {
	Code      int       // exit status, or 128+signal
	At        time.Time // when it was reaped
	OOMKilled bool      // the kernel's OOM killer ended a process of the container
}

// StartError is a failure to run the user's program that is the user's to mend.
type StartError struct {
	// ExitCode is what the command line shall exit with: 127 when the
	// program does not exist, 126 when it can't be executed.
	ExitCode int
	Text     string // for example: exec: "nosuch": executable file not found in $PATH
}

func (e *StartError) Error() string { return e.Text }

// Streams says which standard streams a client wants.
type Streams struct{ Stdin, Stdout, Stderr bool }

// Kind is what a connection is for.
type Kind uint8

// The kinds of connections.
const (
	Control Kind = 1
	Stream  Kind = 2
	// Keep hands descriptors over with the greeting (unix(7), SCM_RIGHTS),
	// which the shim holds until its container has ended, instead of those it
	// holds; Kept gets copies of them with the answer.
	Keep Kind = 3
	Kept Kind = 4
)

// Greeting is the first message on a connection to the shim's socket.
type Greeting struct {
	Kind    Kind
	Target  string // of a Stream: an exec, or "" for the container
	Streams Streams
}

// Hello answers a request and the greeting of a control connection.
type Hello struct{ Pid int }

// Op is what a call asks for.
type Op uint8

// The calls. Every one begins with its target: an exec's ID, or "" for the
// container's first process.
const (
	OpAnswer     Op = iota // good end of a call; what follows depends on it
	OpFail                 // bad end: an error
	OpFact                 // from the shim, call 0: a fact, see shim.Client
	OpStart                // -> u32 pid
	OpWait                 // -> Exit
	OpSignal               // u32 signal -> nothing
	OpResize               // u16 height, u16 width -> nothing
	OpExec                 // Process, Streams -> nothing
	OpForget               // of an exec: the client has no more calls on it; no answer to call 0
	OpShutdown             // -> nothing, and the shim ends
	OpMount                // tag, Mount -> nothing
	OpUnmount              // mount point -> nothing
	OpMounts               // -> u32 number, of each: mount point, tag
	OpCheckpoint           // Checkpoint -> nothing
)

var be = binary.BigEndian

// WriteFrame sends one message: its length, the call it belongs to, what it is,
// and its content, in a single write.
func WriteFrame(w io.Writer, call uint32, op Op, payload []byte) error {
	b, err := Frame(call, op, payload)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Frame returns the bytes of one message.
func Frame(call uint32, op Op, payload []byte) ([]byte, error) {
	if len(payload)+5 > MaxFrame {
		return nil, errs.New(errs.Invalid, "message of %d bytes to the shim is too long", len(payload))
	}
	b := make([]byte, 9, 9+len(payload))
	be.PutUint32(b, uint32(len(payload)+5))
	be.PutUint32(b[4:], call)
	b[8] = byte(op)
	return append(b, payload...), nil
}

// MaxKept is how many descriptors a shim keeps.
const MaxKept = 8

// ReadFrame receives one message.
func ReadFrame(r io.Reader) (call uint32, op Op, payload []byte, err error) {
	var h [9]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, 0, nil, err
	}
	n := be.Uint32(h[:])
	if n < 5 || n > MaxFrame {
		return 0, 0, nil, errs.New(errs.Corrupt, "message of %d bytes on a shim's socket", n)
	}
	payload = make([]byte, n-5)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, 0, nil, err
	}
	return be.Uint32(h[4:]), Op(h[8]), payload, nil
}

// errShort is the error of a message that ends too early.
var errShort = errs.New(errs.Corrupt, "a message on a shim's socket is cut short")

// A Reader takes a payload apart. After the first error it gives zero values;
// Done returns the error.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader returns a reader of b. Strings and byte slices that it gives are
// copies and parts of b, respectively.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

func (r *Reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// U8 takes a byte.
func (r *Reader) U8() uint8 {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 takes two bytes.
func (r *Reader) U16() uint16 {
	if p := r.take(2); p != nil {
		return be.Uint16(p)
	}
	return 0
}

// U32 takes four bytes.
func (r *Reader) U32() uint32 {
	if p := r.take(4); p != nil {
		return be.Uint32(p)
	}
	return 0
}

// I64 takes eight bytes.
func (r *Reader) I64() int64 {
	if p := r.take(8); p != nil {
		return int64(be.Uint64(p))
	}
	return 0
}

// Bool takes a byte that is 0 or 1.
func (r *Reader) Bool() bool {
	v := r.U8()
	r.bad = r.bad || v > 1
	return v == 1
}

// Bytes takes a length and that many bytes.
func (r *Reader) Bytes() []byte {
	n := r.U32()
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// String takes a length and that many bytes.
func (r *Reader) String() string { return string(r.Bytes()) }

// count takes a number of things that have at least size bytes each.
func (r *Reader) count(size int) int {
	n := r.U32()
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

// Done returns an error if something was missing or is left over.
func (r *Reader) Done() error {
	if r.bad || len(r.b) > 0 {
		return errShort
	}
	return nil
}

// Append functions: the other direction.

// AppendString appends a length and s.
func AppendString(b []byte, s string) []byte {
	return append(be.AppendUint32(b, uint32(len(s))), s...)
}

// AppendBool appends a byte that is 0 or 1.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendU16 appends two bytes.
func AppendU16(b []byte, v uint16) []byte { return be.AppendUint16(b, v) }

// AppendU32 appends four bytes.
func AppendU32(b []byte, v uint32) []byte { return be.AppendUint32(b, v) }

// AppendI64 appends eight bytes.
func AppendI64(b []byte, v int64) []byte { return be.AppendUint64(b, uint64(v)) }

// AppendError is the wire form of an error: kind, exit code and text.
func AppendError(b []byte, err error) []byte {
	code := 0
	var start *StartError
	if errors.As(err, &start) {
		code = start.ExitCode
	}
	b = append(b, byte(errs.KindOf(err)), byte(code))
	text := err.Error()
	return AppendString(b, text[:min(len(text), 64<<10)])
}

// Error takes what AppendError has appended. It is never nil.
func (r *Reader) Error() error {
	kind, code, text := errs.Kind(r.U8()), int(r.U8()), r.String()
	if err := r.Done(); err != nil {
		return err
	}
	if code != 0 {
		return &StartError{ExitCode: code, Text: text}
	}
	if kind == errs.Unknown {
		return errors.New(text)
	}
	return errs.New(kind, "%s", text)
}
