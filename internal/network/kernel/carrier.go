package kernel

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settle makes the kernel act at once on a link's carrier having come up. Left
// alone a work queue does that, for a bridge up to a second later, and until
// then the link drops what is sent to it: the first connection to a container
// would wait for its second SYN.
//
// Whoever asks a link by ETHTOOL_GLINK whether it is up gets the present state,
// so the kernel brings it about first (linkwatch_sync_dev in net/core).
func (h *Host) settle(link string) error {
	const ethtoolGLink = 0x0a // <linux/ethtool.h>
	value := [2]uint32{ethtoolGLink}
	var req struct { // struct ifreq of netdevice(7), with ifr_data
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], link)
	req.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(h.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&value)
	if errno != 0 && errno != unix.EOPNOTSUPP {
		return fmt.Errorf("ask link %s for its carrier: %w", link, errno)
	}
	return nil
}
