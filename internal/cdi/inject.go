package cdi

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Inject edits a specification so that it has the devices with these names. An
// unknown one is errs.NotFound. After an error the specification is not to be
// used.
func (s *Set) Inject(spec *specs.Spec, names []string) error {
	var unknown []string
	for _, name := range names {
		if d, ok := s.devices[name]; !ok || d.twice {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return errs.New(errs.NotFound, "unresolvable CDI devices %s", strings.Join(unknown, ", "))
	}
	of := map[*File]bool{}
	for _, name := range names {
		d := s.devices[name]
		if !of[d.file] {
			of[d.file] = true
			if err := apply(spec, &d.file.Edits); err != nil {
				return fmt.Errorf("%s: %w", d.path, err)
			}
		}
		if err := apply(spec, d.edits); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	slices.SortStableFunc(spec.Mounts, func(a, b specs.Mount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	return nil
}

func apply(spec *specs.Spec, e *Edits) error {
	if spec.Process == nil || spec.Linux == nil {
		return errs.New(errs.Invalid, "the specification has no process")
	}
	for _, kv := range e.Env {
		key := kv[:strings.IndexByte(kv, '=')+1]
		spec.Process.Env = append(slices.DeleteFunc(spec.Process.Env, func(have string) bool { return strings.HasPrefix(have, key) }), kv)
	}
	for _, n := range e.DeviceNodes {
		if err := addNode(spec, n); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		addMount(spec, specs.Mount{Destination: m.ContainerPath, Source: m.HostPath, Type: cmp.Or(m.Type, "bind"), Options: bindOptions(m)})
	}
	for _, h := range e.Hooks {
		addHook(spec, h)
	}
	for _, g := range e.AdditionalGIDs {
		if g != 0 && !slices.Contains(spec.Process.User.AdditionalGids, g) {
			spec.Process.User.AdditionalGids = append(spec.Process.User.AdditionalGids, g)
		}
	}
	for _, n := range e.NetDevices {
		if spec.Linux.NetDevices == nil {
			spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
		}
		spec.Linux.NetDevices[n.HostName] = specs.LinuxNetDevice{Name: n.Name}
	}
	if r := e.IntelRdt; r != nil {
		spec.Linux.IntelRdt = &specs.LinuxIntelRdt{
			ClosID: r.ClosID, L3CacheSchema: r.L3CacheSchema, MemBwSchema: r.MemBwSchema, Schemata: r.Schemata, EnableMonitoring: r.EnableMonitoring,
		}
	}
	return nil
}

// bindOptions are a mount's, with "bind" where nothing says what it is.
func bindOptions(m Mount) []string {
	if m.Type != "" && m.Type != "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
		return slices.Clone(m.Options)
	}
	return append([]string{"bind"}, m.Options...)
}

func addMount(spec *specs.Spec, m specs.Mount) {
	spec.Mounts = append(slices.DeleteFunc(spec.Mounts, func(have specs.Mount) bool { return have.Destination == m.Destination }), m)
}

func addHook(spec *specs.Spec, h Hook) {
	if spec.Hooks == nil {
		spec.Hooks = new(specs.Hooks)
	}
	list := map[string]*[]specs.Hook{
		//lint:ignore SA1019 vendors' files still have it
		"prestart":      &spec.Hooks.Prestart,
		"createRuntime": &spec.Hooks.CreateRuntime, "createContainer": &spec.Hooks.CreateContainer,
		"startContainer": &spec.Hooks.StartContainer, "poststart": &spec.Hooks.Poststart, "poststop": &spec.Hooks.Poststop,
	}[h.Name]
	*list = append(*list, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
}

// addNode adds a device node, and the right to use it. In a user namespace no
// node can be made: there it is the host's own.
func addNode(spec *specs.Spec, n Node) error {
	n, err := n.complete()
	if err != nil {
		return err
	}
	d := specs.LinuxDevice{Path: n.Path, Type: n.Type, Major: n.Major, Minor: n.Minor, UID: n.UID, GID: n.GID}
	if n.FileMode != nil {
		mode := os.FileMode(*n.FileMode & 0o7777)
		d.FileMode = &mode
	}
	// A node without an owner is the process's.
	if u := &spec.Process.User; d.UID == nil && u.UID > 0 {
		d.UID = &u.UID
	}
	if u := &spec.Process.User; d.GID == nil && u.GID > 0 {
		d.GID = &u.GID
	}
	if slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace }) {
		addMount(spec, specs.Mount{Destination: n.Path, Type: "bind", Source: n.HostPath, Options: []string{"bind", "rprivate"}})
	} else {
		spec.Linux.Devices = append(slices.DeleteFunc(spec.Linux.Devices, func(have specs.LinuxDevice) bool { return have.Path == n.Path }), d)
	}
	if n.Type == "p" {
		return nil
	}
	if spec.Linux.Resources == nil {
		spec.Linux.Resources = new(specs.LinuxResources)
	}
	kind := n.Type
	if kind == "u" {
		kind = "c"
	}
	spec.Linux.Resources.Devices = append(spec.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: kind, Major: &n.Major, Minor: &n.Minor, Access: n.Permissions,
	})
	return nil
}

// complete fills in what a node leaves to the host.
func (n Node) complete() (Node, error) {
	n.HostPath = cmp.Or(n.HostPath, n.Path)
	n.Permissions = cmp.Or(n.Permissions, "rwm")
	if n.Type == "p" || n.Type != "" && n.Major != 0 {
		return n, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(n.HostPath, &st); err != nil {
		return n, errs.New(errs.NotFound, "device node %s: %w", n.HostPath, err)
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
	if kind == "" || n.Type != "" && n.Type != kind && (n.Type != "u" || kind != "c") {
		return n, errs.New(errs.Invalid, "device node %s is not of type %q", n.HostPath, n.Type)
	}
	n.Type = kind
	n.Major, n.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	if n.FileMode == nil {
		mode := st.Mode & 0o777
		n.FileMode = &mode
	}
	return n, nil
}
