// Package cgroup puts a container's processes into control groups, limits them
// and reads what they use, on hosts with cgroup v1, v2, or v1 controllers with
// an empty v2 tree beside them (hybrid).
//
// A Host is what the kernel has mounted; a Group is one path below every
// hierarchy. The shim creates, fills and removes a group; the daemon reads and
// changes it by the same path. What to write where is decided by pure
// functions (writesV1, writesV2, deviceProgram); this package writes only below
// the cgroup file systems. It must not know of containers: the path is the
// caller's. Sources: Linux Documentation/admin-guide/cgroup-v1 and
// cgroup-v2.rst; OCI runtime-spec 1.3, config-linux.md.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Mode is how a host mounts its control groups.
type Mode uint8

// The modes. In Hybrid the controllers are in v1 hierarchies and a v2 tree
// without controllers is mounted beside them.
const (
	None Mode = iota
	V1
	Hybrid
	V2
)

// String returns the mode as docker info's CgroupVersion says it: "1" or "2".
func (m Mode) String() string {
	switch m {
	case V1, Hybrid:
		return "1"
	case V2:
		return "2"
	}
	return ""
}

// A Host is the set of cgroup hierarchies of this machine, as mounted.
type Host struct {
	Mode Mode
	// V1 gives the mount point of each v1 controller; named hierarchies
	// are keyed "name=systemd" and so on.
	V1 map[string]string
	// V2 is the mount point of the unified hierarchy, empty if there is none.
	V2 string
}

// Detect reads which hierarchies are mounted (proc(5), mountinfo).
func Detect() (*Host, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	h := parseMountinfo(bufio.NewScanner(f))
	if h.Mode == None {
		return nil, errs.New(errs.Unsupported, "find cgroups: no cgroup hierarchy is mounted on this host")
	}
	return h, nil
}

func parseMountinfo(sc *bufio.Scanner) *Host {
	h := &Host{V1: map[string]string{}}
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields, tail := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		switch point := fields[4]; tail[0] {
		case "cgroup2":
			if h.V2 == "" {
				h.V2 = point
			}
		case "cgroup":
			for _, opt := range strings.Split(tail[2], ",") {
				if isController(opt) && h.V1[opt] == "" {
					h.V1[opt] = point
				}
			}
		}
	}
	_, memory := h.V1["memory"]
	_, cpu := h.V1["cpu"]
	switch {
	case h.V2 != "" && !memory && !cpu:
		h.Mode = V2
		h.V1 = map[string]string{}
	case h.V2 != "" && len(h.V1) > 0:
		h.Mode = Hybrid
	case len(h.V1) > 0:
		h.Mode = V1
	}
	return h
}

// isController tells controllers and names from the other options of a v1
// hierarchy's super block.
func isController(opt string) bool {
	switch opt {
	case "rw", "ro", "xattr", "clone_children", "noprefix", "release_agent", "cpuset_v2_mode", "none", "favordynmods":
		return false
	}
	return !strings.HasPrefix(opt, "release_agent=")
}

// A Group is one control group: the same path in every hierarchy.
type Group struct {
	host *Host
	path string
	unit *unit // with the systemd driver
}

// Group returns the group at path, which starts with a slash and is relative to
// the root of every hierarchy. Nothing is created.
func (h *Host) Group(path string) *Group {
	return &Group{host: h, path: filepath.Clean("/" + path)}
}

// Path returns the path below each hierarchy.
func (g *Group) Path() string { return g.path }

// dir returns the directory of the group for a v1 controller, or of the v2
// tree for "". It returns "" if the hierarchy is not mounted.
func (g *Group) dir(controller string) string {
	root := g.host.V2
	if controller != "" {
		root = g.host.V1[controller]
	}
	if root == "" {
		return ""
	}
	return filepath.Join(root, g.path)
}

