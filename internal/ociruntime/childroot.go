package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/rootpath"
)

// prepareRoot attaches the container's root and everything below it, while the
// host's file systems can still be reached. Every target is a descriptor.
func (c *child) prepareRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mount namespace's mounts slaves: %w", err)
	}
	if err := c.attachRoot(); err != nil {
		return err
	}
	ownDev := true
	for i := range c.job.Mounts {
		m := &c.job.Mounts[i]
		if err := c.mount(m, int(c.s.mounts[i])); err != nil {
			return fmt.Errorf("mount %s (%s) at %s: %w", m.Source, m.Type, m.Target, err)
		}
		if m.Target == "/dev" && m.Type == "bind" {
			ownDev = false // the host's, or a prepared one: nothing to add
		}
	}
	if ownDev {
		if err := c.devices(); err != nil {
			return err
		}
	}
	if c.proc.Terminal {
		if err := c.openConsole(); err != nil {
			return err
		}
		if ownDev {
			if err := c.mountConsole(); err != nil {
				return fmt.Errorf("mount /dev/console: %w", err)
			}
		}
	}
	if err := c.sysctls(); err != nil {
		return err
	}
	for _, p := range c.job.ReadonlyPaths {
		if err := c.readonly(p); err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	return c.maskPaths()
}

// attachRoot puts the root file system into the mount namespace: where the
// bundle has it, so that hooks find it, or over "/" (which is still the old root
// for everybody who is in it). pivot_root(2) wants it attached somewhere.
func (c *child) attachRoot() error {
	if err := leaveInitramfs(); err != nil {
		return err
	}
	if !c.s.rootHere {
		return c.mountRootOld()
	}
	fd := int(c.s.root)
	at := "/"
	if c.job.Root.Overlay == nil {
		at = c.job.Root.Path
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root file system: %w", err)
	}
	// In the same peer group as the host's, pivot_root would refuse it and our
	// mounts would spread.
	a := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
		return fmt.Errorf("make the root file system private: %w", err)
	}
	c.root = rootpath.At(fd)
	return nil
}

// mountRootOld mounts the overlay with mount(2), over its own upper layer in
// this private namespace, for kernels whose fsconfig(2) can't name layers.
func (c *child) mountRootOld() error {
	o := c.job.Root.Overlay
	opts := append([]string{"lowerdir=" + strings.Join(o.Lower, ":")}, o.Options...)
	at := o.Lower[0]
	if o.Upper != "" {
		opts = append(opts, "upperdir="+o.Upper, "workdir="+o.Work)
		at = o.Upper
	}
	if err := unix.Mount("overlay", at, "overlay", 0, strings.Join(opts, ",")); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", at, err)
	}
	if err := unix.Mount("", at, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the root file system private: %w", err)
	}
	root, err := rootpath.Open(at)
	if err != nil {
		return err
	}
	c.root = root
	return nil
}

// leaveInitramfs makes pivot_root(2) possible on a machine that still runs from
// its initramfs, whose root is attached nowhere: the process goes into a bind
// mount of the root over the root.
func leaveInitramfs() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil || fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	fd, err := openTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone the initial root: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the initial root to itself: %w", err)
	}
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// mount makes one mount. source is a detached bind mount, or -1.
func (c *child) mount(m *job.Mount, source int) error {
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		return c.mountCgroup(m)
	}
	isDir := true
	if source >= 0 {
		var st unix.Stat_t
		if err := unix.Fstat(source, &st); err != nil {
			return err
		}
		isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	target, err := c.target(m, isDir)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd := source
	if fd < 0 {
		if fd, err = c.newMount(m, target); err != nil || fd < 0 {
			return err
		}
		if m.Type == "devpts" && c.devpts < 0 {
			c.devpts = fd
		} else {
			defer unix.Close(fd)
		}
	} else {
		defer unix.Close(fd)
	}
	return attach(fd, target, m.Propagation)
}

// attach moves a detached mount onto target and sets its propagation.
func attach(fd, target int, propagation uint32) error {
	if err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if propagation == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if propagation&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	a := unix.MountAttr{Propagation: uint64(propagation &^ unix.MS_REC)}
	if err := unix.MountSetattr(fd, "", flags, &a); err != nil {
		return fmt.Errorf("set propagation: %w", err)
	}
	return nil
}

