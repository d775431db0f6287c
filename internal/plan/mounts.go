package plan

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// The mount types that a container can have.
const (
	typeBind   wire.MountType = "bind"
	typeVolume wire.MountType = "volume"
	typeTmpfs  wire.MountType = "tmpfs"
	typeImage  wire.MountType = "image"
)

// localDriver is the volume driver that nobody needs to name.
const localDriver = "local"

// Mounts brings Binds, Mounts, Tmpfs and Volumes of a request together, as New
// does.
func Mounts(cfg *wire.ContainerConfig, hc *wire.HostConfig) ([]Mount, error) {
	var list []Mount
	taken := map[string]bool{}
	for dest := range hc.Tmpfs {
		taken[path.Clean(dest)] = true
	}
	add := func(m Mount) error {
		if taken[m.Target] {
			return errs.New(errs.Invalid, "Duplicate mount point: %s", m.Target)
		}
		taken[m.Target] = true
		list = append(list, m)
		return nil
	}
	for _, raw := range hc.Binds {
		m, err := parseBind(raw, hc.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for i := range hc.Mounts {
		m, err := fromMount(&hc.Mounts[i])
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(hc.Tmpfs)) {
		list = append(list, Mount{Type: typeTmpfs, Target: path.Clean(dest), Options: hc.Tmpfs[dest], From: FromTmpfs})
	}
	for _, dest := range slices.Sorted(maps.Keys(cfg.Volumes)) {
		target := cleanAbs(dest)
		if taken[target] || target == "/" {
			continue
		}
		taken[target] = true
		list = append(list, Mount{
			Type: typeVolume, Target: target, Anonymous: true,
			Driver: firstNonEmpty(hc.VolumeDriver, localDriver), From: FromVolumes,
		})
	}
	sortMounts(list)
	return list, nil
}

// sortMounts puts a mount after those it is to be found under.
func sortMounts(list []Mount) {
	slices.SortStableFunc(list, func(a, b Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
}

// parseBind reads what follows -v: [source:]target[:mode]. Docker answers a
// breach of this grammar with 500, so the errors have no kind.
func parseBind(raw, volumeDriver string) (Mount, error) {
	invalid := fmt.Errorf("invalid volume specification: '%s'", raw)
	arr := strings.SplitN(raw, ":", 4)
	if arr[0] == "" || strings.IndexByte(raw, 0) >= 0 {
		return Mount{}, invalid
	}
	var source, target, mode string
	switch len(arr) {
	case 1:
		target = arr[0]
	case 2:
		if validBindMode(arr[1]) {
			return Mount{}, invalid
		}
		source, target = arr[0], arr[1]
	case 3:
		source, target, mode = arr[0], arr[1], arr[2]
	default:
		return Mount{}, invalid
	}
	if !validBindMode(mode) {
		return Mount{}, fmt.Errorf("invalid mode: %s", mode)
	}
	m := Mount{Type: typeVolume, Target: path.Clean(target), Mode: mode, From: FromBinds}
	if path.IsAbs(source) {
		m.Type = typeBind
	}
	if err := checkTarget(target); err != nil {
		return Mount{}, fmt.Errorf("%w: invalid mount config for type %q: %w", invalid, m.Type, err)
	}
	opts := strings.Split(mode, ",")
	m.ReadOnly = slices.Contains(opts, "ro")
	for _, o := range opts {
		if propagations[o] {
			m.Propagation = o
		}
	}
	if m.Type == typeBind {
		m.Source, m.CreateSource = path.Clean(source), true
		m.Propagation = firstNonEmpty(m.Propagation, "rprivate")
		return m, nil
	}
	m.NoCopy = slices.Contains(opts, "nocopy")
	m.Name, m.Anonymous = source, source == ""
	m.Driver = firstNonEmpty(volumeDriver, localDriver)
	return m, checkVolumeName(m.Name, m.Driver)
}

// propagations are those of mount_namespaces(7) as users name them.
var propagations = map[string]bool{
	"private": true, "rprivate": true, "shared": true, "rshared": true, "slave": true, "rslave": true,
}

// bindModes gives the group of each word of a bind's mode; a mode has at most
// one word of each group.
var bindModes = map[string]string{
	"rw": "access", "ro": "access",
	"z": "label", "Z": "label",
	"private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation",
	"nocopy":     "copy",
	"consistent": "consistency", "cached": "consistency", "delegated": "consistency", "default": "consistency",
}

func validBindMode(mode string) bool {
	if mode == "" {
		return true
	}
	seen := map[string]bool{}
	for _, o := range strings.Split(mode, ",") {
		group, ok := bindModes[o]
		if !ok || seen[group] {
			return false
		}
		seen[group] = true
	}
	return true
}

// checkTarget checks a mount's place in the container.
func checkTarget(target string) error {
	if path.Clean(target) == "/" {
		return fmt.Errorf("invalid specification: destination can't be '/'")
	}
	if !path.IsAbs(target) {
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", target)
	}
	return nil
}

// checkVolumeName checks a name against what the local driver makes
// directories of; other drivers have rules of their own.
func checkVolumeName(name, driver string) error {
	if name == "" || driver != localDriver {
		return nil
	}
	if len(name) == 1 {
		return errs.New(errs.Invalid, "create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return errs.New(errs.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
		}
	}
	return nil
}

// checkMount checks one of HostConfig.Mounts.
func checkMount(m *wire.Mount) error {
	fail := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "invalid mount config for type %q: %w", m.Type, fmt.Errorf(format, args...))
	}
	if err := checkOptionKinds(m); err != nil {
		return err
	}
	if m.Target == "" {
		return fail("field Target must not be empty")
	}
	if strings.IndexByte(m.Source+m.Target, 0) >= 0 {
		return fail("invalid mount path: it has a zero byte")
	}
	if err := checkTarget(m.Target); err != nil {
		return fail("%w", err)
	}
	switch m.Type {
	case typeBind:
		return checkBindMount(m, fail)
	case typeVolume:
		return checkVolumeMount(m, fail)
	case typeTmpfs:
		if m.Source != "" {
			return fail("field Source must not be specified")
		}
		if _, err := tmpfsOptions(m); err != nil {
			return fail("%w", err)
		}
	case typeImage:
		if m.Source == "" {
			return fail("field Source must not be empty")
		}
		if o := m.ImageOptions; o != nil && o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
			return fail("subpath must be a relative path within the image")
		}
	default:
		return fail("mount type unknown")
	}
	return nil
}

// checkOptionKinds refuses the options of one type on a mount of another.
func checkOptionKinds(m *wire.Mount) error {
	for _, o := range []struct {
		name string
		set  bool
		of   wire.MountType
	}{
		{"BindOptions", m.BindOptions != nil, typeBind},
		{"VolumeOptions", m.VolumeOptions != nil, typeVolume},
		{"ImageOptions", m.ImageOptions != nil, typeImage},
		{"TmpfsOptions", m.TmpfsOptions != nil, typeTmpfs},
		{"ClusterOptions", m.ClusterOptions != nil, "cluster"},
	} {
		if o.set && m.Type != o.of {
			return errs.New(errs.Invalid, "%s must not be specified on mount type %q", o.name, m.Type)
		}
	}
	return nil
}

func checkBindMount(m *wire.Mount, fail func(string, ...any) error) error {
	if m.Source == "" {
		return fail("field Source must not be empty")
	}
	if !path.IsAbs(m.Source) {
		return fail("invalid mount path: '%s' mount path must be absolute", m.Source)
	}
	o := m.BindOptions
	if o == nil {
		return nil
	}
	if o.Propagation != "" && !propagations[string(o.Propagation)] {
		return fail("invalid propagation mode: %s", o.Propagation)
	}
	if (o.ReadOnlyNonRecursive || o.ReadOnlyForceRecursive) && !m.ReadOnly {
		return fail("mount must be read-only to be recursively read-only or not")
	}
	if o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive {
		return fail("ReadOnlyNonRecursive and ReadOnlyForceRecursive can't both be set")
	}
	if o.ReadOnlyForceRecursive && (o.NonRecursive || o.Propagation != "" && o.Propagation != "rprivate") {
		return fail("ReadOnlyForceRecursive needs a recursive mount with propagation rprivate")
	}
	return nil
}

func checkVolumeMount(m *wire.Mount, fail func(string, ...any) error) error {
	anonymous := m.Source == ""
	if o := m.VolumeOptions; o != nil && o.Subpath != "" {
		if anonymous {
			return fail("must not set Subpath when using anonymous volumes")
		}
		if !filepath.IsLocal(o.Subpath) {
			return fail("subpath must be a relative path within the volume")
		}
	}
	if m.ReadOnly && anonymous {
		return fail("must not set ReadOnly mode when using anonymous volumes")
	}
	return nil
}

// fromMount turns a checked HostConfig mount into a decided one.
func fromMount(in *wire.Mount) (Mount, error) {
	m := Mount{Type: in.Type, Target: path.Clean(in.Target), ReadOnly: in.ReadOnly, From: FromMounts}
	switch in.Type {
	case typeBind:
		m.Source, m.Propagation = path.Clean(in.Source), "rprivate"
		if o := in.BindOptions; o != nil {
			m.Propagation = firstNonEmpty(string(o.Propagation), m.Propagation)
			m.NonRecursive, m.CreateSource = o.NonRecursive, o.CreateMountpoint
			m.ReadOnlyTop, m.ReadOnlyForce = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
		}
	case typeVolume:
		m.Name, m.Anonymous, m.Driver, m.Mode = in.Source, in.Source == "", localDriver, "z"
		if o := in.VolumeOptions; o != nil {
			m.NoCopy, m.Subpath, m.VolumeLabels = o.NoCopy, o.Subpath, maps.Clone(o.Labels)
			if c := o.DriverConfig; c != nil {
				m.Driver, m.DriverOptions = firstNonEmpty(c.Name, localDriver), maps.Clone(c.Options)
			}
		}
		return m, checkVolumeName(m.Name, m.Driver)
	case typeTmpfs:
		opts, err := tmpfsOptions(in)
		if err != nil {
			return Mount{}, err
		}
		m.Options = opts
	case typeImage:
		m.Source, m.ReadOnly = in.Source, true
		if o := in.ImageOptions; o != nil {
			m.Subpath = o.Subpath
		}
	}
	return m, nil
}

// tmpfsOptions writes a mount's tmpfs options as mount(8) takes them.
func tmpfsOptions(m *wire.Mount) (string, error) {
	var out []string
	if m.ReadOnly {
		out = append(out, "ro")
	}
	o := m.TmpfsOptions
	if o == nil {
		return strings.Join(out, ","), nil
	}
	if o.Mode != 0 {
		out = append(out, fmt.Sprintf("mode=%o", o.Mode))
	}
	if o.SizeBytes < 0 {
		return "", fmt.Errorf("tmpfs size can not be less than 0")
	}
	if o.SizeBytes != 0 {
		out = append(out, "size="+shortSize(o.SizeBytes))
	}
	for _, kv := range o.Options {
		switch {
		case len(kv) == 1 && (kv[0] == "exec" || kv[0] == "noexec"):
			out = append(out, kv[0])
		default:
			return "", fmt.Errorf("invalid option: %s", strings.Join(kv, "="))
		}
	}
	return strings.Join(out, ","), nil
}

// shortSize writes n bytes with the largest suffix of k, m, g that divides it.
func shortSize(n int64) string {
	const units = "kmg"
	i := 0
	for i < len(units) && n%1024 == 0 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprint(n) + units[i-1:i]
}

// SourceMissing is the error for a bind mount whose source does not exist and
// shall not be made. launch finds that out.
func SourceMissing(source string) error {
	return errs.New(errs.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", source)
}

func planVolumesFrom(list []string) ([]VolumesFrom, error) {
	var out []VolumesFrom
	for _, s := range list {
		if s == "" {
			return nil, errs.New(errs.Invalid, "volumes-from specification cannot be an empty string")
		}
		name, mode, _ := strings.Cut(s, ":")
		opts := strings.Split(mode, ",")
		for _, o := range opts {
			if g := bindModes[o]; g == "propagation" || g == "copy" {
				return nil, errs.New(errs.Invalid, "invalid mode: %s", mode)
			}
		}
		if !validBindMode(mode) {
			return nil, errs.New(errs.Invalid, "invalid mode: %s", mode)
		}
		out = append(out, VolumesFrom{Container: name, ReadOnly: slices.Contains(opts, "ro")})
	}
	return out, nil
}
