// Package userns decides which ids of the host a container's ids stand for, and
// makes the user namespaces that do so: it reads the daemon's setting
// (--userns-remap) and the files of subordinate ids, gives out private ranges
// (--userns=auto), and opens namespaces for launch.
//
// The daemon's wiring makes a Namespaces of it, the launch package calls that at
// each start. It writes an entry to /etc/subuid and /etc/subgid if the default
// user has none, and a file for each private range below the run root. It must
// not know what lies on disks: there everything has the ids that it has inside
// (docs/adr/0004).
//
// Sources: subuid(5), subgid(5), user_namespaces(7).
package userns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
)

// DefaultUser is the user whose subordinate ids containers get if nobody says
// which (the setting "default"). The user itself need not exist.
const DefaultUser = "dockremap"

// Map is which ids of the host the ids inside stand for.
type Map struct {
	UID, GID []specs.LinuxIDMapping
}

// Root returns what id 0 inside is on the host.
func (m Map) Root() (uid, gid uint32) {
	u, _ := toHost(m.UID, 0)
	g, _ := toHost(m.GID, 0)
	return u, g
}

// ToHost returns what a user and a group inside are on the host; false if one of
// them is not mapped.
func (m Map) ToHost(uid, gid uint32) (hostUID, hostGID uint32, ok bool) {
	u, uok := toHost(m.UID, uid)
	g, gok := toHost(m.GID, gid)
	return u, g, uok && gok
}

// ToContainer returns what a user and a group of the host are inside; false if
// one of them is not mapped.
func (m Map) ToContainer(uid, gid uint32) (insideUID, insideGID uint32, ok bool) {
	u, uok := toContainer(m.UID, uid)
	g, gok := toContainer(m.GID, gid)
	return u, g, uok && gok
}

func toHost(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, r := range list {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + (id - r.ContainerID), true
		}
	}
	return 0, false
}

func toContainer(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, r := range list {
		if id >= r.HostID && id-r.HostID < r.Size {
			return r.ContainerID + (id - r.HostID), true
		}
	}
	return 0, false
}

// OfProcess returns the maps of a process's user namespace, as the caller's sees
// them.
func OfProcess(pid int) (Map, error) {
	var m Map
	for _, f := range []struct {
		name string
		to   *[]specs.LinuxIDMapping
	}{{"uid_map", &m.UID}, {"gid_map", &m.GID}} {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + f.name)
		if err != nil {
			return m, fmt.Errorf("id maps of process %d: %w", pid, err)
		}
		if *f.to, err = parseMap(data); err != nil {
			return m, fmt.Errorf("%s of process %d: %w", f.name, pid, err)
		}
	}
	return m, nil
}

// Whole reports whether the maps are those of the host's own namespace.
func (m Map) Whole() bool {
	all := func(l []specs.LinuxIDMapping) bool {
		return len(l) == 1 && l[0] == specs.LinuxIDMapping{Size: 1<<32 - 1}
	}
	return all(m.UID) && all(m.GID)
}

func parseMap(data []byte) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for line := range strings.Lines(string(data)) {
		var r [3]uint32
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, errs.New(errs.Corrupt, "malformed line %q", line)
		}
		for i := range f {
			n, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, errs.New(errs.Corrupt, "malformed line %q", line)
			}
			r[i] = uint32(n)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: r[0], HostID: r[1], Size: r[2]})
	}
	return out, nil
}

// Range is a run of subordinate ids on the host.
type Range struct{ Start, Size uint32 }

// maxRanges is how many lines a map can have (user_namespaces(7)).
const maxRanges = 340

// join puts the ranges one after the other, beginning with id 0 inside.
func join(ranges []Range) ([]specs.LinuxIDMapping, error) {
	if len(ranges) > maxRanges {
		return nil, errs.New(errs.Invalid, "%d ranges of subordinate ids are more than the %d that the kernel takes", len(ranges), maxRanges)
	}
	var out []specs.LinuxIDMapping
	var inside uint64
	for i, r := range ranges {
		for _, o := range ranges[:i] {
			if r.Start < o.Start+o.Size && o.Start < r.Start+r.Size {
				return nil, errs.New(errs.Invalid, "the ranges %d:%d and %d:%d of subordinate ids overlap", o.Start, o.Size, r.Start, r.Size)
			}
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(inside), HostID: r.Start, Size: r.Size})
		if inside += uint64(r.Size); inside > 1<<32-1 {
			return nil, errs.New(errs.Invalid, "the ranges of subordinate ids have more ids than there are")
		}
	}
	return out, nil
}

// parseSub returns, by owner, the ranges of a file of subordinate ids. Lines
// that mean nothing are left out, as by newuidmap(1).
func parseSub(data []byte) map[string][]Range {
	out := map[string][]Range{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		f := strings.Split(strings.TrimSpace(sc.Text()), ":")
		if len(f) != 3 || f[0] == "" || strings.HasPrefix(f[0], "#") {
			continue
		}
		start, err1 := strconv.ParseUint(f[1], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if errors.Join(err1, err2) != nil || size == 0 || start+size > 1<<32-1 {
			continue
		}
		out[f[0]] = append(out[f[0]], Range{uint32(start), uint32(size)})
	}
	return out
}
