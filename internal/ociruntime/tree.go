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

// A tree is a container's root file system with everything mounted below it,
// while the child half builds it.
type tree struct {
	s      *setup
	job    *job.Job       // nil for exec
	root   *rootpath.Root // nil until attached
	devpts int            // the container's own devpts, -1 if not mounted by us
	ownDev bool           // /dev is ours to fill: the host's was not put there
	ids    []MountID      // of the job's mounts, as far as they have been made
}

// prepare attaches the container's root and everything below it, while the
// host's file systems can still be reached. Every target is a descriptor.
func (t *tree) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mount namespace's mounts slaves: %w", err)
	}
	if err := t.attachRoot(); err != nil {
		return err
	}
	t.ownDev = true
	for i := range t.job.Mounts {
		m := &t.job.Mounts[i]
		id, err := t.mount(m, int(t.s.mounts[i]))
		if err != nil {
			return fmt.Errorf("error mounting %q (%s) to rootfs at %q: %w%s", m.Source, m.Type, m.Target, err, mountHint(err))
		}
		t.ids = append(t.ids, id)
		if m.Target == "/dev" && m.Type == "bind" {
			t.ownDev = false
		}
	}
	if t.ownDev {
		if err := t.devices(); err != nil {
			return err
		}
	}
	if err := t.sysctls(); err != nil {
		return err
	}
	for _, p := range t.job.ReadonlyPaths {
		if err := t.readonly(p); err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	return t.maskPaths()
}

// attachRoot puts the root file system into the mount namespace: where the
// bundle has it, so that hooks find it, or over "/" (which is still the old root
// for everybody who is in it). pivot_root(2) wants it attached somewhere.
func (t *tree) attachRoot() error {
	if err := leaveInitramfs(); err != nil {
		return err
	}
	fd := int(t.s.root)
	at := "/"
	if t.job.Root.Overlay == nil {
		at = t.job.Root.Path
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
	t.root = rootpath.At(fd)
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

// mount makes one mount and returns what it is known by. source is a detached
// bind mount, or -1.
func (t *tree) mount(m *job.Mount, source int) (id MountID, err error) {
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		return id, t.mountCgroup(m)
	}
	isDir := true
	if source >= 0 {
		var st unix.Stat_t
		if err := unix.Fstat(source, &st); err != nil {
			return id, err
		}
		isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	target, err := t.target(m, isDir)
	if err != nil {
		return id, err
	}
	defer unix.Close(target)
	fd := source
	if fd < 0 {
		if fd, err = t.newMount(m, target); err != nil || fd < 0 {
			return id, err
		}
		if m.Type == "devpts" && t.devpts < 0 {
			t.devpts = fd
		} else {
			defer unix.Close(fd)
		}
	} else {
		defer unix.Close(fd)
	}
	if err := attach(fd, target, m.Propagation); err != nil {
		return id, err
	}
	return mountID(fd), nil
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
func (t *tree) target(m *job.Mount, isDir bool) (int, error) { //nolint:revive // isDir is a fact of the source
	nofollow := m.TargetNoFollow || m.Type == "proc" || m.Type == "sysfs"
	fd, err := t.root.Target(m.Target, rootpath.TargetOptions{Dir: isDir, Perm: 0o755, NoFollow: nofollow})
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
func (t *tree) newMount(m *job.Mount, target int) (int, error) {
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
	if err := t.finishNew(m, fd, target); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (t *tree) finishNew(m *job.Mount, fd, target int) error {
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

// maxFsString is the longest value that fsconfig(2) takes.
const maxFsString = 255

// setOption gives "key" or "key=value" to a file system.
func setOption(fs int, opt string) error {
	if key, value, ok := strings.Cut(opt, "="); ok {
		return unix.FsconfigSetString(fs, key, value)
	}
	return unix.FsconfigSetFlag(fs, opt)
}

// fsError adds what the file system said about an error: reading an fsopen(2)
// descriptor gives its messages, one a read, as "e text".
func fsError(fs int, what string, err error) error {
	var b [512]byte
	if n, rerr := unix.Read(fs, b[:]); rerr == nil && n > 2 {
		return fmt.Errorf("%s: %w (%s)", what, err, strings.TrimSpace(string(b[2:n])))
	}
	return fmt.Errorf("%s: %w", what, err)
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

// enter makes the prepared root the process's root and lets go of the
// host's file systems.
func (t *tree) enter() error {
	if err := unix.Fchdir(t.root.Fd()); err != nil {
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
	t.root = rootpath.At(t.root.Fd())
	if err := t.makeCwd(); err != nil {
		return err
	}
	a := unix.MountAttr{}
	if t.job.Root.Readonly {
		a.Attr_set = unix.MOUNT_ATTR_RDONLY
		if err := unix.MountSetattr(t.root.Fd(), "", unix.AT_EMPTY_PATH, &a); err != nil {
			return fmt.Errorf("make the root file system read-only: %w", err)
		}
	}
	if p := t.job.Root.Propagation; p != 0 {
		if err := unix.Mount("", "/", "", uintptr(p), ""); err != nil {
			return fmt.Errorf("set the root file system's propagation: %w", err)
		}
	}
	return nil
}

// makeCwd makes the working directory if the image does not have it, as
// docker run -w promises.
func (t *tree) makeCwd() error {
	if path.Clean(t.job.Process.Cwd) == "/" {
		return nil
	}
	fd, err := t.root.MkdirAll(t.job.Process.Cwd, 0o755)
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
func (t *tree) sysctls() error {
	if len(t.job.Sysctls) == 0 {
		return nil
	}
	proc, err := privateProcfs()
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	for _, kv := range t.job.Sysctls {
		if err := writeProcFile(proc, "sys/"+kv.Key, kv.Value); err != nil {
			return fmt.Errorf("sysctl %s: %w", strings.ReplaceAll(kv.Key, "/", "."), err)
		}
	}
	return nil
}

// readonly mounts a path read-only over itself, if it exists.
func (t *tree) readonly(p string) error {
	target, err := t.root.OpenFd(p, unix.O_PATH, 0)
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
