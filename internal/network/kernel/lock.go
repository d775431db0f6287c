package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Exclusive keeps other daemons of this host from choosing subnets until the
// function it returns is called: it locks (flock(2)) the file of the network
// namespace itself, which all who live in it share whatever their directories
// are. The kernel drops the lock with the process.
func (h *Host) Exclusive() (release func(), err error) {
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	for {
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("lock the network namespace: %w", err)
	}
	return func() { unix.Close(fd) }, nil
}