// dirs returns every directory of the group, each once.
func (g *Group) dirs() []string {
	var all []string
	for c := range g.host.V1 {
		all = append(all, g.dir(c))
	}
	if g.host.V2 != "" {
		all = append(all, g.dir(""))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Create makes the group in every hierarchy and sets res, which may be nil. A
// limit that this kernel has no file for is Unsupported. What was made is
// removed again on error.
func (g *Group) Create(res *specs.LinuxResources) (err error) {
	if g.path == "/" {
		return errs.New(errs.Invalid, "create cgroup /: a container needs a group of its own")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("create cgroup %s: %w", g.path, errors.Join(err, g.Remove()))
		}
	}()
	if g.unit != nil {
		// A scope needs a process to begin: Add makes it.
		g.unit.pending = res
		return nil
	}
	if g.host.Mode == V2 {
		if err := enableControllers(g.host.V2, g.path); err != nil {
			return err
		}
	}
	for _, d := range g.dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if root := g.host.V1["cpuset"]; root != "" {
		if err := inheritCpuset(root, g.path); err != nil {
			return err
		}
	}
	return g.set(res)
}

// Update changes the limits that res names and leaves the others. Devices are
// replaced as a whole where res has any.
func (g *Group) Update(res *specs.LinuxResources) error {
	if g.unit != nil && res != nil {
		if err := g.unit.update(res, g.host.Mode == V2); err != nil {
			return fmt.Errorf("update cgroup %s: %w", g.path, err)
		}
	}
	if err := g.set(res); err != nil {
		return fmt.Errorf("update cgroup %s: %w", g.path, err)
	}
	return nil
}

func (g *Group) set(res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	if g.host.Mode == V2 {
		ws, err := writesV2(res)
		if err != nil {
			return err
		}
		if err := g.apply(ws); err != nil {
			return err
		}
		if len(res.Devices) > 0 {
			return attachDeviceProgram(g.dir(""), res.Devices)
		}
		return nil
	}
	ws, err := writesV1(res)
	if err != nil {
		return err
	}
	return g.apply(ws)
}

// Add moves a process, by its pid as this process sees it, into the group.
func (g *Group) Add(pid int) error {
	if g.unit != nil && !g.unit.started && !g.Exists() {
		return g.start(pid)
	}
	return g.join(pid)
}

func (g *Group) join(pid int) error {
	value := []byte(strconv.Itoa(pid))
	for _, d := range g.dirs() {
		if err := writeFile(filepath.Join(d, "cgroup.procs"), value); err != nil {
			return fmt.Errorf("move process %d to cgroup %s: %w", pid, g.path, err)
		}
	}
	return nil
}

// OpenDir opens the group's directory in the v2 tree, for clone3(2) with
// CLONE_INTO_CGROUP. Where that can't be, on other hosts and for a systemd scope
// that has not begun, it returns nil and no error: use Add.
func (g *Group) OpenDir() (*os.File, error) {
	if g.host.Mode != V2 || g.unit != nil && !g.Exists() {
		return nil, nil
	}
	fd, err := unix.Open(g.dir(""), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", g.path, err)
	}
	return os.NewFile(uintptr(fd), g.path), nil
}

// Exists reports whether the group is there, in any hierarchy.
func (g *Group) Exists() bool {
	return slices.ContainsFunc(g.dirs(), func(d string) bool {
		_, err := os.Stat(d)
		return err == nil
	})
}

// Procs returns the pids of all processes in the group and below it.
func (g *Group) Procs() ([]int, error) {
	top := g.dir("")
	if g.host.Mode == V1 {
		for _, c := range []string{"pids", "freezer", "memory", "devices"} {
			if top = g.dir(c); top != "" {
				break
			}
		}
	}
	var pids []int
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		data, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// removeWait is how long Remove waits for killed processes to be gone.
const removeWait = 2 * time.Second

// Remove deletes the group and the groups below it from every hierarchy. Its
// processes must have ended; dying ones are waited for, up to two seconds. A
// group that does not exist is no error.
func (g *Group) Remove() error {
	if g.path == "/" {
		return errs.New(errs.Invalid, "remove cgroup /: that is the whole host")
	}
	if g.unit != nil && !goneWithin(g, 200*time.Millisecond) {
		if err := g.unit.stop(); err != nil {
			return fmt.Errorf("remove cgroup %s: stop unit %s: %w", g.path, g.unit.name, err)
		}
	}
	deadline := time.Now().Add(removeWait)
	for pause := 500 * time.Microsecond; ; pause *= 2 {
		var err error
		for _, d := range g.dirs() {
			err = errors.Join(err, removeTree(d))
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", g.path, err)
		}
		time.Sleep(min(pause, 50*time.Millisecond))
	}
}

// goneWithin waits for the group to go away by itself.
func goneWithin(g *Group, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); g.Exists(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// removeTree removes a directory of a cgroup file system: files in it can't be
// unlinked, only directories removed, deepest first.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	switch err {
	case nil, unix.ENOENT:
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return ignoreGone(rerr)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err = unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return fmt.Errorf("rmdir %s: %w", dir, err)
	}
	return nil
}

// enableControllers delegates every controller that the v2 root has, level by
// level, down to the parent of path.
func enableControllers(root, path string) error {
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	controllers := strings.Fields(string(data))
	dir := root
	for _, part := range append([]string{""}, strings.Split(strings.Trim(filepath.Dir(path), "/"), "/")...) {
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := enableIn(dir, controllers); err != nil {
			return err
		}
	}
	return nil
}

func enableIn(dir string, controllers []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	on := strings.Fields(string(have))
	for _, c := range controllers {
		if slices.Contains(on, c) {
			continue
		}
		// One at a time: a controller that can't be had here (cpu with
		// realtime processes, say) must not cost the others.
		err := writeFile(file, []byte("+"+c))
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("enable controller %s in %s: the group has processes of its own; move them to a child group first: %w", c, dir, err)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// inheritCpuset gives each level of path that has no cpus or memory nodes yet
// those of its parent: a v1 cpuset without them takes no process.
func inheritCpuset(root, path string) error {
	dir := root
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(own)) != "" {
				continue
			}
			inherited, err := os.ReadFile(filepath.Join(parent, name))
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(dir, name), inherited); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFile writes to an existing file of a cgroup file system in one write(2).
func writeFile(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, data)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", data, path, err)
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
