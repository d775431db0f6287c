package shim_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/logs"
	"gantry/internal/logs/files"
	"gantry/internal/logs/local"
	"gantry/internal/shim"
)

// A full disk loses entries, which the daemon is told once and which are counted;
// the container runs on, and when there is room again its log goes on without a
// torn entry.
func TestLogOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	r := request(t, "sh", "-c", "seq 100000 140000; read x; echo after; exit 3")
	r.Log.Driver, r.Log.Path = "local", filepath.Join(dir, "log")
	r.OpenStdin = true
	b := create(t, launcher(t), r)
	in := b.attach(shim.Streams{Stdin: true})
	b.start()
	fact := <-b.client.Facts()
	if !strings.HasPrefix(fact, "log-lost ") || !strings.HasSuffix(fact, ": no space left on device") {
		t.Fatalf("fact %q", fact)
	}
	time.Sleep(500 * time.Millisecond) // the rest is lost too
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	fact = <-b.client.Facts()
	lost, err := strconv.Atoi(strings.TrimPrefix(fact, "log-back "))
	if err != nil || lost == 0 {
		t.Fatalf("fact %q", fact)
	}
	if e := b.wait(); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	n, last := 0, ""
	for e, err := range local.NewReader(r.Log.Path).Entries(t.Context(), logs.ReadOptions{Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		n, last = n+1, string(e.Line)
	}
	if last != "after\n" || n+lost != 40002 {
		t.Errorf("%d entries, the last %q, and %d lost, of 40002", n, last, lost)
	}
}

// A full log that has not been sent holds the container up, until it is sent or
// the container is killed.
func TestFullLogHoldsTheContainer(t *testing.T) {
	r := request(t, "seq", "1", "60000")
	r.Log.Driver, r.Log.MaxSize, r.Log.MaxFile = "local", 100<<10, 3
	r.Log.Cursor = files.Cursor(r.Log.Path)
	b := create(t, launcher(t), r)
	b.start()
	var at logs.Place
	count := func() {
		for e, err := range local.NewReader(r.Log.Path).Entries(t.Context(), logs.ReadOptions{Tail: -1, From: at}) {
			if err != nil || e.At.Number != at.Number+1 {
				t.Fatalf("%+v after %+v: %v", e.At, at, err)
			}
			at = e.At
		}
	}
	for rounds := 0; at.Number < 60000; rounds++ {
		before := at
		count()
		if at == before && rounds > 2000 {
			t.Fatalf("stuck at %+v", at)
		}
		if rounds == 5 {
			time.Sleep(200 * time.Millisecond)
			count()
			full := at
			time.Sleep(200 * time.Millisecond)
			if count(); at != full {
				t.Errorf("went on from %+v to %+v though nothing was sent", full, at)
			}
		}
		if rounds >= 5 {
			if err := files.WriteCursor(r.Log.Cursor, at); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	if e := b.wait(); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	r = request(t, "yes")
	r.Log.Driver, r.Log.MaxSize, r.Log.MaxFile = "local", 100<<10, 1
	r.Log.Cursor = files.Cursor(r.Log.Path)
	b = create(t, launcher(t), r)
	b.start()
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	if err := b.client.Signal(b.ctx(), 9); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(); e.Code != 137 || time.Since(began) > 15*time.Second {
		t.Errorf("%+v after %v", e, time.Since(began))
	}
}
