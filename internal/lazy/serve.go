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

// wordPath is the file by which a layer's blob is known to be complete.
func wordPath(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i)+"."+filledName) }

func blobPath(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i)+".blob") }

// Serve is the process of a job, whose directory exists: it shows its layers, says
// so on ready, and fetches all of them over so many connections. It returns when the
// layers are unmounted and nobody uses them; or errs.Unavailable if the image can be
// here as a whole in the time that the job says. The end of ctx ends the fetching.
func Serve(ctx context.Context, dir string, s Source, connections int, ready io.WriteCloser) error {
	lock, err := take(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	job, err := readJob(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, tables, err := open(ctx, dir, job, s, newTraffic(connections))
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- fill(ctx, dir, f) }()
	if job.Eager > 0 {
		if all := f.sample(ctx, job.Eager); all < job.Eager {
			cancel()
			<-done
			return errs.New(errs.Unavailable, "that is faster (%s)", all.Round(10*time.Millisecond))
		}
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
func open(ctx context.Context, dir string, job Job, s Source, way *traffic) (*filler, []*contents, error) {
	blobs, tables := make([]*blob, len(job.Layers)), make([]*contents, len(job.Layers))
	all, urgent := make([]error, len(job.Layers)), make([]int64, len(job.Layers))
	shared := &cache{}
	var wg sync.WaitGroup
	for i, l := range job.Layers {
		wg.Go(func() {
			if blobs[i], all[i] = newBlob(ctx, s, l, dir, i, way); all[i] != nil {
				return
			}
			if tables[i], all[i] = openContents(blobs[i], shared); all[i] == nil {
				urgent[i] = tables[i].urgent()
			}
		})
	}
	wg.Wait()
	return &filler{way: way, blobs: blobs, urgent: urgent}, tables, errors.Join(all...)
}

// sample estimates, by the first that comes, when all would be here and unpacked. It
// ends as soon as it is certain that it is later than enough.
func (f *filler) sample(ctx context.Context, enough time.Duration) time.Duration {
	total := int64(0)
	for _, b := range f.blobs {
		total += b.layer.Size
	}
	if d := eagerEnd(total, total, 0); d >= enough {
		return d
	}
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	began, before := time.Now(), f.way.bytes.Load()
	for {
		n, took := f.way.bytes.Load()-before, time.Since(began)
		if n >= min(sampleSize, total-before) || took >= sampleTime {
			return eagerEnd(total, n, took)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return enough
		}
	}
}

// fill fetches all layers and leaves word of it. What fails is tried again after a
// while.
func fill(ctx context.Context, dir string, f *filler) error {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := f.run(ctx)
		if err == nil {
			return os.WriteFile(filepath.Join(dir, filledName), nil, 0o600)
		}
		if ctx.Err() != nil {
			return nil
		}
		fmt.Fprintln(os.Stderr, err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}
