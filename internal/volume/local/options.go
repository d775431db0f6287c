package local

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// device is a mount(2) to be.
type device struct {
	typ, device, data string
	flags             uintptr
}

// needs lists, for each option, those that must come with it.
var needs = map[string][]string{"device": {"type"}, "type": {"device"}, "o": {"device", "type"}, "size": nil}

// Check returns why the options of a volume can't be, or nil. Pure.
func Check(opts map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if _, ok := needs[k]; !ok {
			return errs.New(errs.Invalid, "invalid option: %q", k)
		}
	}
	if _, err := size(opts); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		for _, n := range needs[k] {
			if opts[n] == "" {
				return errs.New(errs.Invalid, "missing required option: %q", n)
			}
		}
	}
	_, err := parse(opts)
	return err
}

type flag struct {
	bit   uintptr
	clear bool
}

// flags are the words of mount(8) that are bits of mount(2); all others are the
// file system's own.
var flags = map[string]flag{
	"defaults": {}, "ro": {bit: unix.MS_RDONLY}, "rw": {unix.MS_RDONLY, true},
	"suid": {unix.MS_NOSUID, true}, "nosuid": {bit: unix.MS_NOSUID},
	"dev": {unix.MS_NODEV, true}, "nodev": {bit: unix.MS_NODEV},
	"exec": {unix.MS_NOEXEC, true}, "noexec": {bit: unix.MS_NOEXEC},
	"sync": {bit: unix.MS_SYNCHRONOUS}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {bit: unix.MS_DIRSYNC}, "mand": {bit: unix.MS_MANDLOCK}, "nomand": {unix.MS_MANDLOCK, true},
	"atime": {unix.MS_NOATIME, true}, "noatime": {bit: unix.MS_NOATIME},
	"diratime": {unix.MS_NODIRATIME, true}, "nodiratime": {bit: unix.MS_NODIRATIME},
	"relatime": {bit: unix.MS_RELATIME}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {bit: unix.MS_STRICTATIME}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"bind": {bit: unix.MS_BIND}, "rbind": {bit: unix.MS_BIND | unix.MS_REC},
}

// parse turns a volume's options into a mount. Pure.
func parse(opts map[string]string) (device, error) {
	m := device{typ: opts["type"], device: opts["device"]}
	var data []string
	for _, o := range strings.Split(opts["o"], ",") {
		f, ok := flags[o]
		switch {
		case o == "":
		case !ok:
			data = append(data, o)
		case f.clear:
			m.flags &^= f.bit
		default:
			m.flags |= f.bit
		}
	}
	m.data = strings.Join(data, ",")
	if strings.ContainsRune(m.device+m.typ+m.data, 0) {
		return m, errs.New(errs.Invalid, "a mount option holds a NUL byte")
	}
	if m.typ == "bind" { // what mount(8) calls type none
		m.typ, m.flags = "none", m.flags|unix.MS_BIND
	}
	return m, nil
}

// resolve replaces the host name in addr= of network file systems by an
// address: the kernel knows no names.
func resolve(m *device) error {
	if !strings.HasPrefix(m.typ, "nfs") && m.typ != "cifs" {
		return nil
	}
	words := strings.Split(m.data, ",")
	for i, w := range words {
		name, ok := strings.CutPrefix(w, "addr=")
		if !ok || net.ParseIP(name) != nil {
			continue
		}
		a, err := net.ResolveIPAddr("ip", name)
		if err != nil {
			return fmt.Errorf("error resolving passed in network volume address: %w", err)
		}
		words[i] = "addr=" + a.String()
	}
	m.data = strings.Join(words, ",")
	return nil
}
