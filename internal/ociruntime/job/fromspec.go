package job

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Options is what FromSpec needs besides the spec.
type Options struct {
	ID     string
	Bundle string // absolute; a relative root.path is below it
	// Overlay, if set, takes the place of the spec's root.path.
	Overlay *Overlay
	// Filter is the compiled form of the spec's seccomp profile (package
	// seccomp); nil for no filter, whatever the spec says. FilterFlags are
	// SECCOMP_FILTER_FLAG_*.
	Filter      []byte
	FilterFlags uint32
	Reaper      bool // docker run --init
	StdinOpen   bool
}

// maxPath is the kernel's PATH_MAX with its final zero.
const maxPath = 4096

// maxFilter is the number of instructions the kernel accepts (BPF_MAXINSNS).
const maxFilter = 4096

// FromSpec makes a job of an OCI runtime spec (runtime-spec 1.3, config.md and
// config-linux.md). What the spec asks for and this runtime does not know is an
// errs.Invalid that names the field; nothing is left out silently.
func FromSpec(spec *specs.Spec, o Options) (*Job, error) {
	if spec.Process == nil {
		return nil, invalid("process", "is missing")
	}
	p, err := ProcessFromSpec(spec.Process, ProcessOptions{Filter: o.Filter, FilterFlags: o.FilterFlags})
	if err != nil {
		return nil, err
	}
	j := &Job{
		ID: o.ID, Bundle: o.Bundle, Process: *p, Reaper: o.Reaper, StdinOpen: o.StdinOpen,
		Hostname: spec.Hostname, Domainname: spec.Domainname,
		Annotations: sortedPairs(spec.Annotations),
	}
	linux := spec.Linux
	if linux == nil {
		linux = &specs.Linux{}
	}
	steps := []func() error{
		func() error { return j.namespaces(linux) },
		func() error { return j.names() },
		func() error { return j.root(spec.Root, linux.RootfsPropagation, o) },
		func() error { return j.mounts(spec.Mounts) },
		func() error { return j.devices(linux.Devices) },
		func() error { return j.paths(linux) },
		func() error { return j.sysctls(linux.Sysctl) },
		func() error { return j.personality(linux.Personality) },
		func() error { return j.hooks(spec.Hooks) },
		func() error { return unsupported(linux) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	j.Cgroup = Cgroup{Path: linux.CgroupsPath, Resources: linux.Resources}
	return j, nil
}

func invalid(field, format string, args ...any) error {
	return errs.New(errs.Invalid, "spec: "+field+" "+format, args...)
}

// unsupported refuses what would change the container if it were ignored.
func unsupported(l *specs.Linux) error {
	switch {
	case l.IntelRdt != nil:
		return errs.New(errs.Unsupported, "spec: linux.intelRdt is not supported")
	case l.MemoryPolicy != nil:
		return errs.New(errs.Unsupported, "spec: linux.memoryPolicy is not supported")
	case len(l.NetDevices) > 0:
		return errs.New(errs.Unsupported, "spec: linux.netDevices is not supported")
	case l.MountLabel != "":
		return errs.New(errs.Unsupported, "spec: linux.mountLabel is not supported")
	}
	return nil
}

func (j *Job) namespaces(l *specs.Linux) error {
	seen := uint32(0)
	for _, n := range l.Namespaces {
		flag, ok := namespaceFlags[n.Type]
		if !ok {
			return invalid("linux.namespaces", "holds the unknown type %q", n.Type)
		}
		if seen&flag != 0 {
			return invalid("linux.namespaces", "holds %q twice", n.Type)
		}
		seen |= flag
		if n.Path != "" {
			if err := absolute("linux.namespaces["+string(n.Type)+"].path", n.Path); err != nil {
				return err
			}
		}
		j.Namespaces = append(j.Namespaces, Namespace{Type: flag, Path: n.Path})
	}
	var err error
	if j.UIDMap, err = idMaps("linux.uidMappings", l.UIDMappings); err != nil {
		return err
	}
	if j.GIDMap, err = idMaps("linux.gidMappings", l.GIDMappings); err != nil {
		return err
	}
	user := j.Namespace(unix.CLONE_NEWUSER)
	switch {
	case j.Namespace(unix.CLONE_NEWNS) == nil:
		return invalid("linux.namespaces", "holds no mount namespace")
	case len(j.UIDMap)+len(j.GIDMap) > 0 && user == nil:
		return invalid("linux.uidMappings", "needs a user namespace")
	case user != nil && user.Path == "" && (len(j.UIDMap) == 0 || len(j.GIDMap) == 0):
		return invalid("linux.uidMappings", "and gidMappings are needed for a new user namespace")
	}
	for clock, off := range l.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets", "holds the unknown clock %q", clock)
		}
		if off.Nanosecs >= 1e9 {
			return invalid("linux.timeOffsets", "%s has %d nanoseconds", clock, off.Nanosecs)
		}
		j.TimeOffsets = append(j.TimeOffsets, TimeOffset{clock, off.Secs, off.Nanosecs})
	}
	slices.SortFunc(j.TimeOffsets, func(a, b TimeOffset) int { return strings.Compare(a.Clock, b.Clock) })
	if t := j.Namespace(unix.CLONE_NEWTIME); len(j.TimeOffsets) > 0 && (t == nil || t.Path != "") {
		return invalid("linux.timeOffsets", "needs a new time namespace")
	}
	return nil
}

