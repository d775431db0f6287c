package extension

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plugin"
)

// How long things may take.
const (
	comeUp    = 30 * time.Second // until its socket answers, if nobody says
	adoptTime = 5 * time.Second  // the same, of one that runs already
	endTime   = 10 * time.Second // from the signal to end until the kill
	steady    = 10 * time.Second // one that has run so long is started again at once
	maxPause  = time.Minute      // between two starts of one that dies
)

// A runner is the goroutine that owns the process of an enabled plugin.
type runner struct {
	rec  record
	at   places
	stop chan struct{} // closed to end the process
	once sync.Once
	done chan struct{} // closed when the goroutine has ended
}

func (r *runner) end() { r.once.Do(func() { close(r.stop) }) }

// places are the directories of a plugin.
func (m Switches) places(key string) places {
	return places{rootfs: m.rootfs(key), propagated: m.propagated(key), sockets: m.sockets(key)}
}

// Start brings the plugins that are enabled up, beside each other, and returns
// when each answers or has failed; what has failed is tried again behind it.
func (m Switches) Start(ctx context.Context) {
	var wg sync.WaitGroup
	for _, key := range m.Containers() {
		it := m.list[key]
		if !it.rec.Enabled {
			m.o.Plugins.Off(it.rec.Name)
			// A crash may have come before the record.
			if err := m.o.Launcher.Teardown(ctx, key); err != nil {
				m.o.Log.Warn("left-overs of a plugin stay", "name", it.rec.Name, "err", err)
			}
			continue
		}
		wg.Go(func() { m.resume(ctx, it) })
	}
	wg.Wait()
}

// resume takes a plugin's process over, or starts another.
func (m Switches) resume(ctx context.Context, it *item) {
	it.change.Lock()
	defer it.change.Unlock()
	rec, at := it.rec, m.places(it.rec.ID)
	running, err := m.o.Launcher.Adopt(ctx, rec.ID)
	if err == nil {
		if err = m.await(ctx, rec, at, adoptTime); err != nil {
			running.Client.Close()
			running = nil
		}
	}
	if err != nil {
		running, err = m.launch(ctx, rec, at)
		if err == nil {
			err = m.await(ctx, rec, at, adoptTime)
		}
	}
	if err != nil {
		m.o.Log.Warn("a plugin is not up yet", "name", rec.Name, "err", err)
		m.announce(rec, at)
	}
	m.supervise(it, running)
}

