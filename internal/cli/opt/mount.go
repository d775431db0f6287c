package opt

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"

	"gantry/internal/errs"
)

// Mounts collects --mount type=…,source=…,target=….
type Mounts struct {
	List []mount.Mount
	// IDMaps are the values of idmap=, which Docker has not, by target.
	IDMaps map[string]string
}

// String shows nothing: there is no default.
func (m *Mounts) String() string { return "" }

// Type is the word in the usage text.
func (m *Mounts) Type() string { return "mount" }

// Set parses one mount.
func (m *Mounts) Set(v string) error {
	v = strings.TrimSpace(v)
	if v == "" {
		return errs.New(errs.Invalid, "value is empty")
	}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return err
	}
	mnt := mount.Mount{Type: mount.TypeVolume}
	idmap := ""
	for _, f := range fields {
		if v, ok := strings.CutPrefix(f, "idmap="); ok {
			idmap = v
			continue
		}
		if err := mountField(&mnt, f); err != nil {
			return err
		}
	}
	if err := checkMount(&mnt); err != nil {
		return err
	}
	if idmap != "" {
		if mnt.Type != mount.TypeBind {
			return errs.New(errs.Invalid, "cannot mix 'idmap' with mount type '%s'", mnt.Type)
		}
		if m.IDMaps == nil {
			m.IDMaps = map[string]string{}
		}
		m.IDMaps[mnt.Target] = idmap
	}
	m.List = append(m.List, mnt)
	return nil
}

func mountField(m *mount.Mount, field string) error {
	key, val, has := strings.Cut(field, "=")
	if k := strings.TrimSpace(key); k != key {
		return errs.New(errs.Invalid, "invalid option '%s' in '%s': option should not have whitespace", k, field)
	}
	key = strings.ToLower(key)
	if has {
		if strings.TrimSpace(val) == "" {
			return errs.New(errs.Invalid, "invalid value for '%s': value is empty", key)
		}
		if strings.TrimSpace(val) != val {
			return errs.New(errs.Invalid, "invalid value for '%s' in '%s': value should not have whitespace", key, field)
		}
	} else {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
		default:
			return errs.New(errs.Invalid, "invalid field '%s' must be a key=value pair", field)
		}
	}
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(val))
	case "source", "src":
		m.Source = val
		if strings.HasPrefix(val, ".") {
			if abs, err := filepath.Abs(val); err == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = val
	case "readonly", "ro":
		var err error
		m.ReadOnly, err = parseBool(key, val, has)
		return err
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
	default:
		return mountTypeField(m, key, val, field, has)
	}
	return nil
}

// mountTypeField handles the options that belong to one type of mount.
func mountTypeField(m *mount.Mount, key, val, field string, has bool) (err error) {
	kind, _, _ := strings.Cut(key, "-")
	switch kind {
	case "bind":
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
	case "volume":
		if m.VolumeOptions == nil {
			m.VolumeOptions = &mount.VolumeOptions{}
		}
	case "tmpfs":
		if m.TmpfsOptions == nil {
			m.TmpfsOptions = &mount.TmpfsOptions{}
		}
	case "image":
		if m.ImageOptions == nil {
			m.ImageOptions = &mount.ImageOptions{}
		}
	}
	switch key {
	case "bind-propagation":
		m.BindOptions.Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-nonrecursive":
		return errs.New(errs.Invalid, "bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
	case "bind-recursive":
		return bindRecursive(m.BindOptions, key, val)
	case "bind-create-src":
		m.BindOptions.CreateMountpoint, err = parseBool(key, val, has)
	case "volume-subpath":
		m.VolumeOptions.Subpath = val
	case "volume-nocopy":
		m.VolumeOptions.NoCopy, err = parseBool(key, val, has)
	case "volume-label":
		setPair(&m.VolumeOptions.Labels, val)
	case "volume-driver":
		volumeDriver(m).Name = val
	case "volume-opt":
		setPair(&volumeDriver(m).Options, val)
	case "image-subpath":
		m.ImageOptions.Subpath = val
	case "tmpfs-size":
		if m.TmpfsOptions.SizeBytes, err = units.RAMInBytes(val); err != nil {
			return errs.New(errs.Invalid, "invalid value for %s: %s", key, val)
		}
	case "tmpfs-mode":
		n, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return errs.New(errs.Invalid, "invalid value for %s: %s", key, val)
		}
		m.TmpfsOptions.Mode = os.FileMode(n)
	default:
		return errs.New(errs.Invalid, "unexpected key '%s' in '%s'", key, field)
	}
	return err
}

func bindRecursive(o *mount.BindOptions, key, val string) error {
	switch val {
	case "enabled":
	case "disabled":
		o.NonRecursive = true
	case "writable":
		o.ReadOnlyNonRecursive = true
	case "readonly":
		o.ReadOnlyForceRecursive = true
	default:
		return errs.New(errs.Invalid, `invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, val)
	}
	return nil
}

func volumeDriver(m *mount.Mount) *mount.Driver {
	if m.VolumeOptions.DriverConfig == nil {
		m.VolumeOptions.DriverConfig = &mount.Driver{}
	}
	return m.VolumeOptions.DriverConfig
}

func setPair(m *map[string]string, v string) {
	if *m == nil {
		*m = map[string]string{}
	}
	k, val, _ := strings.Cut(v, "=")
	(*m)[k] = val
}

func checkMount(m *mount.Mount) error {
	if m.Type == "" {
		return errs.New(errs.Invalid, "type is required")
	}
	if m.VolumeOptions != nil && m.Type != mount.TypeVolume {
		return errs.New(errs.Invalid, "cannot mix 'volume-*' options with mount type '%s'", m.Type)
	}
	if m.ImageOptions != nil && m.Type != mount.TypeImage {
		return errs.New(errs.Invalid, "cannot mix 'image-*' options with mount type '%s'", m.Type)
	}
	if m.BindOptions != nil && m.Type != mount.TypeBind {
		return errs.New(errs.Invalid, "cannot mix 'bind-*' options with mount type '%s'", m.Type)
	}
	if m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs {
		return errs.New(errs.Invalid, "cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	}
	b := m.BindOptions
	if b == nil {
		return nil
	}
	if b.ReadOnlyNonRecursive && !m.ReadOnly {
		return errs.New(errs.Invalid, "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	}
	if b.ReadOnlyForceRecursive {
		if !m.ReadOnly {
			return errs.New(errs.Invalid, "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
		}
		if b.Propagation != mount.PropagationRPrivate {
			return errs.New(errs.Invalid, "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
		}
	}
	return nil
}
