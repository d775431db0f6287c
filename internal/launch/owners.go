package launch

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ocispec"
	"gantry/internal/plan"
)

// owners are the id maps of the bind mounts that have some, by target.
func (b *build) owners(u ocispec.User) (map[string]ocispec.Owners, error) {
	var out map[string]ocispec.Owners
	for _, m := range b.in.Plan.Mounts {
		if m.IDMap == nil {
			continue
		}
		users, groups := m.IDMap.Users, m.IDMap.Groups
		if m.IDMap.User {
			var st unix.Stat_t
			if err := unix.Stat(m.Source, &st); err != nil {
				return nil, fmt.Errorf("error while checking mount source path '%s': %w", m.Source, err)
			}
			users, groups = []plan.IDRange{{Host: st.Uid, Container: u.UID, Count: 1}}, []plan.IDRange{{Host: st.Gid, Container: u.GID, Count: 1}}
		}
		o := ocispec.Owners{}
		var err error
		if o.UID, err = onHost(users, b.users.UID); err == nil {
			o.GID, err = onHost(groups, b.users.GID)
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "mount %s: idmap: %w", m.Target, err)
		}
		if out == nil {
			out = map[string]ocispec.Owners{}
		}
		out[m.Target] = o
	}
	return out, nil
}

// onHost writes ranges as the kernel takes them: from the ids on the disk to those
// that the host has for the container's, which are others in a user namespace.
// Pure.
func onHost(ranges []plan.IDRange, ns []specs.LinuxIDMapping) ([]specs.LinuxIDMapping, error) {
	out := make([]specs.LinuxIDMapping, 0, len(ranges))
	for _, r := range ranges {
		seen := r.Container
		if len(ns) > 0 {
			found := false
			for _, n := range ns {
				if r.Container >= n.ContainerID && uint64(r.Container)+uint64(r.Count) <= uint64(n.ContainerID)+uint64(n.Size) {
					seen, found = n.HostID+(r.Container-n.ContainerID), true
				}
			}
			if !found {
				return nil, fmt.Errorf("ids %d to %d are not all mapped in the container's user namespace", r.Container, uint64(r.Container)+uint64(r.Count)-1)
			}
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: r.Host, HostID: seen, Size: r.Count})
	}
	return out, nil
}