// launch starts a plugin's process, after whatever is left of the one before.
func (m Switches) launch(ctx context.Context, rec record, at places) (*launch.Running, error) {
	if err := m.o.Launcher.Teardown(ctx, rec.ID); err != nil {
		return nil, err
	}
	if err := m.prepare(rec, at); err != nil {
		return nil, err
	}
	in, err := input(rec, at, m.o.Defaults())
	if err != nil {
		return nil, err
	}
	r, err := m.o.Launcher.Prepare(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := m.o.Launcher.Release(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// prepare makes the directories that a plugin is given.
func (m Switches) prepare(rec record, at places) error {
	if err := os.RemoveAll(at.sockets); err != nil { // of the process before
		return err
	}
	if err := os.MkdirAll(at.sockets, 0o700); err != nil {
		return err
	}
	if u := rec.Config.User; u.UID != 0 || u.GID != 0 {
		if err := os.Chown(at.sockets, int(u.UID), int(u.GID)); err != nil {
			return err
		}
	}
	if rec.Config.PropagatedMount == "" {
		return nil
	}
	// What the plugin mounts there shall be seen by the host: the directory has
	// to be a shared mount. One that outlived its process is made anew.
	unshare(at.propagated)
	if err := os.MkdirAll(at.propagated, 0o755); err != nil {
		return err
	}
	err := unix.Mount(at.propagated, at.propagated, "", unix.MS_BIND|unix.MS_REC, "")
	if err == nil {
		err = unix.Mount("", at.propagated, "", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("propagated mount: %w", err)
	}
	return nil
}

// await waits until the plugin listens, and makes it known.
func (m Switches) await(ctx context.Context, rec record, at places, within time.Duration) error {
	e, ok := endpoint(rec, at)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := answers(ctx, e.Address)
		if err == nil {
			m.o.Plugins.Add(rec.Name, e)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "plugin %s does not listen after %v: %w%s", rec.Name, within, err, m.lastWords(rec.ID))
		}
	}
}

// answers returns nil if somebody listens at a plugin's socket.
func answers(ctx context.Context, path string) error {
	c, err := plugin.DialSocket(ctx, path)
	if err != nil {
		return err
	}
	return c.Close()
}

// maxWords bounds what of a plugin's output is shown, in bytes.
const maxWords = 1 << 10

// lastWords is the end of what a plugin has written, for an error.
func (m Switches) lastWords(key string) string {
	f, err := os.Open(filepath.Join(m.o.Root, "containers", key, key+"-json.log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return ""
	}
	n := min(st.Size(), maxWords)
	buf := make([]byte, n)
	if _, err := f.ReadAt(buf, st.Size()-n); err != nil {
		return ""
	}
	return "; it wrote: " + string(buf)
}

// supervise has a goroutine own the plugin's process; running is nil if it has to
// be started first. it.change is held.
func (m Switches) supervise(it *item, running *launch.Running) {
	r := &runner{rec: it.rec, at: m.places(it.rec.ID), stop: make(chan struct{}), done: make(chan struct{})}
	m.mu.Lock()
	it.run = r
	m.mu.Unlock()
	go func() {
		defer close(r.done)
		m.own(r, running)
	}()
}

// own keeps a plugin running until it is to stop, or the manager closes.
func (m Switches) own(r *runner, running *launch.Running) {
	for pause := 100 * time.Millisecond; ; {
		began := time.Now()
		if running != nil {
			again := m.attend(r, running)
			if !again {
				return
			}
			m.o.Log.Warn("a plugin has ended and is started again", "name", r.rec.Name)
		}
		if time.Since(began) > steady {
			pause = 100 * time.Millisecond
		}
		select {
		case <-r.stop:
			return
		case <-m.ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
		var err error
		if running, err = m.launch(m.ctx, r.rec, r.at); err != nil {
			m.o.Log.Warn("a plugin can't be started", "name", r.rec.Name, "err", err)
			running = nil
			continue
		}
		m.announce(r.rec, r.at)
	}
}

// announce makes a plugin known that may not listen yet: calls wait a while.
func (m Switches) announce(rec record, at places) {
	if e, ok := endpoint(rec, at); ok {
		m.o.Plugins.Add(rec.Name, e)
	}
}

// attend waits for the end of a process, and cleans up after it. False: it was to
// end, or the manager closes and the process goes on.
func (m Switches) attend(r *runner, running *launch.Running) (again bool) {
	ctx := context.WithoutCancel(m.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = running.Client.Wait(ctx) // however it has ended
	}()
	defer func() {
		running.Client.Close()
		<-ended
	}()
	again = true
	select {
	case <-ended:
	case <-m.ctx.Done():
		return false
	case <-r.stop:
		again = false
		_ = running.Client.Signal(ctx, int(syscall.SIGTERM))
		select {
		case <-ended:
		case <-time.After(endTime):
		} // the teardown kills it
	}
	if m.ctx.Err() != nil && again {
		return false // the connection was closed, or the next daemon finds it dead
	}
	end, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	_ = running.Client.Shutdown(end) // it may be gone
	if err := m.o.Launcher.Teardown(ctx, r.rec.ID); err != nil {
		m.o.Log.Warn("left-overs of a plugin stay", "name", r.rec.Name, "err", err)
	}
	return again
}

// Enable starts a plugin and returns when it listens, which may take so long; zero
// for the usual time.
func (m Switches) Enable(ctx context.Context, ref string, within time.Duration) error {
	it, done, err := m.begin(ref)
	if err != nil {
		return err
	}
	defer done()
	rec, at := it.rec, m.places(it.rec.ID)
	if rec.Enabled {
		return errs.New(errs.Conflict, "plugin already enabled: plugin %s is enabled", rec.Name)
	}
	if err := supported(rec); err != nil {
		return err
	}
	if within <= 0 {
		within = comeUp
	}
	running, err := m.launch(ctx, rec, at)
	if err == nil {
		err = m.await(ctx, rec, at, within)
	}
	if err == nil {
		rec.Enabled = true
		err = m.save(it, rec)
	}
	if err != nil {
		m.o.Plugins.Off(rec.Name)
		undo := context.WithoutCancel(ctx)
		if running != nil {
			running.Client.Close()
		}
		return errors.Join(err, m.o.Launcher.Teardown(undo, rec.ID))
	}
	m.supervise(it, running)
	m.publish("enable", rec.ID, rec.Name)
	return nil
}

// DisableOptions say how to disable a plugin.
type DisableOptions struct {
	Force bool // though it is in use
}

// Disable ends a plugin. errs.Conflict if volumes or networks use it.
func (m Switches) Disable(ctx context.Context, ref string, o DisableOptions) error {
	it, done, err := m.begin(ref)
	if err != nil {
		return err
	}
	defer done()
	if !it.rec.Enabled {
		return errs.New(errs.Conflict, "plugin is already disabled: plugin %s found but disabled", it.rec.Name)
	}
	if !o.Force {
		if err := m.unused(ctx, it.rec.Name); err != nil {
			return err
		}
	}
	return m.disable(ctx, it)
}

// unused returns an error if something uses a plugin.
func (m Switches) unused(ctx context.Context, name string) error {
	n, err := m.o.Users(ctx, name)
	if err != nil {
		return err
	}
	if n > 0 {
		return errs.New(errs.Conflict, "plugin %s is in use", name)
	}
	return nil
}

// disable ends a plugin's process, once it is on disk that it shall not run.
// it.change is held.
func (m Switches) disable(_ context.Context, it *item) error {
	rec := it.rec
	rec.Enabled = false
	if err := m.save(it, rec); err != nil {
		return err
	}
	m.o.Plugins.Off(rec.Name)
	m.halt(it)
	unshare(m.propagated(rec.ID))
	m.publish("disable", rec.ID, rec.Name)
	return nil
}

// halt ends the process of a plugin, and waits for that.
func (m Switches) halt(it *item) {
	m.mu.Lock()
	r := it.run
	it.run = nil
	m.mu.Unlock()
	if r != nil {
		r.end()
		<-r.done
	}
}

// Halt ends the processes of all plugins; those that are enabled start again with
// the next daemon.
func (m Switches) Halt() {
	m.mu.Lock()
	var all []*item
	for _, it := range m.list {
		all = append(all, it)
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, it := range all {
		wg.Go(func() {
			m.halt(it)
			unshare(m.propagated(it.rec.ID))
		})
	}
	wg.Wait()
}

// Close ends what the manager does. Processes that run go on.
func (m Switches) Close() {
	m.cancel()
	m.mu.Lock()
	var all []*runner
	for _, it := range m.list {
		if it.run != nil {
			all = append(all, it.run)
		}
	}
	m.mu.Unlock()
	for _, r := range all {
		<-r.done
	}
}
