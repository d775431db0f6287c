package jsonfile

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/logs"
	"gantry/internal/logs/files"
)

var t0 = time.Date(2024, 5, 6, 7, 8, 9, 120_000_000, time.UTC)

func TestEntriesLookAsDockers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	w, err := Create(path, files.Options{Attrs: map[string]string{"b": "2\t", "a": "<1>"}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, files.Stdout, "plain \"q\" \\ <b> & \t\x01\x7f\r\n")
	write(t, w, files.Stderr, "bad \xff utf8 é \u2028 😀\n")
	write(t, w, files.Stdout, "no end")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(path)
	lines := strings.SplitAfter(string(got), "\n")
	attrs := `"attrs":{"a":"\u003c1\u003e","b":"2\u0009"},`
	want := []string{
		`{"log":"plain \"q\" \\ \u003cb\u003e \u0026 \u0009\u0001` + "\x7f" + `\r\n","stream":"stdout",` + attrs + `"time":"2024-05-06T07:08:09.12Z"}` + "\n",
		`{"log":"bad \ufffd utf8 é \u2028 😀\n","stream":"stderr",` + attrs + `"time":"2024-05-06T07:08:09.12Z"}` + "\n",
	}
	for i, l := range want {
		if lines[i] != l {
			t.Errorf("line %d\n got %s\nwant %s", i, lines[i], l)
		}
	}
	if !strings.HasPrefix(lines[2], `{"log":"no end","stream":"stdout",`) {
		t.Errorf("unterminated line: %s", lines[2])
	}
}

func write(t *testing.T, w *files.Writer, s files.Stream, text string) {
	t.Helper()
	if err := w.Write(s, []byte(text), t0); err != nil {
		t.Fatal(err)
	}
}

// read returns the lines that a reader gives.
func read(t *testing.T, path string, o logs.ReadOptions) []string {
	t.Helper()
	var got []string
	for e, err := range NewReader(path).Entries(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(e.Line))
	}
	return got
}

