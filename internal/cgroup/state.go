package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// freezePoll is how often the freezer's state is read while it settles.
const freezePoll = 200 * time.Microsecond

// Freeze stops every process of the group and returns when all have stopped.
func (g *Group) Freeze(ctx context.Context) error { return g.freezer(ctx, true) }

// Thaw lets the group's processes run again.
func (g *Group) Thaw(ctx context.Context) error { return g.freezer(ctx, false) }

func (g *Group) freezer(ctx context.Context, frozen bool) error {
	if frozen {
		if err := guard(g, "freeze"); err != nil {
			return err
		}
	}
	file, value, settled := g.freezerFile(frozen)
	if file == "" {
		return errs.New(errs.Unsupported, "freeze cgroup %s: no freezer on this host", g.path)
	}
	verb := map[bool]string{true: "freeze", false: "thaw"}[frozen]
	if err := writeFile(file, []byte(value)); err != nil {
		return fmt.Errorf("%s cgroup %s: %w", verb, g.path, err)
	}
	for pause, n := freezePoll, 1; ; pause, n = min(2*pause, 20*time.Millisecond), n+1 {
		done, err := settled()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s cgroup %s: %w", verb, g.path, context.Cause(ctx))
		case <-time.After(pause):
		}
		// A v1 freezer can stick in FREEZING when a process forks
		// meanwhile; writing again makes it look again. One that waits
		// for another which is frozen already (vfork(2)) gets no further
		// before both have run a little.
		if frozen && g.host.Mode != V2 {
			if n%25 == 0 {
				if err := writeFile(file, []byte("THAWED")); err != nil {
					return fmt.Errorf("%s cgroup %s: %w", verb, g.path, err)
				}
				time.Sleep(freezePoll)
			}
			if err := writeFile(file, []byte(value)); err != nil {
				return fmt.Errorf("%s cgroup %s: %w", verb, g.path, err)
			}
		}
	}
}

// freezerFile returns the file to write, the value, and how to tell that the
// state has been reached.
func (g *Group) freezerFile(frozen bool) (file, value string, settled func() (bool, error)) {
	if dir := g.dir("freezer"); dir != "" {
		file, value = filepath.Join(dir, "freezer.state"), "THAWED"
		if frozen {
			value = "FROZEN"
		}
		return file, value, func() (bool, error) {
			b, err := os.ReadFile(file)
			return strings.TrimSpace(string(b)) == value, err
		}
	}
	dir := g.dir("")
	if dir == "" {
		return "", "", nil
	}
	value = "0"
	if frozen {
		value = "1"
	}
	return filepath.Join(dir, "cgroup.freeze"), value, func() (bool, error) {
		m, err := readKeyed(filepath.Join(dir, "cgroup.events"))
		return strconv.FormatUint(m["frozen"], 10) == value, err
	}
}

// OOMKills returns how many processes of the group and below it the kernel's
// OOM killer has ended.
func (g *Group) OOMKills() (uint64, error) {
	file := filepath.Join(g.dir("memory"), "memory.oom_control")
	if g.host.Mode == V2 {
		file = filepath.Join(g.dir(""), "memory.events")
	} else if g.dir("memory") == "" {
		return 0, nil
	}
	m, err := readKeyed(file)
	if err != nil {
		return 0, fmt.Errorf("read OOM kills of cgroup %s: %w", g.path, ignoreGone(err))
	}
	return m["oom_kill"], nil
}

// WatchOOM returns a file that becomes readable when the group may have run out
// of memory: an eventfd on v1 (cgroup-v1/memory.rst, section 9), an inotify
// descriptor on v2. Read it, then compare OOMKills. The caller closes it. It
// returns nil and no error on a host without a memory controller.
func (g *Group) WatchOOM() (*os.File, error) {
	if g.host.Mode == V2 {
		return watchEvents(filepath.Join(g.dir(""), "memory.events"))
	}
	dir := g.dir("memory")
	if dir == "" {
		return nil, nil
	}
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, fmt.Errorf("watch OOM of cgroup %s: %w", g.path, err)
	}
	defer control.Close()
	efd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch OOM of cgroup %s: %w", g.path, err)
	}
	line := fmt.Sprintf("%d %d", efd, control.Fd())
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), []byte(line)); err != nil {
		unix.Close(efd)
		return nil, fmt.Errorf("watch OOM of cgroup %s: %w", g.path, err)
	}
	return os.NewFile(uintptr(efd), "oom"), nil
}

func watchEvents(path string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), "oom"), nil
}

// readKeyed reads a "flat keyed" file: a name and a number on each line.
func readKeyed(path string) (map[string]uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKeyed(string(data)), nil
}

func parseKeyed(data string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(data) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				m[k] = n
			}
		}
	}
	return m
}

// guard refuses to do to everybody what is meant for one container: the root of
// the hierarchies is nobody's group, and neither is one that this process is in.
func guard(g *Group, what string) error {
	if g.path == "/" {
		return errs.New(errs.Invalid, "%s cgroup /: that is the whole host", what)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("%s cgroup %s: %w", what, g.path, err)
	}
	for line := range strings.Lines(string(own)) {
		// "4:memory:/path", "0::/path"
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && (f[2] == g.path || strings.HasPrefix(f[2], g.path+"/")) {
			return errs.New(errs.Invalid, "%s cgroup %s: this process is in it", what, g.path)
		}
	}
	return nil
}

// Kill ends every process in the group with SIGKILL. It does not wait for them.
// It refuses the root group and one that this process is in.
func (g *Group) Kill() error {
	if err := guard(g, "kill"); err != nil {
		return err
	}
	if d := g.dir(""); d != "" {
		if err := writeFile(filepath.Join(d, "cgroup.kill"), []byte("1")); err == nil && g.host.Mode == V2 {
			return nil
		}
	}
	pids, err := g.Procs()
	for _, pid := range pids {
		if e := unix.Kill(pid, unix.SIGKILL); e != nil && e != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("kill process %d of cgroup %s: %w", pid, g.path, e))
		}
	}
	return err
}
