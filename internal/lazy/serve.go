package lazy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Names below a job's directory.
const (
	jobName    = "job.json"
	lockName   = "lock"
	pidName    = "pid"
	filledName = "filled"
)

func layerDir(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i), "fs") }

func blobPath(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i)+".blob") }

// Serve is the process of a job, whose directory exists: it shows its layers, says
// so on ready, and fetches all of them. It returns when the layers are unmounted
// and nobody uses them. The end of ctx ends the fetching.
func Serve(ctx context.Context, dir string, s Source, ready io.WriteCloser) error {
	lock, err := take(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	job, err := readJob(dir)
	if err != nil {
		return err
	}
	blobs, tables, err := open(ctx, dir, job, s)
	if err != nil {
		return err
	}
	var shown sync.WaitGroup
	for i, c := range tables {
		at := layerDir(dir, i)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		server, err := show(c, at)
		if err != nil {
			for j := range i {
				_ = unix.Unmount(layerDir(dir, j), unix.MNT_DETACH)
			}
			return err
		}
		shown.Go(server.Wait)
	}
	if _, err := io.WriteString(ready, "ready\n"); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fill(ctx, dir, blobs, tables) }()
	shown.Wait()
	cancel()
	return <-done
}

// take takes the lock by which the process is known to live, and leaves its id.
func take(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errs.New(errs.Unavailable, "%s is served by another process", dir)
	}
	return f, os.WriteFile(filepath.Join(dir, pidName), []byte(strconv.Itoa(os.Getpid())), 0o600)
}

func readJob(dir string) (Job, error) {
	var j Job
	data, err := os.ReadFile(filepath.Join(dir, jobName))
	if err == nil {
		err = json.Unmarshal(data, &j)
	}
	return j, err
}

// open reads the tables of contents of all layers, beside each other.
func open(ctx context.Context, dir string, job Job, s Source) ([]*blob, []*contents, error) {
	blobs, tables := make([]*blob, len(job.Layers)), make([]*contents, len(job.Layers))
	all := make([]error, len(job.Layers))
	wanted, shared := &atomic.Int32{}, &cache{}
	var wg sync.WaitGroup
	for i, l := range job.Layers {
		wg.Go(func() {
			if blobs[i], all[i] = newBlob(ctx, s, l, blobPath(dir, i), wanted); all[i] == nil {
				tables[i], all[i] = openContents(blobs[i], shared)
			}
		})
	}
	wg.Wait()
	return blobs, tables, errors.Join(all...)
}

// fill fetches all layers, first what their maker says is needed first, and leaves
// word of it. What fails is tried again after a while.
func fill(ctx context.Context, dir string, blobs []*blob, tables []*contents) error {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := fillAll(blobs, tables)
		if err == nil {
			return os.WriteFile(filepath.Join(dir, filledName), nil, 0o600)
		}
		fmt.Fprintln(os.Stderr, err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// fillers is how many parts the background fetches at once, of different layers.
const fillers = 3

func fillAll(blobs []*blob, tables []*contents) error {
	err := beside(len(blobs), func(i int) error { return blobs[i].fill(tables[i].urgent()) })
	if err != nil {
		return err
	}
	return beside(len(blobs), func(i int) error {
		for !blobs[i].complete() { // somebody else's part may have failed, or been wrong
			if err := blobs[i].fill(blobs[i].layer.Size); err != nil {
				return err
			}
			if err := blobs[i].settle(); err != nil {
				return err
			}
		}
		return nil
	})
}

// beside calls f for 0 to n-1, some at a time, lowest first.
func beside(n int, f func(i int) error) error {
	all := make([]error, n)
	slots := make(chan struct{}, fillers)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(all...)
}
