package lazy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// Images are the images that are being shown, below one directory.
type Images struct {
	dir  string
	dead []Job

	mu   sync.Mutex
	jobs map[string]Job // by directory
}

// Open finds the images that an earlier daemon left. Those that nobody serves any
// more, because the machine was started anew, are dropped unless keep wants their
// directory: containers may be made of them, and what is settled they still need.
func Open(dir string, keep func(Job) bool) (*Images, error) {
	i := &Images{dir: dir, jobs: map[string]Job{}}
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		job, err := readJob(at)
		switch {
		case err == nil && settled(at, job):
			if !keep(job) {
				err = remove(at)
			}
		case err == nil && alive(at):
			i.jobs[at] = job
		case err != nil || !keep(job):
			err = remove(at)
		default:
			// Without its directories no container starts on nothing.
			for n := range job.Layers {
				if err = unmount(layerDir(at, n)); err == nil {
					err = os.RemoveAll(filepath.Dir(layerDir(at, n)))
				}
			}
			i.dead = append(i.dead, job)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("image that was shown in %s: %w", at, err)
		}
	}
	return i, nil
}

// alive reports whether a process serves a directory.
func alive(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// settled reports whether all layers are links already.
func settled(dir string, j Job) bool {
	for n := range j.Layers {
		if fi, err := os.Lstat(layerDir(dir, n)); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			return false
		}
	}
	return true
}

// remove ends what serves a directory, and removes it. Containers that run on it go
// on, but what is not there yet they will not get.
func remove(dir string) error {
	stop(dir)
	layers, err := filepath.Glob(filepath.Join(dir, "*", "fs"))
	for _, l := range layers {
		if uerr := unmount(l); uerr != nil {
			err = errors.Join(err, uerr)
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// stop has a process end its fetching, and so itself once it is unmounted.
func stop(dir string) {
	if !alive(dir) {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, pidName))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
}

func unmount(dir string) error {
	for range 16 {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil // not mounted
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
	return nil
}

// readyTime bounds how long the tables of contents may take.
const readyTime = 2 * time.Minute

// Start has program, run as argv with the job's directory behind it and input as
// its standard input, show a job. It returns when containers can be started. A job
// of the same target that is shown already is kept.
func (i *Images) Start(ctx context.Context, j Job, program string, argv []string, input []byte) error {
	dir := i.dirOf(j)
	i.mu.Lock()
	_, there := i.jobs[dir]
	i.mu.Unlock()
	if there && alive(dir) {
		return nil
	}
	if err := remove(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(j)
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, jobName), data, 0o600)
	}
	if err == nil {
		err = spawn(ctx, dir, program, argv, input)
	}
	if err != nil {
		return errors.Join(err, remove(dir))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.jobs[dir] = j
	return nil
}

func (i *Images) dirOf(j Job) string { return filepath.Join(i.dir, j.Target.Encoded()[:40]) }

// spawn starts the process, in a session of its own so that it outlives this one.
func spawn(ctx context.Context, dir, program string, argv []string, input []byte) error {
	logs, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := &exec.Cmd{Path: program, Args: append(argv, dir), Stderr: logs, Stdout: w, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	w.Close()
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // nobody's child becomes a zombie
	if _, err := in.Write(input); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	timer := time.AfterFunc(readyTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case line == "ready\n":
		return nil
	case strings.TrimSpace(line) != "":
		return errs.New(errs.Unavailable, "%s", strings.TrimSpace(line))
	}
	return fmt.Errorf("the process that shows %s ended: %w", dir, err)
}

// Dead returns the jobs that containers want and nobody serves any more.
func (i *Images) Dead() []Job { return i.dead }

// Find returns the job that is shown under a full name or of a target.
func (i *Images) Find(is func(Job) bool) (Job, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, j := range i.jobs {
		if is(j) {
			return j, true
		}
	}
	return Job{}, false
}

// Jobs returns what is being shown.
func (i *Images) Jobs() []Job {
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []Job
	for _, j := range i.jobs {
		list = append(list, j)
	}
	return list
}

// Lower returns the directories of a job's layers, topmost first.
func (i *Images) Lower(j Job) []string {
	var out []string
	for n := len(j.Layers) - 1; n >= 0; n-- {
		out = append(out, layerDir(i.dirOf(j), n))
	}
	return out
}

// Blob returns where a complete layer's blob is.
func (i *Images) Blob(j Job, n int) string { return blobPath(i.dirOf(j), n) }

// Wait returns when all blobs of a job are complete. errs.Unavailable if its
// process has ended before. came is told of each layer whose blob is complete, once,
// as soon as it is.
func (i *Images) Wait(ctx context.Context, j Job, came func(n int)) error {
	dir := i.dirOf(j)
	told := make([]bool, len(j.Layers))
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		// Looked at first: it may end as soon as it has left word.
		lives := alive(dir)
		if _, err := os.Stat(filepath.Join(dir, filledName)); err == nil {
			return nil
		}
		for n := range told {
			if _, err := os.Stat(wordPath(dir, n)); err == nil && !told[n] {
				told[n] = true
				came(n)
			}
		}
		if !lives {
			return errs.New(errs.Unavailable, "the process that shows %s has ended", j.Name)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Settle replaces what is shown by the unpacked layers, lowest first, for whoever
// starts from now on, and frees the blobs. Who runs keeps what it has.
func (i *Images) Settle(j Job, layers []string) error {
	dir := i.dirOf(j)
	if len(layers) != len(j.Layers) {
		return errs.New(errs.Invalid, "%d layers for %d", len(layers), len(j.Layers))
	}
	for n, to := range layers {
		at := layerDir(dir, n)
		link := at + ".new"
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(to, link); err != nil {
			return err
		}
		if err := unmount(at); err != nil {
			return err
		}
		if err := os.Remove(at); err != nil {
			return err
		}
		if err := os.Rename(link, at); err != nil {
			return err
		}
		if err := os.Remove(blobPath(dir, n)); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.jobs, dir)
	return nil
}

// Remove ends the showing of a job.
func (i *Images) Remove(j Job) error {
	i.mu.Lock()
	delete(i.jobs, i.dirOf(j))
	i.mu.Unlock()
	return remove(i.dirOf(j))
}