func FuzzDecodeReadsWhatWasEncoded(f *testing.F) {
	f.Add([]byte("a\"\\\x00\xff\u2028😀\n"))
	f.Add([]byte(`{"log":"\ud83d\ude00","time":"x"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		line := appendEntry(nil, logs.Stderr, renderAttrs(map[string]string{"k": string(in)}), in, t0)
		var want struct {
			Log, Stream string
			Attrs       map[string]string
			Time        time.Time
		}
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("%s is no JSON: %v", line, err)
		}
		var e logs.Entry
		if _, err := decodeEntry(line, nil, &e); err != nil {
			t.Fatal(err)
		}
		if string(e.Line) != want.Log || e.Stream != want.Stream || !e.Time.Equal(want.Time) || e.Attrs["k"] != want.Attrs["k"] {
			t.Fatalf("%s read as %q %v", line, e.Line, e)
		}
		decodeEntry(in, nil, &e) // must not panic
	})
}

func TestReaderChooses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Create(path, files.Options{MaxSize: 400, MaxFile: 3, Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		if err := w.Write(files.Stdout, fmt.Appendf(nil, "line %d\n", i), t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, w, files.Stdout, "pending")
	for range 1000 { // the compression goes on beside
		if _, err := os.Stat(path + ".1"); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := os.Stat(path + ".1.gz"); err != nil {
		t.Fatalf("rotation did not compress: %v", err)
	}
	all := read(t, path, logs.ReadOptions{Tail: -1})
	if len(all) != 12 || all[0] != "line 0\n" || all[11] != "line 11\n" {
		t.Fatalf("all: %q", all)
	}
	for n := range 14 {
		got := read(t, path, logs.ReadOptions{Tail: n})
		if want := all[max(0, len(all)-n):]; strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("tail %d: %q", n, got)
		}
	}
	got := read(t, path, logs.ReadOptions{Tail: -1, Since: t0.Add(3 * time.Second), Until: t0.Add(5 * time.Second)})
	if strings.Join(got, "") != "line 3\nline 4\nline 5\n" {
		t.Errorf("since and until: %q", got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, logs.ReadOptions{Tail: 1}); len(got) != 1 || got[0] != "pending" {
		t.Errorf("after the end: %q", got)
	}
}

func TestRotationKeepsMaxFile(t *testing.T) {
	for _, keep := range []int{1, 2, 4} {
		dir := t.TempDir()
		path := filepath.Join(dir, "log")
		w, err := Create(path, files.Options{MaxSize: 200, MaxFile: keep})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			write(t, w, files.Stdout, fmt.Sprintf("line %02d\n", i))
		}
		w.Close()
		names, _ := os.ReadDir(dir)
		if len(names) != keep {
			t.Errorf("max-file %d: %d files", keep, len(names))
		}
		got := read(t, path, logs.ReadOptions{Tail: -1})
		if got[len(got)-1] != "line 49\n" || len(got) < 2*keep-1 {
			t.Errorf("max-file %d: %q", keep, got)
		}
		if err := files.Remove(path); err != nil {
			t.Fatal(err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 0 {
			t.Errorf("Remove left %v", names)
		}
	}
}

func TestTornLineIsLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	good := string(appendEntry(nil, logs.Stdout, "", []byte("a\n"), t0))
	if err := os.WriteFile(path, []byte(good+good[:20]), 0o640); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, logs.ReadOptions{Tail: -1}); len(got) != 1 {
		t.Errorf("torn: %q", got)
	}
	w, err := Create(path, files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, files.Stdout, "b\n")
	w.Close()
	if got := read(t, path, logs.ReadOptions{Tail: -1}); strings.Join(got, "") != "a\nb\n" {
		t.Errorf("after the torn line: %q", got)
	}
	if got := read(t, filepath.Join(t.TempDir(), "none"), logs.ReadOptions{Tail: 5}); len(got) != 0 {
		t.Errorf("a log that is not there: %q", got)
	}
}

// Followers that start at any moment must see every line once and in order,
// while the files turn under them.
func TestFollowThroughRotation(t *testing.T) {
	for _, o := range []files.Options{{MaxSize: 20 << 10, MaxFile: 100}, {MaxSize: 20 << 10, MaxFile: 100, Compress: true}, {}} {
		path := filepath.Join(t.TempDir(), "log")
		ended := make(chan struct{})
		var wg sync.WaitGroup
		const n = 12000
		follow := func(tail int) {
			last, count := -1, 0
			for e, err := range NewReader(path).Entries(context.Background(), logs.ReadOptions{Tail: tail, Follow: true, Ended: ended}) {
				if err != nil {
					t.Error(err)
					return
				}
				var i int
				if _, err := fmt.Sscanf(string(e.Line), "%d", &i); err != nil || last >= 0 && i != last+1 {
					t.Errorf("%+v: %q after %d", o, e.Line, last)
					return
				}
				last = i
				count++
			}
			if last != n-1 || tail < 0 && count != n {
				t.Errorf("%+v: ended at %d, %d entries", o, last, count)
			}
		}
		wg.Go(func() { follow(-1) })
		w, err := Create(path, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if i == n/2 {
				wg.Go(func() { follow(-1) })
				wg.Go(func() { follow(1) })
			}
			write(t, w, files.Stream(i%2), fmt.Sprintf("%d %s\n", i, strings.Repeat("x", rand.IntN(60))))
			if i%500 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		w.Close()
		close(ended)
		wg.Wait()
	}
}

func TestFollowEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Create(path, files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write(t, w, files.Stdout, "a\n")
	start := time.Now()
	var got []string
	for e := range NewReader(path).Entries(t.Context(), logs.ReadOptions{Tail: -1, Follow: true, Until: time.Now().Add(150 * time.Millisecond)}) {
		got = append(got, string(e.Line))
	}
	if d := time.Since(start); d < 100*time.Millisecond || d > 10*time.Second || len(got) != 1 {
		t.Errorf("until: %v after %v", got, d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	for range NewReader(path).Entries(ctx, logs.ReadOptions{Follow: true}) {
		t.Error("tail 0 gave an old entry")
	}
	for range NewReader(path).Entries(t.Context(), logs.ReadOptions{Tail: -1, Follow: true}) {
		break // the caller may stop
	}
}

func BenchmarkWrite(b *testing.B) {
	w, err := Create(filepath.Join(b.TempDir(), "log"), files.Options{})
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

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	w, err := Create(path, files.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p := []byte(strings.Repeat(strings.Repeat("x", 79)+"\n", 10000))
	w.Write(files.Stdout, p, t0)
	w.Close()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		for range NewReader(path).Entries(context.Background(), logs.ReadOptions{Tail: -1}) {
		}
	}
}
