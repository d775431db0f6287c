// Package quota limits how much a directory tree may hold, by project quotas of
// the file system: a tree gets a project number, which new files inherit, and
// the kernel bounds what a project has.
//
// launch calls it for a container's writable layer (--storage-opt size=), volume
// for local volumes (-o size=). It writes the project number of directories and
// the limits of projects; both lie on the disk, so nothing is to be restored after
// a crash, and a number whose tree has gone is free again whatever limit it has.
// It must not know what is in the trees.
//
// Sources: quotactl(2), quotactl_fd(2), ioctl_xfs_fsgetxattr(2),
// include/uapi/linux/{quota,dqblk_xfs,fs}.h.
package quota

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// A Control limits trees on one file system. It may be used by several
// goroutines. There should be one for each directory of owners, so that two of
// them do not take one number at once.
type Control struct {
	dir string
	mu  sync.Mutex
}

// New returns what limits trees below dir, which need not exist yet. Nothing is
// asked of the file system before it is used.
func New(dir string) *Control { return &Control{dir: dir} }

// Supported reports why the file system of the control's directory can't limit
// trees: errs.Unsupported, naming it and what to do. nil: it can.
func (c *Control) Supported() error {
	f, err := os.Open(c.dir)
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	defer f.Close()
	return enforced(f)
}

// Set bounds what the directories hold together to size bytes; they are empty,
// or have been given by Set before. owner is what the tree belongs to: the same
// owner is tried first with the same number. Errors: errs.Unsupported as
// Supported.
func (c *Control) Set(owner string, size uint64, dirs ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	for _, dir := range dirs {
		f, err := openDir(dir)
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	if len(open) == 0 {
		return nil
	}
	if err := enforced(open[0]); err != nil {
		return err
	}
	project, err := projectOf(open[0])
	if err != nil {
		return err
	}
	if project == 0 {
		if project, err = free(open[0], owner); err != nil {
			return err
		}
	}
	// The limit first: a crash in between leaves a number that is free.
	if err := limit(open[0], project, size); err != nil {
		return err
	}
	for _, f := range open {
		if err := assign(f, project); err != nil {
			return err
		}
	}
	return nil
}

// Used returns the bytes that the project of dir has, and its limit, 0 for none.
func (c *Control) Used(dir string) (used, size uint64, err error) {
	f, err := openDir(dir)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	project, err := projectOf(f)
	if err != nil || project == 0 {
		return 0, 0, err
	}
	q, err := get(f, project)
	return q.space, q.hard * block, err
}

// Release takes the limit off the project of dir, which is about to be removed.
// A directory without one is no error.
func (c *Control) Release(dir string) error {
	f, err := openDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	project, err := projectOf(f)
	if err != nil || project < first {
		return nil // nothing of ours
	}
	return limit(f, project, 0)
}

func openDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("quota: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Our numbers, far from the small ones that people give (projid(5)).
const (
	first = 0x47000000
	count = 1 << 20
)

// free finds a number that no tree has. A tree has at least its own directory,
// so one without any file is nobody's.
func free(f *os.File, owner string) (uint32, error) {
	h := fnv.New32a()
	h.Write([]byte(owner))
	start := h.Sum32() % count
	for i := range uint32(4096) {
		project := first + (start+i)%count
		q, err := get(f, project)
		if err != nil {
			return 0, err
		}
		if q.inodes == 0 && q.space == 0 {
			return project, nil
		}
	}
	return 0, errs.New(errs.Unavailable, "quota: no free project number for %s", f.Name())
}

// fsxattr is the kernel's struct fsxattr.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

// FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR and FS_XFLAG_PROJINHERIT.
const (
	fsGetXattr  = 0x801c581f
	fsSetXattr  = 0x401c5820
	projInherit = 0x200
)

func xattr(f *os.File, call uintptr, x *fsxattr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), call, uintptr(unsafe.Pointer(x)))
	if errno != 0 {
		return fmt.Errorf("quota: project number of %s: %w", f.Name(), errno)
	}
	return nil
}

func projectOf(f *os.File) (uint32, error) {
	var x fsxattr
	err := xattr(f, fsGetXattr, &x)
	return x.projid, err
}

func assign(f *os.File, project uint32) error {
	var x fsxattr
	if err := xattr(f, fsGetXattr, &x); err != nil {
		return err
	}
	if x.projid == project && x.xflags&projInherit != 0 {
		return nil
	}
	x.projid, x.xflags = project, x.xflags|projInherit
	return xattr(f, fsSetXattr, &x)
}

// Commands of quotactl(2).
const (
	getQuota  = 0x800007
	setQuota  = 0x800008
	xGetQStat = 'X'<<8 + 5
	project   = 2 // PRJQUOTA

	block       = 1024 // bytes of a unit of limits
	blockLimits = 1    // QIF_BLIMITS
	enforcing   = 1 << 5
)

func quotactl(f *os.File, command uintptr, id uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command<<8|project, uintptr(id), uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// dqblk is the kernel's struct if_dqblk.
type dqblk struct {
	hard, soft, space, inodesHard, inodesSoft, inodes, btime, itime uint64
	valid                                                           uint32
	_                                                               uint32
}

func get(f *os.File, id uint32) (q dqblk, err error) {
	err = quotactl(f, getQuota, id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // xfs: nothing is known of it
		return dqblk{}, nil
	}
	if err != nil {
		return q, fmt.Errorf("quota: read the limit of project %d on %s: %w", id, f.Name(), err)
	}
	return q, nil
}

func limit(f *os.File, id uint32, size uint64) error {
	blocks := (size + block - 1) / block
	q := dqblk{hard: blocks, soft: blocks, valid: blockLimits}
	if err := quotactl(f, setQuota, id, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("quota: limit project %d on %s: %w", id, f.Name(), err)
	}
	return nil
}

// enforced asks whether the file system of f enforces limits of projects.
func enforced(f *os.File) error {
	var stat [128]byte // struct fs_quota_stat: s8 version, u16 flags at 2
	err := quotactl(f, xGetQStat, 0, unsafe.Pointer(&stat))
	if err == nil && binary.NativeEndian.Uint16(stat[2:])&enforcing != 0 {
		return nil
	}
	var fs unix.Statfs_t
	if serr := unix.Fstatfs(int(f.Fd()), &fs); serr != nil {
		return fmt.Errorf("quota: %w", serr)
	}
	return errs.New(errs.Unsupported, "%s", advice(f.Name(), int64(fs.Type)))
}

// advice says what is missing of a file system of that magic number
// (statfs(2)), and what to do.
func advice(dir string, magic int64) string {
	switch magic {
	case unix.XFS_SUPER_MAGIC:
		return dir + " is on xfs, mounted without the option pquota: mount it with that option (and a kernel with CONFIG_XFS_QUOTA)"
	case unix.EXT4_SUPER_MAGIC:
		return dir + " is on ext4 without project quotas: unmount it, run tune2fs -O quota,project -Q prjquota on its device, and mount it with the option prjquota (and a kernel with CONFIG_QFMT_V2)"
	case unix.BTRFS_SUPER_MAGIC:
		return dir + " is on btrfs, which has no project quotas: use xfs or ext4"
	case unix.TMPFS_MAGIC:
		return dir + " is on tmpfs, which has no project quotas: use xfs or ext4"
	}
	return fmt.Sprintf("%s is on a file system (type 0x%x) without project quotas: use xfs or ext4", dir, magic)
}