// Namespace returns the entry of the given CLONE_NEW* type, or nil.
func (j *Job) Namespace(flag uint32) *Namespace {
	for i := range j.Namespaces {
		if j.Namespaces[i].Type == flag {
			return &j.Namespaces[i]
		}
	}
	return nil
}

// names checks the host and domain name: 64 bytes is the kernel's limit
// (sethostname(2)), and naming a shared namespace would rename the host.
func (j *Job) names() error {
	for _, f := range []struct{ field, name string }{{"hostname", j.Hostname}, {"domainname", j.Domainname}} {
		if f.name == "" {
			continue
		}
		if len(f.name) > 64 || strings.IndexByte(f.name, 0) >= 0 {
			return invalid(f.field, "must be at most 64 bytes without a zero")
		}
		if j.Namespace(unix.CLONE_NEWUTS) == nil {
			return invalid(f.field, "needs a uts namespace")
		}
	}
	return nil
}

func (j *Job) root(r *specs.Root, propagation string, o Options) error {
	if r == nil {
		return invalid("root", "is missing")
	}
	j.Root = Root{Overlay: o.Overlay, Readonly: r.Readonly}
	flag, ok := propagations[strings.TrimPrefix(propagation, "r")]
	if propagation != "" && !ok {
		return invalid("linux.rootfsPropagation", "is %q", propagation)
	}
	if propagation != "" {
		// The spec has no recursive form; the whole tree is meant.
		j.Root.Propagation = flag | unix.MS_REC
	}
	if o.Overlay != nil {
		if o.Overlay.Mapped && (hostRoot(j.UIDMap) < 0 || hostRoot(j.GIDMap) < 0) {
			return invalid("root", "has a mapped overlay: linux.uidMappings and gidMappings need a line for 0")
		}
		return overlay(o.Overlay)
	}
	p := r.Path
	if p == "" {
		return invalid("root.path", "is empty")
	}
	if !path.IsAbs(p) {
		if o.Bundle == "" {
			return invalid("root.path", "is relative and there is no bundle")
		}
		p = path.Join(o.Bundle, p)
	}
	j.Root.Path = p
	return absolute("root.path", p)
}

func overlay(o *Overlay) error {
	if len(o.Lower) == 0 && o.Upper == "" || len(o.Lower) > 500 {
		return invalid("root", "has an overlay of %d layers; 1 to 500 are possible", len(o.Lower))
	}
	for _, dir := range append([]string{o.Upper, o.Work}, o.Lower...) {
		if o.Upper == "" && o.Work == "" && dir == "" {
			continue // a read-only overlay
		}
		if len(o.Lower) == 0 && o.Work == "" && dir == "" {
			continue // a whole tree
		}
		if err := absolute("root overlay", dir); err != nil {
			return err
		}
	}
	return nil
}

// absolute checks a path that is used as it is: on the host, or below a root
// that the runtime resolves it in.
func absolute(field, p string) error {
	switch {
	case !path.IsAbs(p):
		return invalid(field, "%q is not an absolute path", p)
	case len(p) >= maxPath:
		return invalid(field, "is %d bytes long; %d are possible", len(p), maxPath-1)
	case strings.IndexByte(p, 0) >= 0:
		return invalid(field, "%q holds a zero byte", p)
	}
	return nil
}

func (j *Job) paths(l *specs.Linux) error {
	for _, p := range l.MaskedPaths {
		if err := absolute("linux.maskedPaths", p); err != nil {
			return err
		}
	}
	for _, p := range l.ReadonlyPaths {
		if err := absolute("linux.readonlyPaths", p); err != nil {
			return err
		}
	}
	j.MaskedPaths, j.ReadonlyPaths = l.MaskedPaths, l.ReadonlyPaths
	return nil
}

