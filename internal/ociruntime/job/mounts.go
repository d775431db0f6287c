package job

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxMounts bounds a container's mount list; the kernel allows 100000 in a
// namespace.
const maxMounts = 4096

func (j *Job) mounts(list []specs.Mount) error {
	if len(list) > maxMounts {
		return invalid("mounts", "has %d entries; %d are possible", len(list), maxMounts)
	}
	for _, s := range list {
		m, err := MountFromSpec(s)
		if err != nil {
			return err
		}
		if m.IDMapped && len(m.UIDMap) == 0 && j.Namespace(unix.CLONE_NEWUSER) == nil {
			return invalid("mounts", "%s: idmap needs mappings or a user namespace", s.Destination)
		}
		j.Mounts = append(j.Mounts, m)
	}
	return nil
}

// MountFromSpec parses one mount and its options (runtime-spec config.md,
// "Linux mount options"). Options that are not of the mount itself go to the
// file system as they are.
func MountFromSpec(s specs.Mount) (Mount, error) {
	// Old bundles have relative destinations; the spec wants them taken from /.
	target := path.Clean("/" + s.Destination)
	if err := absolute("mounts.destination", target); err != nil {
		return Mount{}, err
	}
	if target == "/" {
		return Mount{}, invalid("mounts.destination", "%q is the root itself", s.Destination)
	}
	m := Mount{Target: target, Type: s.Type, Source: s.Source}
	for _, o := range s.Options {
		if strings.IndexByte(o, 0) >= 0 || len(o) >= maxPath {
			return Mount{}, invalid("mounts.options", "of %s hold an impossible one", target)
		}
		m.option(o)
	}
	var err error
	if m.UIDMap, err = idMaps("mounts.uidMappings", s.UIDMappings); err != nil {
		return Mount{}, err
	}
	if m.GIDMap, err = idMaps("mounts.gidMappings", s.GIDMappings); err != nil {
		return Mount{}, err
	}
	if (len(m.UIDMap) == 0) != (len(m.GIDMap) == 0) {
		return Mount{}, invalid("mounts.uidMappings", "of %s come without gidMappings, or the other way round", target)
	}
	if len(m.UIDMap) > 0 {
		m.IDMapped = true
	}
	return m, m.check()
}

// check applies what follows from the whole of the options.
func (m *Mount) check() error {
	if strings.HasPrefix(m.Target, "/proc/") && m.Type != "tmpfs" && !slices.Contains(procTargets, m.Target) {
		return invalid("mounts.destination", "%q is inside /proc", m.Target)
	}
	if m.Type == "bind" {
		// Options of a file system mean nothing to a bind mount, and clients
		// send them ("z", "mode=…"); the kernel has nobody to give them to.
		m.Data, m.Flags, m.CopyUp = nil, 0, false
		if m.Propagation == 0 {
			m.Propagation = unix.MS_PRIVATE | unix.MS_REC
		}
		return absolute("mounts.source", m.Source)
	}
	if m.Type == "" {
		return invalid("mounts.type", "of %s is empty", m.Target)
	}
	if strings.IndexByte(m.Source, 0) >= 0 || len(m.Source) >= maxPath {
		return invalid("mounts.source", "of %s is impossible", m.Target)
	}
	if m.CopyUp && m.Type != "tmpfs" {
		return invalid("mounts.options", "of %s: tmpcopyup is for tmpfs only", m.Target)
	}
	return nil
}

func (m *Mount) option(o string) {
	if rest, ok := strings.CutPrefix(o, "r"); ok {
		if p, ok := propagations[rest]; ok {
			m.Propagation = p | unix.MS_REC
			return
		}
		// "ro" and "rw" are no recursive forms of "o" and "w", "relatime" is
		// none of "elatime": the table decides.
		if a, ok := mountOptions[rest]; ok {
			m.RecSet = m.RecSet&^a.clear | a.set
			m.RecClear = m.RecClear&^a.set | a.clear
			return
		}
	}
	if p, ok := propagations[o]; ok {
		m.Propagation = p
		return
	}
	if a, ok := mountOptions[o]; ok {
		m.Set = m.Set&^a.clear | a.set
		m.Clear = m.Clear&^a.set | a.clear
		return
	}
	if f, ok := fsOptions[o]; ok {
		m.Flags = m.Flags&^f.clear | f.set
		return
	}
	if dir, ok := strings.CutPrefix(o, "src-beneath="); ok {
		m.SourceBeneath = dir
		return
	}
	switch o {
	case "bind":
		m.Type = "bind"
	case "rbind":
		m.Type, m.Recursive = "bind", true
	case "tmpcopyup":
		m.CopyUp = true
	case "idmap":
		m.IDMapped = true
	case "ridmap":
		m.IDMapped, m.IDMapRec = true, true
	case "src-nofollow":
		m.SourceNoFollow = true
	case "dest-nofollow":
		m.TargetNoFollow = true
	case "defaults", "remount", "_netdev", "nofail", "auto", "noauto", "user", "nouser", "":
		// of fstab(5): nothing to do for a mount made here
	default:
		if !slices.Contains(m.Data, o) {
			m.Data = append(m.Data, o)
		}
	}
}
