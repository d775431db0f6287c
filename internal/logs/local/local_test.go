package local

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/logs"
	"gantry/internal/logs/files"
)

var t0 = time.Date(2024, 5, 6, 7, 8, 9, 123_456_789, time.UTC)

func write(t *testing.T, w *files.Writer, s files.Stream, text string) {
	t.Helper()
	if err := w.Write(s, []byte(text), t0); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, path string, o files.Options) *files.Writer {
	t.Helper()
	w, err := Create(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func read(t *testing.T, path string, o logs.ReadOptions) (all []logs.Entry) {
	t.Helper()
	for e, err := range NewReader(path).Entries(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		e.Line = bytes.Clone(e.Line)
		all = append(all, e)
	}
	return all
}

func text(all []logs.Entry) string {
	var b strings.Builder
	for _, e := range all {
		b.Write(e.Line)
	}
	return b.String()
}

func TestEveryByteComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	attrs := map[string]string{"a": "1", "": "x", "ü": "\xff"}
	w := create(t, path, files.Options{Attrs: attrs})
	long := strings.Repeat("y", 40000)
	in := "plain\n\n\x00\xff\xfe\r\n" + long + "\nno end"
	write(t, w, files.Stdout, in)
	write(t, w, files.Stderr, "err\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all := read(t, path, logs.ReadOptions{Tail: -1})
	var out, errOut string
	for i, e := range all {
		if e.Stream == logs.Stderr {
			errOut += string(e.Line)
		} else {
			out += string(e.Line)
		}
		if e.At.Number != uint64(i+1) || e.Attrs["ü"] != "\xff" || len(e.Attrs) != 3 || e.Partial == bytes.HasSuffix(e.Line, []byte("\n")) {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if out != in || errOut != "err\n" || !all[0].Time.Equal(t0) {
		t.Errorf("got %q %q", out, errOut)
	}
	if n := len(all); n != 8 || !all[3].Partial || len(all[3].Line) != logs.MaxLine {
		t.Errorf("%d entries", n)
	}
}

func TestTailAndPlacesOverFiles(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		w := create(t, path, files.Options{MaxSize: 600, MaxFile: 100, Compress: compress})
		for i := range 100 {
			write(t, w, files.Stdout, fmt.Sprintf("line %02d\n", i))
		}
		w.Close()
		all := read(t, path, logs.ReadOptions{Tail: -1})
		if len(all) != 100 {
			t.Fatalf("%d entries", len(all))
		}
		for n := range 101 {
			if got := read(t, path, logs.ReadOptions{Tail: n}); text(got) != text(all[100-n:]) {
				t.Fatalf("tail %d: %q", n, text(got))
			}
			if n == 0 {
				continue
			}
			got := read(t, path, logs.ReadOptions{Tail: -1, From: all[n-1].At})
			if text(got) != text(all[n:]) || n < 100 && got[0].At != all[n].At {
				t.Fatalf("from %d: %q", n, text(got))
			}
		}
	}
}

// A log that is opened again goes on with its numbers and places, in the same
// file if the attributes are the same.
func TestLogGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for i, attrs := range []map[string]string{nil, nil, {"a": "1"}, {"a": "1"}, nil} {
		w := create(t, path, files.Options{MaxFile: 10, Attrs: attrs})
		write(t, w, files.Stdout, fmt.Sprintf("%d\n", i))
		w.Close()
	}
	all := read(t, path, logs.ReadOptions{Tail: -1})
	if text(all) != "0\n1\n2\n3\n4\n" || all[4].At.Number != 5 || all[3].Attrs["a"] != "1" || all[4].Attrs != nil {
		t.Fatalf("%+v", all)
	}
	for i := 1; i < 5; i++ {
		if d := all[i].At.Offset - all[i-1].At.Offset; d != 26 {
			t.Errorf("entry %d is %d bytes behind the one before", i, d)
		}
	}
	if _, err := os.Stat(path + ".2"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("a new file for the same attributes")
	}
}

func TestTornRecordIsTakenOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := create(t, path, files.Options{})
	write(t, w, files.Stdout, "one\ntwo\nthree\n")
	w.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(path, whole[:cut], 0o640); err != nil {
			t.Fatal(err)
		}
		before := text(read(t, path, logs.ReadOptions{Tail: -1}))
		if got := text(read(t, path, logs.ReadOptions{Tail: 9})); got != before {
			t.Fatalf("cut at %d: tail %q, all %q", cut, got, before)
		}
		w := create(t, path, files.Options{})
		write(t, w, files.Stdout, "new\n")
		w.Close()
		all := read(t, path, logs.ReadOptions{Tail: -1})
		if text(all) != before+"new\n" || all[len(all)-1].At.Number != uint64(len(all)) {
			t.Fatalf("cut at %d: %q after %q", cut, text(all), before)
		}
	}
}

