package kernel

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpTries is how often a list is asked for that changes while it is read.
const dumpTries = 20

// dump asks for a list until the kernel gives it in one piece: where containers
// come and go all the time it says that it was interrupted (NLM_F_DUMP_INTR,
// netlink(7)), and something may be missing or there twice.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
