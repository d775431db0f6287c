// Package lookup finds out what a launch needs to know of the host and of the
// container's files: the system call filter, the user, the devices, the
// capabilities that can be given.
//
// Package launch calls it at each start and exec. It writes nothing, and must
// not know of containers beyond the values it is given.
package lookup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"gantry/internal/ocispec"
	"gantry/internal/ocispec/hostdev"
	"gantry/internal/plan"
	"gantry/internal/seccomp/profile"
	"gantry/internal/wire"
)

// kept is how many filters are kept.
const kept = 32

// Filters finds filters and keeps the latest, since most containers share one.
// It may be used from several goroutines.
type Filters struct{ cache *profile.Cache }

// NewFilters returns an empty set.
func NewFilters() *Filters { return &Filters{profile.New(kept)} }

// Filter is a profile, resolved; it is shared and must not be changed.
type Filter = profile.Policy

// For returns the filter for processes that are confined by s and have the
// given capabilities. Errors carry Docker's texts.
func (f *Filters) For(s plan.Security, caps []string) (Filter, error) {
	if s.Privileged || s.Seccomp == plan.Unconfined {
		return Filter{}, nil
	}
	return f.cache.Get(profile.Options{Source: s.Seccomp, Caps: caps})
}

// Devices returns the devices that p's container shall have, and the numbers of
// those that its I/O limits name.
func Devices(p *plan.Plan) ([]ocispec.Device, map[string]ocispec.DeviceNumber, error) {
	found, err := hostdev.Find(p)
	if err != nil {
		return nil, nil, err
	}
	numbers, err := Numbers(p)
	return found, numbers, err
}

// Numbers returns the numbers of the devices that p's I/O limits name, by path.
func Numbers(p *plan.Plan) (map[string]ocispec.DeviceNumber, error) {
	var paths []string
	r := p.Resources
	for _, w := range r.BlkioWeightDevice {
		paths = append(paths, w.Path)
	}
	for _, list := range [][]*wire.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps} {
		for _, t := range list {
			paths = append(paths, t.Path)
		}
	}
	return hostdev.Numbers(paths)
}

// maxAccounts bounds passwd and group in bytes: an image's author writes them.
const maxAccounts = 8 << 20

// A Reader reads files of a container's root.
type Reader interface {
	ReadFile(name string, limit int64) ([]byte, error)
}

// User resolves a process's user by the container's own files.
func User(p plan.Process, root Reader) (ocispec.User, error) {
	passwd, err := root.ReadFile("etc/passwd", maxAccounts)
	if err != nil && !missing(err) {
		return ocispec.User{}, fmt.Errorf("unable to find user %s: %w", p.User, err)
	}
	group, err := root.ReadFile("etc/group", maxAccounts)
	if err != nil && !missing(err) {
		return ocispec.User{}, fmt.Errorf("unable to find groups for spec %s: %w", p.User, err)
	}
	return ocispec.LookupUser(p.User, bytes.NewReader(passwd), bytes.NewReader(group), p.GroupAdd)
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// Bounding returns the set of capabilities that this process can give, bit n
// for capability n.
func Bounding() (uint64, error) {
	var set uint64
	for c := range 64 {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break // the highest has been passed
		}
		set |= uint64(has&1) << c
	}
	if set == 0 {
		return 0, errors.New("the kernel tells of no capabilities")
	}
	return set, nil
}