func (j *Job) sysctls(m map[string]string) error {
	for _, kv := range sortedPairs(m) {
		// Dots and slashes both separate, as sysctl(8) has it; the form kept
		// is the path below /proc/sys.
		name := kv.Key
		if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
			name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "" || part == "." || part == ".." || strings.IndexByte(part, 0) >= 0 {
				return invalid("linux.sysctl", "holds the key %q", kv.Key)
			}
		}
		need := sysctlNamespace(name)
		if need == 0 {
			return invalid("linux.sysctl", "%q is not in a separate kernel namespace", kv.Key)
		}
		if j.Namespace(need) == nil {
			return invalid("linux.sysctl", "%q is not allowed in the host's namespace", kv.Key)
		}
		j.Sysctls = append(j.Sysctls, KeyValue{name, kv.Value})
	}
	slices.SortFunc(j.Sysctls, func(a, b KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

// sysctlNamespace says which namespace holds the setting at a path below
// /proc/sys, 0 if it is the whole machine's.
func sysctlNamespace(name string) uint32 {
	switch {
	case strings.HasPrefix(name, "net/"):
		return unix.CLONE_NEWNET
	case strings.HasPrefix(name, "fs/mqueue/"), slices.Contains(ipcSysctls, name):
		return unix.CLONE_NEWIPC
	case name == "kernel/hostname", name == "kernel/domainname":
		return unix.CLONE_NEWUTS
	case strings.HasPrefix(name, "user/"):
		return unix.CLONE_NEWUSER
	}
	return 0
}

func (j *Job) personality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	if len(p.Flags) > 0 {
		return invalid("linux.personality.flags", "are not supported")
	}
	var v uint64
	switch p.Domain {
	case specs.PerLinux:
	case specs.PerLinux32:
		v = 8 // PER_LINUX32 of linux/personality.h
	default:
		return invalid("linux.personality.domain", "is %q", p.Domain)
	}
	j.Personality = &v
	return nil
}

func (j *Job) hooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name string
		from []specs.Hook
		to   *[]Hook
	}{
		//lint:ignore SA1019 deprecated, and still in use
		{"prestart", h.Prestart, &j.Hooks.Prestart},
		{"createRuntime", h.CreateRuntime, &j.Hooks.CreateRuntime},
		{"createContainer", h.CreateContainer, &j.Hooks.CreateContainer},
		{"startContainer", h.StartContainer, &j.Hooks.StartContainer},
		{"poststart", h.Poststart, &j.Hooks.Poststart},
		{"poststop", h.Poststop, &j.Hooks.Poststop},
	} {
		for _, s := range kind.from {
			if err := absolute("hooks."+kind.name+".path", s.Path); err != nil {
				return err
			}
			hook := Hook{Path: s.Path, Args: s.Args, Env: s.Env}
			if s.Timeout != nil {
				if *s.Timeout <= 0 || *s.Timeout > 1<<20 {
					return invalid("hooks."+kind.name+".timeout", "is %d", *s.Timeout)
				}
				hook.Timeout = uint32(*s.Timeout)
			}
			*kind.to = append(*kind.to, hook)
		}
	}
	return nil
}

func idMaps(field string, maps []specs.LinuxIDMapping) ([]IDMap, error) {
	if len(maps) > 340 { // the kernel's UID_GID_MAP_MAX_EXTENTS
		return nil, invalid(field, "has %d entries; 340 are possible", len(maps))
	}
	var out []IDMap
	for _, m := range maps {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			return nil, invalid(field, "%d:%d:%d leaves the 32-bit range", m.ContainerID, m.HostID, m.Size)
		}
		out = append(out, IDMap{m.ContainerID, m.HostID, m.Size})
	}
	return out, nil
}

func sortedPairs(m map[string]string) []KeyValue {
	var out []KeyValue
	for k, v := range m {
		out = append(out, KeyValue{k, v})
	}
	slices.SortFunc(out, func(a, b KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (j *Job) devices(list []specs.LinuxDevice) error {
	for _, d := range list {
		if err := absolute("linux.devices.path", d.Path); err != nil {
			return err
		}
		dev := Device{Path: d.Path, Mode: 0o666}
		if d.FileMode != nil {
			dev.Mode = uint32(d.FileMode.Perm())
		}
		switch d.Type {
		case "c", "u":
			dev.Mode |= unix.S_IFCHR
		case "b":
			dev.Mode |= unix.S_IFBLK
		case "p":
			dev.Mode |= unix.S_IFIFO
		default:
			return invalid("linux.devices.type", "is %q for %s", d.Type, d.Path)
		}
		if d.Type != "p" {
			if d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20 {
				return invalid("linux.devices", "%s has the number %d:%d", d.Path, d.Major, d.Minor)
			}
			dev.Major, dev.Minor = uint32(d.Major), uint32(d.Minor)
		}
		if d.UID != nil {
			dev.UID = *d.UID
		}
		if d.GID != nil {
			dev.GID = *d.GID
		}
		j.Devices = append(j.Devices, dev)
	}
	// The spec wants these in every container (config-linux.md, "Default
	// Devices"); an entry above for the same path wins.
	for _, d := range defaultDevices {
		if !slices.ContainsFunc(j.Devices, func(have Device) bool { return have.Path == d.Path }) {
			j.Devices = append(j.Devices, d)
		}
	}
	return nil
}
