package solve

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// Everything arrives, in order, in fewer writes, and before the end.
func TestGather(t *testing.T) {
	ours, theirs := net.Pipe()
	g := gather(ours)
	var want bytes.Buffer
	got := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(theirs)
		got <- data
	}()
	for i := range 5000 {
		line := bytes.Repeat([]byte{byte(i)}, i%700)
		want.Write(line)
		if n, err := g.Write(line); n != len(line) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
		clear(line) // it is the writer's again
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if data := <-got; !bytes.Equal(data, want.Bytes()) {
		t.Errorf("%d bytes arrived, not these %d", len(data), want.Len())
	}
	if _, err := g.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written after the end: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// The writer learns that nobody reads any more.
func TestGatherBroken(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	g := gather(ours)
	defer g.Close()
	var err error
	for range 100 {
		if _, err = g.Write(make([]byte, gatherBytes)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("100 MB are written to nobody")
	}
}