func TestHoldKeepsTheOldestFile(t *testing.T) {
	for _, keep := range []int{1, 3} {
		path := filepath.Join(t.TempDir(), "log")
		var may bool
		var asked []int64
		w := create(t, path, files.Options{MaxSize: 300, MaxFile: keep, Hold: func(base int64) bool {
			asked = append(asked, base)
			return may
		}})
		for i := range 60 {
			write(t, w, files.Stdout, fmt.Sprintf("line %02d\n", i))
		}
		if all := read(t, path, logs.ReadOptions{Tail: -1}); len(all) != 60 || len(asked) == 0 {
			t.Fatalf("max-file %d: %d entries, asked %v", keep, len(all), asked)
		}
		may = true
		write(t, w, files.Stdout, "last\n")
		w.Close()
		all := read(t, path, logs.ReadOptions{Tail: -1})
		if len(all) >= 60 || all[len(all)-1].At.Number != 61 {
			t.Errorf("max-file %d: %d entries are left", keep, len(all))
		}
		base := asked[len(asked)-1]
		if first := all[0].At.Offset; first <= base || first > base+64 {
			t.Errorf("max-file %d: begins at %d, was said to at %d", keep, first, base)
		}
	}
}

func TestFollowThroughRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ended := make(chan struct{})
	var wg sync.WaitGroup
	const n = 12000
	follow := func(from logs.Place) {
		at := from
		for e, err := range NewReader(path).Entries(context.Background(), logs.ReadOptions{Tail: -1, From: from, Follow: true, Ended: ended}) {
			if err != nil || e.At.Number != at.Number+1 || e.At.Offset <= at.Offset {
				t.Errorf("%+v after %+v: %v", e.At, at, err)
				return
			}
			at = e.At
		}
		if at.Number != n {
			t.Errorf("ended at %+v", at)
		}
	}
	wg.Go(func() { follow(logs.Place{}) })
	w := create(t, path, files.Options{MaxSize: 20 << 10, MaxFile: 100, Compress: true})
	for i := range n {
		if i == n/2 {
			wg.Go(func() { follow(read(t, path, logs.ReadOptions{Tail: 1000})[0].At) })
		}
		write(t, w, files.Stream(i%2), fmt.Sprintf("%d %s\n", i, strings.Repeat("x", i%60)))
		if i%500 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	w.Close()
	close(ended)
	wg.Wait()
}

func FuzzDecode(f *testing.F) {
	b := newHead(nil, files.Head{Attrs: map[string]string{"a": "b"}})
	f.Add(encode(b, files.Record{Line: []byte("x\n"), Time: t0}))
	f.Add(encode(nil, files.Record{Line: []byte("x"), Time: t0}))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, ok := head(in)
		if ok {
			in = in[h.Len:]
		}
		last(in)
		if n := frame(in, 0); n > 0 {
			var e logs.Entry
			if _, err := decode(&h, in[:n], nil, &e); err != nil {
				t.Errorf("a framed record can't be read: %v", err)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w, err := Create(filepath.Join(b.TempDir(), "log"), files.Options{MaxSize: 20 << 20, MaxFile: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	p := []byte(strings.Repeat(strings.Repeat("x", 79)+"\n", 400))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		w.Write(files.Stdout, p, t0)
	}
}
