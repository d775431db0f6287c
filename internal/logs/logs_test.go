package logs

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func collect(chunks [][]byte) (out []string, times []time.Time) {
	var s Splitter
	emit := func(line []byte, at time.Time) {
		out = append(out, string(line))
		times = append(times, at)
	}
	t := time.Unix(1000, 0)
	for _, c := range chunks {
		s.Split(c, t, emit)
		t = t.Add(time.Second)
	}
	s.Flush(t, emit)
	return out, times
}

func TestSplitterCutsAsDocker(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		in   []string
		want []string
	}{
		"lines":            {[]string{"a\nb\n"}, []string{"a\n", "b\n"}},
		"across chunks":    {[]string{"a", "b", "\nc"}, []string{"ab\n", "c"}},
		"40000":            {[]string{x(40000) + "\n"}, []string{x(16384), x(16384), x(7232) + "\n"}},
		"exactly the size": {[]string{x(16383) + "\n", x(16384) + "\n"}, []string{x(16383) + "\n", x(16384), "\n"}},
		"cut over chunks":  {[]string{x(16000), x(1000) + "\nz\n"}, []string{x(16384), x(616) + "\n", "z\n"}},
		"nothing":          {[]string{""}, nil},
	} {
		var chunks [][]byte
		for _, s := range c.in {
			chunks = append(chunks, []byte(s))
		}
		got, _ := collect(chunks)
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: got %d entries %.60q, want %d", name, len(got), got, len(c.want))
		}
	}
}

func TestSplitterGivesPartsTheTimeOfTheFirst(t *testing.T) {
	_, times := collect([][]byte{bytes.Repeat([]byte("x"), MaxLine), []byte("rest\nnext\n")})
	if len(times) != 3 || !times[0].Equal(times[1]) || times[2].Equal(times[1]) {
		t.Errorf("times %v", times)
	}
}

func TestSplitterLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunks := rapid.SliceOf(rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 5, 1000, 16383, 16384}), 0, 6), func(ns []int) []byte {
			var b []byte
			for _, n := range ns {
				b = append(append(b, bytes.Repeat([]byte{'y'}, n)...), '\n')
			}
			if len(b) > 0 {
				b = b[:len(b)-1]
			}
			return b
		})).Draw(t, "chunks")
		got, _ := collect(chunks)
		if want := bytes.Join(chunks, nil); strings.Join(got, "") != string(want) {
			t.Fatalf("lost or doubled bytes")
		}
		for _, e := range got {
			if len(e) > MaxLine || strings.Contains(strings.TrimSuffix(e, "\n"), "\n") {
				t.Fatalf("entry of %d bytes", len(e))
			}
		}
	})
}
