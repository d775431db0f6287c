package protocol

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// Encode returns the wire form of r.
func (r *Request) Encode() []byte {
	b := make([]byte, 0, 512+len(r.Job))
	b = append(b, Version)
	b = AppendString(b, r.ID)
	b = AppendString(b, r.Dir)
	b = append(AppendU32(b, uint32(len(r.Job))), r.Job...)
	b = AppendString(b, r.Log.Driver)
	b = AppendString(b, r.Log.Path)
	b = AppendI64(b, r.Log.MaxSize)
	b = AppendU32(b, uint32(r.Log.MaxFile))
	b = AppendBool(b, r.Log.Compress)
	b = AppendU32(b, uint32(len(r.Log.Attrs)))
	for k, v := range r.Log.Attrs {
		b = AppendString(AppendString(b, k), v)
	}
	b = AppendString(b, r.Log.Cursor)
	b = AppendBool(b, r.OpenStdin)
	b = AppendBool(b, r.StdinOnce)
	b = AppendU32(b, uint32(len(r.Runtime)))
	for _, a := range r.Runtime {
		b = AppendString(b, a)
	}
	b = AppendString(b, r.Bundle)
	b = AppendBool(b, r.Restore != nil)
	if r.Restore != nil {
		b = r.Restore.Append(b)
	}
	return b
}

// Append appends c.
func (c Checkpoint) Append(b []byte) []byte {
	return AppendBool(AppendString(AppendString(b, c.Program), c.Dir), c.LeaveRunning)
}

// Checkpoint takes a checkpoint.
func (r *Reader) Checkpoint() Checkpoint {
	return Checkpoint{Program: r.String(), Dir: r.String(), LeaveRunning: r.Bool()}
}

// DecodeRequest is the inverse of Encode. Job is a part of b.
func DecodeRequest(b []byte) (*Request, error) {
	d := NewReader(b)
	if v := d.U8(); v != Version {
		return nil, errs.New(errs.Unsupported, "the shim's protocol version is %d, not %d", Version, v)
	}
	r := &Request{ID: d.String(), Dir: d.String(), Job: d.Bytes()}
	r.Log = LogConfig{Driver: d.String(), Path: d.String(), MaxSize: d.I64(), MaxFile: int(int32(d.U32())), Compress: d.Bool()}
	if n := d.count(8); n > 0 {
		r.Log.Attrs = make(map[string]string, n)
		for range n {
			k := d.String()
			r.Log.Attrs[k] = d.String()
		}
	}
	r.Log.Cursor = d.String()
	r.OpenStdin, r.StdinOnce = d.Bool(), d.Bool()
	for range d.count(4) {
		r.Runtime = append(r.Runtime, d.String())
	}
	r.Bundle = d.String()
	if d.Bool() {
		c := d.Checkpoint()
		r.Restore = &c
	}
	if err := d.Done(); err != nil {
		return nil, err
	}
	return r, nil
}

// AppendStreams appends a set of streams.
func AppendStreams(b []byte, s Streams) []byte {
	return AppendBool(AppendBool(AppendBool(b, s.Stdin), s.Stdout), s.Stderr)
}

// Streams takes a set of streams.
func (r *Reader) Streams() Streams {
	return Streams{Stdin: r.Bool(), Stdout: r.Bool(), Stderr: r.Bool()}
}

// Encode returns the wire form of g.
func (g Greeting) Encode() []byte {
	return AppendStreams(AppendString([]byte{Version, byte(g.Kind)}, g.Target), g.Streams)
}

// DecodeGreeting is the inverse of Encode.
func DecodeGreeting(b []byte) (Greeting, error) {
	r := NewReader(b)
	if v := r.U8(); v != Version {
		return Greeting{}, errs.New(errs.Unsupported, "the shim's protocol version is %d, not %d", Version, v)
	}
	g := Greeting{Kind: Kind(r.U8()), Target: r.String(), Streams: r.Streams()}
	return g, r.Done()
}

// Encode returns the wire form of h.
func (h Hello) Encode() []byte {
	return AppendU32(nil, uint32(h.Pid))
}

// DecodeHello is the inverse of Encode.
func DecodeHello(b []byte) (Hello, error) {
	r := NewReader(b)
	h := Hello{Pid: int(r.U32())}
	return h, r.Done()
}

// Encode returns the wire form of e.
func (e Exit) Encode() []byte {
	return AppendBool(AppendI64(AppendU32(nil, uint32(e.Code)), e.At.UnixNano()), e.OOMKilled)
}

// DecodeExit is the inverse of Encode.
func DecodeExit(b []byte) (Exit, error) {
	r := NewReader(b)
	e := r.Exit()
	return e, r.Done()
}

// Exit takes an exit.
func (r *Reader) Exit() Exit {
	return Exit{Code: int(r.U32()), At: time.Unix(0, r.I64()), OOMKilled: r.Bool()}
}

// exitMagic begins an exit record. The rest of the line is the exit code, the
// time in nanoseconds since 1970, and the word oom if it was.
const exitMagic = "gantry-exit-1"

// exitFile is shim.ExitFile.
const exitFile = "exit"

// ExecExitFile is the name of the exit record of an exec that ended, or was found
// to have ended, when the client that made it had gone.
func ExecExitFile(execID string) string { return exitFile + "." + execID }

// WriteExecExit writes the exit record of an exec, without waiting for the disk:
// it is of use only while the container's processes are there.
func WriteExecExit(dir, execID string, e Exit) error {
	if execID == "" || strings.ContainsAny(execID, "/\x00") {
		return errs.New(errs.Invalid, "exec %q: not a file name", execID)
	}
	return durable.Replace(filepath.Join(dir, ExecExitFile(execID)), e.line(), 0o600)
}

// WriteExit writes the exit record into a container's run directory; it is on
// disk when WriteExit returns nil.
func WriteExit(dir string, e Exit) error {
	return durable.WriteFile(filepath.Join(dir, exitFile), e.line(), 0o600)
}

func (e Exit) line() []byte {
	line := exitMagic + " " + strconv.Itoa(e.Code) + " " + strconv.FormatInt(e.At.UnixNano(), 10)
	if e.OOMKilled {
		line += " oom"
	}
	return []byte(line + "\n")
}

// ReadExit reads the exit record in a container's run directory. If there is
// none the error is NotFound.
func ReadExit(dir string) (Exit, error) { return readExit(filepath.Join(dir, exitFile)) }

// ReadExecExit reads what WriteExecExit has written. If there is nothing the error
// is NotFound.
func ReadExecExit(dir, execID string) (Exit, error) {
	return readExit(filepath.Join(dir, ExecExitFile(execID)))
}

func readExit(path string) (Exit, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Exit{}, errs.New(errs.NotFound, "no exit record %s", path)
	}
	if err != nil {
		return Exit{}, err
	}
	f := strings.Fields(string(data))
	if len(f) >= 3 && f[0] == exitMagic {
		code, err1 := strconv.Atoi(f[1])
		at, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 == nil && err2 == nil {
			return Exit{Code: code, At: time.Unix(0, at), OOMKilled: slices.Contains(f[3:], "oom")}, nil
		}
	}
	return Exit{}, errs.New(errs.Corrupt, "exit record %s: not understood", path)
}
