// Package hostdev looks up devices on the host, for package ocispec, which
// may not: those a container asks for, every one for a privileged container,
// and the numbers of block devices that limits name.
//
// The engine's launch package calls it at start. It reads /dev and writes
// nothing.
package hostdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/ocispec"
	"gantry/internal/plan"
)

// ofContainer are places below /dev that every container has of its own.
var ofContainer = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/fd": true, "/dev/mqueue": true, "/dev/.lxc": true, "/dev/.lxd-mounts": true,
	"/dev/.udev": true, "/dev/console": true,
}

// Find returns the devices that p's container shall have beyond the usual. A
// missing one is an error with Docker's text and no kind.
func Find(p *plan.Plan) ([]ocispec.Device, error) {
	var out []ocispec.Device
	have := map[string]bool{}
	if p.AllDevices {
		all, err := below("/dev", "/dev", "rwm")
		if err != nil {
			return nil, fmt.Errorf("devices of the host: %w", err)
		}
		for _, d := range all {
			have[d.Path] = true
		}
		out = all
	}
	for _, want := range p.Devices {
		found, err := find(want)
		if err != nil {
			return nil, fmt.Errorf("error gathering device information while adding custom device %q: %w", want.Host, err)
		}
		for _, d := range found {
			if !have[d.Path] {
				have[d.Path] = true
				out = append(out, d)
			}
		}
	}
	return out, nil
}

// find resolves one wish: a device, a link to one, or a directory of such.
func find(want plan.Device) ([]ocispec.Device, error) {
	host, err := filepath.EvalSymlinks(want.Host)
	if err != nil {
		return nil, reason(err)
	}
	d, err := stat(host, want.Container, want.Permissions)
	if err == nil {
		return []ocispec.Device{d}, nil
	}
	if info, serr := os.Stat(host); serr == nil && info.IsDir() {
		found, err := below(host, want.Container, want.Permissions)
		if err == nil && len(found) == 0 {
			err = errNotDevice
		}
		return found, err
	}
	return nil, reason(err)
}

var errNotDevice = errors.New("not a device node")

// reason takes the path and the call's name off an error: the text has them
// already.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// below lists the devices in a directory tree, as they shall be below target.
func below(dir, target, access string) ([]ocispec.Device, error) {
	var out []ocispec.Device
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil // unplugged meanwhile
			}
			return err
		}
		if ofContainer[path] {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		d, err := stat(path, target+strings.TrimPrefix(path, dir), access)
		switch {
		case err == nil:
			out = append(out, d)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotDevice):
			return err
		}
		return nil
	})
	return out, err
}

// stat describes the device at path.
func stat(path, target, access string) (ocispec.Device, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return ocispec.Device{}, err
	}
	d := ocispec.Device{
		Path: target, Mode: fs.FileMode(st.Mode & 0o777), UID: st.Uid, GID: st.Gid, Access: access, Host: path,
		Number: ocispec.DeviceNumber{Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFIFO:
		d.Type = "p"
	default:
		return ocispec.Device{}, errNotDevice
	}
	return d, nil
}

// Numbers returns the numbers of the block devices at paths, for
// ocispec.Inputs.BlockDevice.
func Numbers(paths []string) (map[string]ocispec.DeviceNumber, error) {
	out := map[string]ocispec.DeviceNumber{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			return nil, fmt.Errorf("%s: %w", p, errNotDevice)
		}
		out[p] = ocispec.DeviceNumber{Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))}
	}
	return out, nil
}
