package protocol

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gantry/internal/errs"
)

func TestRequestGoesThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.Make[Request]().Draw(t, "request")
		r.Log.MaxFile = int(int32(r.Log.MaxFile))
		// Empty and nil are the same on the wire.
		if len(r.Log.Attrs) == 0 {
			r.Log.Attrs = nil
		}
		if len(r.Runtime) == 0 {
			r.Runtime = nil
		}
		if r.Job == nil {
			r.Job = []byte{}
		}
		got, err := DecodeRequest(r.Encode())
		if err != nil || !reflect.DeepEqual(*got, r) {
			t.Fatalf("%+v: %v", got, err)
		}
		b := r.Encode()
		if _, err := DecodeRequest(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("a cut request was taken")
		}
	})
}

func FuzzDecodersDoNotPanic(f *testing.F) {
	f.Add((&Request{ID: "x", Log: LogConfig{Attrs: map[string]string{"a": "b"}}, Runtime: []string{"runc"}}).Encode())
	f.Add(Greeting{Kind: Stream, Target: "e", Streams: Streams{Stdin: true}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		DecodeRequest(b)
		DecodeGreeting(b)
		DecodeHello(b)
		DecodeExit(b)
		if NewReader(b).Error() == nil {
			t.Error("an error became nil")
		}
		if _, _, p, err := ReadFrame(bytes.NewReader(b)); err == nil && len(p) > len(b) {
			t.Error("a frame grew")
		}
	})
}

func TestValuesGoThere(t *testing.T) {
	g := Greeting{Kind: Stream, Target: "abc", Streams: Streams{Stdin: true, Stderr: true}}
	if got, err := DecodeGreeting(g.Encode()); err != nil || got != g {
		t.Errorf("greeting %+v %v", got, err)
	}
	h := Hello{Pid: 77}
	if got, err := DecodeHello(h.Encode()); err != nil || got != h {
		t.Errorf("hello %+v %v", got, err)
	}
	e := Exit{Code: 137, At: time.Unix(5, 6), OOMKilled: true}
	if got, err := DecodeExit(e.Encode()); err != nil || got != e {
		t.Errorf("exit %+v %v", got, err)
	}
	var start *StartError
	if err := NewReader(AppendError(nil, &StartError{ExitCode: 127, Text: "x"})).Error(); !errors.As(err, &start) || start.ExitCode != 127 || start.Text != "x" {
		t.Errorf("start error became %v", err)
	}
	if err := NewReader(AppendError(nil, errs.New(errs.Conflict, "c"))).Error(); !errs.Is(err, errs.Conflict) || err.Error() != "c" {
		t.Errorf("conflict became %v", err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	if err := WriteFrame(&b, 7, OpWait, []byte("payload")); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	if call, op, p, err := ReadFrame(&b); call != 7 || op != OpWait || string(p) != "payload" || err != nil {
		t.Errorf("%d %d %q %v", call, op, p, err)
	}
	if _, _, _, err := ReadFrame(bytes.NewReader(whole[:len(whole)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: %v", err)
	}
	if _, _, _, err := ReadFrame(bytes.NewReader([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0})); !errs.Is(err, errs.Corrupt) {
		t.Errorf("huge frame: %v", err)
	}
}

func TestExitRecord(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadExit(dir); !errs.Is(err, errs.NotFound) {
		t.Errorf("no record: %v", err)
	}
	for _, e := range []Exit{{Code: 0, At: time.Unix(0, 1)}, {Code: 137, At: time.Unix(9, 9), OOMKilled: true}} {
		if err := WriteExit(dir, e); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadExit(dir); err != nil || got != e {
			t.Errorf("%+v: %v", got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, exitFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadExit(dir); !errs.Is(err, errs.Corrupt) {
		t.Errorf("torn record: %v", err)
	}
}