// target opens the mount point and checks that the image has not bent it into
// procfs, whose mounts decide what the container may see (CVE-2019-19921).
func (c *child) target(m *job.Mount, isDir bool) (int, error) { //nolint:revive // isDir is a fact of the source
	nofollow := m.TargetNoFollow || m.Type == "proc" || m.Type == "sysfs"
	fd, err := c.root.Target(m.Target, rootpath.TargetOptions{Dir: isDir, Perm: 0o755, NoFollow: nofollow})
	if err != nil {
		return -1, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.PROC_SUPER_MAGIC && m.Type != "proc" && !strings.HasPrefix(m.Target, "/proc/") {
		unix.Close(fd)
		return -1, errors.New("the mount point leads into /proc")
	}
	return fd, nil
}

// newMount makes a new file system, detached. It returns -1 when it had to be
// mounted directly because its options are too long for fsconfig(2).
func (c *child) newMount(m *job.Mount, target int) (int, error) {
	for _, o := range m.Data {
		if _, value, _ := strings.Cut(o, "="); len(value) > maxFsString {
			return -1, oldMount(m, target)
		}
	}
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("file system type %q: %w", m.Type, err)
	}
	defer unix.Close(fs)
	source := m.Source
	if source == "" {
		source = m.Type
	}
	if len(source) > maxFsString {
		return -1, oldMount(m, target)
	}
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return -1, fsError(fs, "source", err)
	}
	for _, o := range m.Data {
		if err := setOption(fs, o); err != nil {
			return -1, fsError(fs, "option "+strconv.Quote(o), err)
		}
	}
	for _, f := range fsFlags {
		if m.Flags&f.flag != 0 {
			if err := unix.FsconfigSetFlag(fs, f.name); err != nil {
				return -1, fsError(fs, "option "+f.name, err)
			}
		}
	}
	if m.Set&unix.MOUNT_ATTR_RDONLY != 0 && !m.CopyUp {
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return -1, fsError(fs, "option ro", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make the file system", err)
	}
	attrs := m.Set
	if m.CopyUp {
		attrs &^= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return -1, fsError(fs, "make the mount", err)
	}
	if err := c.finishNew(m, fd, target); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *child) finishNew(m *job.Mount, fd, target int) error {
	if m.CopyUp {
		if err := copyUp(target, fd); err != nil {
			return fmt.Errorf("copy what is there: %w", err)
		}
		if m.Set&unix.MOUNT_ATTR_RDONLY != 0 {
			a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
			if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
				return err
			}
		}
	}
	if m.RecSet|m.RecClear != 0 {
		a := unix.MountAttr{Attr_set: m.RecSet, Attr_clr: m.RecClear}
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a)
	}
	return nil
}

// fsFlags are the names of superblock flags in fsconfig(2).
var fsFlags = []struct {
	flag uint32
	name string
}{
	{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"}, {unix.MS_LAZYTIME, "lazytime"}, {unix.MS_MANDLOCK, "mand"},
}

// oldMount uses mount(2), through the descriptor's name in the host's procfs,
// which is still ours to see.
func oldMount(m *job.Mount, target int) error {
	flags := uintptr(m.Flags)
	for _, f := range []struct {
		attr uint64
		flag uintptr
	}{
		{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY}, {unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID}, {unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
		{unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC}, {unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME},
		{unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME}, {unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME},
	} {
		if m.Set&f.attr != 0 {
			flags |= f.flag
		}
	}
	return unix.Mount(m.Source, "/proc/self/fd/"+strconv.Itoa(target), m.Type, flags, strings.Join(m.Data, ","))
}

// enterRoot makes the prepared root the process's root and lets go of the
// host's file systems.
func (c *child) enterRoot() error {
	if err := unix.Fchdir(c.root.Fd()); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	// Both names the same directory: the old root ends up mounted over the new
	// one and is taken away from there (pivot_root(2), "pivot_root(".", ".")").
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir /: %w", err)
	}
	c.root = rootpath.At(c.root.Fd())
	if err := c.makeCwd(); err != nil {
		return err
	}
	a := unix.MountAttr{}
	if c.job.Root.Readonly {
		a.Attr_set = unix.MOUNT_ATTR_RDONLY
		if err := unix.MountSetattr(c.root.Fd(), "", unix.AT_EMPTY_PATH, &a); err != nil {
			return fmt.Errorf("make the root file system read-only: %w", err)
		}
	}
	if p := c.job.Root.Propagation; p != 0 {
		if err := unix.Mount("", "/", "", uintptr(p), ""); err != nil {
			return fmt.Errorf("set the root file system's propagation: %w", err)
		}
	}
	return nil
}

// makeCwd makes the working directory if the image does not have it, as
// docker run -w promises.
func (c *child) makeCwd() error {
	if path.Clean(c.proc.Cwd) == "/" {
		return nil
	}
	fd, err := c.root.MkdirAll(c.proc.Cwd, 0o755)
	if err == nil {
		unix.Close(fd)
		return nil
	}
	// What is there but no directory is reported when the program is started,
	// in the words that clients know.
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return fmt.Errorf("make the working directory: %w", err)
}

// sysctls writes kernel settings of the container's namespaces through a procfs
// that only we see.
func (c *child) sysctls() error {
	if len(c.job.Sysctls) == 0 {
		return nil
	}
	proc, err := privateProcfs()
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	for _, kv := range c.job.Sysctls {
		if err := writeProcFile(proc, "sys/"+kv.Key, kv.Value); err != nil {
			return fmt.Errorf("sysctl %s: %w", strings.ReplaceAll(kv.Key, "/", "."), err)
		}
	}
	return nil
}

// readonly mounts a path read-only over itself, if it exists.
func (c *child) readonly(p string) error {
	target, err := c.root.OpenFd(p, unix.O_PATH, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	fd, err := openTree(target, "", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
		return err
	}
	return attach(fd, target, 0)
}
