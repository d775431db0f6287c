package ociruntime

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/rootpath"
)

// A hierarchy is one cgroup v1 tree that the host has mounted.
type hierarchy struct {
	name    string   // its directory below /sys/fs/cgroup: "cpu,cpuacct", "systemd"
	options []string // what makes it: "cpu", "cpuacct", or "name=systemd"
	point   string   // where the host has it mounted
	root    string   // the group that is the root of that mount
	own     string   // this process's group in it
}

// parseHierarchies finds the v1 hierarchies in the text of /proc/self/mountinfo
// and this process's groups in that of /proc/self/cgroup (proc(5), cgroups(7)).
func parseHierarchies(mountinfo, cgroups string) []hierarchy {
	groups := map[string]string{} // controllers or name=… → path
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && parts[1] != "" {
			for key := range strings.SplitSeq(parts[1], ",") {
				groups[key] = parts[2]
			}
		}
	}
	var all []hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 || right[0] != "cgroup" {
			continue
		}
		h := hierarchy{root: unescape(left[3]), point: unescape(left[4])}
		h.name = path.Base(h.point)
		for o := range strings.SplitSeq(right[2], ",") {
			if own, isKey := groups[o]; isKey {
				h.options = append(h.options, o)
				h.own = own
			}
		}
		if len(h.options) == 0 || seen[h.name] {
			continue
		}
		seen[h.name] = true
		all = append(all, h)
	}
	return all
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountCgroup mounts what the container may see of the control groups. On v2
// that is one file system. On v1 and hybrid hosts it is a tmpfs with a directory
// for each hierarchy: with a cgroup namespace each is mounted afresh and shows
// the container's group as its root, without one it is a bind mount of that
// group, so that the container sees no other.
func (t *tree) mountCgroup(m *job.Mount) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	all := parseHierarchies(string(info), string(own))
	target, err := t.target(m, true)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if len(all) == 0 || m.Type == "cgroup2" {
		return t.mountCgroup2(m, target)
	}
	readonly := m.Set & unix.MOUNT_ATTR_RDONLY
	top := &job.Mount{Type: "tmpfs", Source: "tmpfs", Set: m.Set &^ readonly, Data: []string{"mode=755"}}
	fd, err := t.newMount(top, target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := attach(fd, target, m.Propagation); err != nil {
		return err
	}
	for _, h := range all {
		if err := t.mountHierarchy(h, m, rootpath.At(fd)); err != nil {
			return fmt.Errorf("hierarchy %s: %w", h.name, err)
		}
	}
	if readonly != 0 {
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	return nil
}

func (t *tree) mountHierarchy(h hierarchy, m *job.Mount, top *rootpath.Root) error {
	var fd int
	var err error
	if t.job.Namespace(unix.CLONE_NEWCGROUP) != nil {
		fd, err = newHierarchy(h)
	} else {
		fd, err = bindHierarchy(h)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.Set|m.Clear != 0 {
		a := unix.MountAttr{Attr_set: m.Set, Attr_clr: m.Clear}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
			return fmt.Errorf("set attributes: %w", err)
		}
	}
	point, err := top.Target(h.name, rootpath.TargetOptions{Dir: true, Perm: 0o755})
	if err != nil {
		return err
	}
	defer unix.Close(point)
	if err := attach(fd, point, 0); err != nil {
		return err
	}
	// Programs look for "cpu" where the host has "cpu,cpuacct".
	if len(h.options) > 1 {
		for _, o := range h.options {
			if err := unix.Symlinkat(h.name, top.Fd(), o); err != nil && err != unix.EEXIST {
				return err
			}
		}
	}
	return nil
}

func newHierarchy(h hierarchy) (int, error) {
	fs, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	options := []string{"source=cgroup"}
	for _, o := range h.options {
		if strings.HasPrefix(o, "name=") {
			options = append(options, "none")
		}
		options = append(options, o)
	}
	for _, o := range options {
		if err := setOption(fs, o); err != nil {
			return -1, fsError(fs, "option "+o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make the file system", err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

func bindHierarchy(h hierarchy) (int, error) {
	rel, ok := strings.CutPrefix(h.own, strings.TrimSuffix(h.root, "/"))
	if !ok {
		rel = "" // not below what the host has mounted: the mount itself is all there is
	}
	return openTree(unix.AT_FDCWD, path.Join(h.point, rel), unix.OPEN_TREE_CLONE)
}

func (t *tree) mountCgroup2(m *job.Mount, target int) error {
	v2 := *m
	v2.Type = "cgroup2"
	v2.Set &^= unix.MOUNT_ATTR_RDONLY // of this mount only: the superblock is the host's
	fd, err := t.newMount(&v2, target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return err
		}
	}
	return attach(fd, target, m.Propagation)
}
