package shim_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/shim"
)

// pipes returns the ends of two pipes: what is written to the second is read
// from the first.
func pipes(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// TestShimKeepsFiles: what a shim is given at the start or later is there for the
// next daemon, and ends with the container.
func TestShimKeepsFiles(t *testing.T) {
	r, w := pipes(t)
	req := request(t, "sleep", "1000")
	req.Keep = []*os.File{r, w}
	b := create(t, launcher(t), req)
	b.start()
	ctx := context.Background()
	r.Close()
	w.Close() // the daemon dies
	files, err := shim.Kept(ctx, b.dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if _, err := files[1].Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	files[0].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(files[0], got); err != nil || string(got) != "hello" {
		t.Fatalf("%q %v", got, err)
	}
	r2, w2 := pipes(t)
	if err := shim.Keep(ctx, b.dir, []*os.File{w2}); err != nil {
		t.Fatal(err)
	}
	w2.Close()
	if again, err := shim.Kept(ctx, b.dir); err != nil || len(again) != 1 {
		t.Fatalf("%d files, %v", len(again), err)
	} else {
		again[0].Close()
	}
	files[1].Close() // nobody has the first pipe's end any more
	if _, err := files[0].Read(got); err != io.EOF {
		t.Errorf("what was given up is still held: %v", err)
	}
	files[0].Close()
	if err := shim.Keep(ctx, b.dir, make([]*os.File, 9)); err == nil {
		t.Error("nine files were taken")
	}
	if err := b.client.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	r2.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r2.Read(got); err != io.EOF {
		t.Errorf("held after the container has ended: %v", err)
	}
	r2.Close()
}

// TestNobodyKeeps: a shim that has gone, and one that was given nothing.
func TestNobodyKeeps(t *testing.T) {
	if _, err := shim.Kept(context.Background(), t.TempDir()); !errs.Is(err, errs.Unavailable) {
		t.Errorf("no shim: %v", err)
	}
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	if files, err := shim.Kept(context.Background(), b.dir); err != nil || len(files) != 0 {
		t.Errorf("%d files, %v", len(files), err)
	}
}
