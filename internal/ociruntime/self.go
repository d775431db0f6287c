package ociruntime

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// SealSelf returns this program in a sealed memfd: a process inside a container
// that runs it can reach it through /proc/self/exe and can't change it
// (security.md row S2). If this process runs from one already, that is it.
// The caller closes it.
func SealSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	have, err := unix.FcntlInt(self.Fd(), unix.F_GET_SEALS, 0)
	if err == nil && have&(unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW) == unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW {
		return self, nil
	}
	defer self.Close()
	return seal(self)
}

func seal(from io.Reader) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("gantry-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC is of Linux 6.3
		fd, err = unix.MemfdCreate("gantry-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make a memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "gantry-shim")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return nil, fmt.Errorf("copy the program into a memfd: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal a memfd: %w", err)
	}
	return f, nil
}
