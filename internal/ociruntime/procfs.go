package ociruntime

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// privateProcfs returns a descriptor of a procfs that nothing can be mounted
// over and that nobody else sees: a fresh instance of the caller's pid
// namespace, attached nowhere. Where that is impossible (an unprivileged
// process, an old kernel) it is the host's /proc, if it really is procfs.
// security.md row S6.
func privateProcfs() (int, error) {
	if fd, err := freshProcfs(); err == nil {
		return fd, nil
	}
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc: %w", err)
	}
	if err := checkProcfs(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != procRootIno {
		unix.Close(fd)
		return -1, errors.New("/proc is not the root of a procfs")
	}
	return fd, nil
}

// procRootIno is the inode number of a procfs's root (linux/proc_fs.h).
const procRootIno = 1

func freshProcfs() (int, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return -1, err
	}
	if err := checkProcfs(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func checkProcfs(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("statfs of procfs: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("what should be procfs is something else")
	}
	return nil
}

// openProcFile opens a file of the procfs at dir. Neither a link nor a mount on
// the way is followed.
func openProcFile(dir int, name string, flags int) (int, error) {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == unix.ENOSYS {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open /proc/%s: %w", name, err)
	}
	if err := checkProcfs(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// writeProcFile writes data with one write(2), as procfs wants it.
func writeProcFile(dir int, name, data string) error {
	fd, err := openProcFile(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(data)); err != nil {
		return fmt.Errorf("write %q to /proc/%s: %w", data, name, err)
	}
	return nil
}
