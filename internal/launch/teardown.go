package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/shim"
)

// endWait bounds how long a shim may take to end when it is told to.
const endWait = 10 * time.Second

// Teardown undoes a launch: the process with its shim and control group, the
// network, the mounts of volumes, the run directory. The container's own files
// and its log stay. What is not there any more is no error.
func (l *Launcher) Teardown(ctx context.Context, id string) error {
	if err := l.fail("teardown"); err != nil {
		return err
	}
	var all []error
	for _, s := range []step{
		{name: "process", undo: func(ctx context.Context) error { return l.endProcess(ctx, id) }},
		{name: "network", undo: func(ctx context.Context) error { return l.o.Networks.Detach(ctx, id) }},
		{name: "volumes", undo: func(ctx context.Context) error { return l.o.Volumes.Unmount(ctx, id) }},
		{name: "users", undo: func(context.Context) error { return l.releaseUsers(id) }},
	} {
		if err := l.fail("undo " + s.name); err != nil {
			return err
		}
		if err := s.undo(ctx); err != nil {
			all = append(all, fmt.Errorf("undo %s: %w", s.name, err))
		}
	}
	if len(all) > 0 {
		return fmt.Errorf("tear down %s: %w", id, errors.Join(all...))
	}
	return nil
}

// endProcess ends what may be left of a container's processes, and their shim.
func (l *Launcher) endProcess(ctx context.Context, id string) error {
	dir := l.runDir(id)
	group := l.Cgroup(id, nil)
	if err := killAll(ctx, group); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, shim.SocketFile)); err == nil {
		endShim(ctx, dir)
	}
	if group.Exists() {
		if err := group.Remove(); err != nil && group.Exists() {
			return err
		}
	}
	if err := unmountImages(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return nil
}

// killAll kills the processes of a group. A frozen one dies when it thaws.
func killAll(ctx context.Context, group *Group) error {
	if !group.Exists() {
		return nil
	}
	if err := group.Kill(); err != nil && !vanished(err) && group.Exists() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	if err := group.Thaw(ctx); err != nil && !vanished(err) && group.Exists() && !errs.Is(err, errs.Unsupported) {
		return err
	}
	return nil
}

// vanished tells that a group was removed while it was looked at, as its shim
// does in one hierarchy after the other.
func vanished(err error) bool {
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, fs.ErrNotExist)
}

// endShim tells a shim that may be there to end its container and itself. One
// that does not answer is gone, or its processes have been killed and it ends by
// itself.
func endShim(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	c, err := shim.Dial(ctx, dir)
	if err != nil {
		return
	}
	defer c.Close()
	// Each may fail since the process is gone, which is what is wanted.
	_ = c.Signal(ctx, int(syscall.SIGKILL))
	if _, err := c.Wait(ctx); err == nil || errs.Is(err, errs.NotFound) {
		_ = c.Shutdown(ctx)
	}
}

// Destroy removes a container's own files. It must have been torn down.
func (l *Launcher) Destroy(_ context.Context, id string) error {
	if err := l.fail("destroy"); err != nil {
		return err
	}
	if l.o.Quota != nil {
		// A limit that stays is no harm: its number is free without files.
		_ = l.o.Quota.Release(filepath.Join(l.dir(id), "upper"))
	}
	// Whoever reads or writes the files of a container that is going, a copy
	// for example, may make one more meanwhile.
	var err error
	for range 20 {
		if err = os.RemoveAll(l.dir(id)); !errors.Is(err, syscall.ENOTEMPTY) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("remove the files of %s: %w", id, err)
	}
	return nil
}

// Existing returns the IDs of all containers that something of a launch exists
// of: directories or control groups.
func (l *Launcher) Existing() ([]string, error) {
	seen := map[string]bool{}
	var all []error
	for _, dir := range append(cgroupDirs(l), filepath.Join(l.o.Root, "containers"), filepath.Join(l.o.RunDir, "c")) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
		for _, e := range entries {
			if name := l.owner(e.Name()); e.IsDir() && id.Valid(name) {
				seen[name] = true
			}
		}
	}
	ids := make([]string, 0, len(seen))
	for name := range seen {
		ids = append(ids, name)
	}
	slices.Sort(ids)
	return ids, errors.Join(all...)
}

// Sweep removes what is left of containers that are not known, and what of a
// launch is left of known ones that are not up.
func (l *Launcher) Sweep(ctx context.Context, known, up []string) error {
	ids, err := l.Existing()
	all := []error{err}
	for _, id := range ids {
		if slices.Contains(known, id) {
			continue
		}
		if err := l.Teardown(ctx, id); err != nil {
			all = append(all, err)
			continue
		}
		all = append(all, l.Destroy(ctx, id))
	}
	if r, ok := l.o.Networks.(reconciler); ok {
		all = append(all, r.Reconcile(ctx, up))
	}
	return errors.Join(all...)
}

// reconciler is a network that can remove what belongs to no living container.
type reconciler interface {
	Reconcile(ctx context.Context, alive []string) error
}
