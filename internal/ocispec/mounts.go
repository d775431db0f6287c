package ocispec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/plan"
)

// renderMounts lists Docker's mounts, then the container's own by depth.
func renderMounts(p *plan.Plan, in Inputs) ([]specs.Mount, error) {
	own, err := ownMounts(p, in)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range own {
		taken[m.Destination] = true
	}
	var out []specs.Mount
	for _, m := range defaultMounts(p) {
		if taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		if m.Destination == "/dev/shm" && p.Namespaces.IPC.Mode == plan.None {
			continue
		}
		out = append(out, m)
	}
	return append(out, own...), nil
}

// defaultMounts are those of every container.
func defaultMounts(p *plan.Plan) []specs.Mount {
	access := []string{"ro"}
	if p.Security.Privileged {
		access = nil
	}
	cgroup := []string{"ro"}
	if p.Security.WritableCgroups {
		cgroup = nil
	}
	mnt := func(dest, fstype, source string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: fstype, Source: source, Options: options}
	}
	return []specs.Mount{
		mnt("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
		mnt("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		mnt("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		mnt("/sys", "sysfs", "sysfs", append([]string{"nosuid", "noexec", "nodev"}, access...)...),
		mnt("/sys/fs/cgroup", "cgroup", "cgroup", append([]string{"nosuid", "noexec", "nodev"}, cgroup...)...),
		mnt("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
		mnt("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size="+strconv.FormatInt(p.ShmSize, 10)),
	}
}

// ownMounts are what the plan asks for, the three files of names, and a
// foreign /dev/shm.
func ownMounts(p *plan.Plan, in Inputs) ([]specs.Mount, error) {
	var out []specs.Mount
	taken := map[string]bool{}
	for _, m := range p.Mounts {
		s, err := Mount(m, in)
		if err != nil {
			return nil, err
		}
		taken[m.Target] = true
		out = append(out, s)
	}
	bind := func(source, target string, ro bool) {
		if source == "" || taken[target] {
			return
		}
		opts := []string{"rbind"}
		if ro {
			opts = append(opts, "ro")
		}
		if in.UserNS != "" && source != "/dev/shm" && source != in.ShmPath {
			opts = append(opts, "idmap")
		}
		out = append(out, specs.Mount{Destination: target, Type: "bind", Source: source, Options: append(opts, "rprivate")})
	}
	bind(in.ResolvConfPath, "/etc/resolv.conf", p.ReadOnly)
	bind(in.HostnamePath, "/etc/hostname", p.ReadOnly)
	bind(in.HostsPath, "/etc/hosts", p.ReadOnly)
	shm := in.ShmPath
	if shm == "" && p.Namespaces.IPC.Mode == plan.Host {
		shm = "/dev/shm"
	}
	bind(shm, "/dev/shm", false)
	out = append(out, boundDevices(in)...)
	slices.SortStableFunc(out, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return out, nil
}

// Mount renders one of a plan's mounts.
func Mount(m plan.Mount, in Inputs) (specs.Mount, error) {
	if m.Type == "tmpfs" {
		opts, err := tmpfsOptions(m.Options)
		if err != nil {
			return specs.Mount{}, err
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
	}
	source := m.Source
	if m.Type != "bind" {
		source = in.Sources[m.Target]
	}
	if source == "" {
		return specs.Mount{}, fmt.Errorf("mount at %s: no directory for %s %q", m.Target, m.Type, m.Name+m.Source)
	}
	opts := []string{"rbind"}
	if m.NonRecursive {
		opts[0] = "bind"
	}
	if m.ReadOnly {
		ro, err := readOnlyOption(m, in)
		if err != nil {
			return specs.Mount{}, err
		}
		opts = append(opts, ro)
	}
	if in.UserNS != "" && in.Mapped[m.Target] {
		opts = append(opts, "idmap")
	}
	prop := m.Propagation
	if prop == "" {
		prop = "rprivate"
	}
	if m.Within != "" {
		opts = append(opts, "src-beneath="+m.Within)
	}
	o := in.Owners[m.Target]
	return specs.Mount{
		Destination: m.Target, Type: "bind", Source: source, Options: append(opts, prop), UIDMappings: o.UID, GIDMappings: o.GID,
	}, nil
}

// readOnlyOption: read-only is meant with all that is mounted below, where the
// kernel can.
func readOnlyOption(m plan.Mount, in Inputs) (string, error) {
	switch {
	case m.ReadOnlyForce && !in.RecursiveReadOnly:
		return "", fmt.Errorf("rro is not supported: kernel is older than 5.12")
	case m.ReadOnlyTop || m.NonRecursive || !in.RecursiveReadOnly:
		return "ro", nil
	case !m.ReadOnlyForce && m.Propagation != "" && m.Propagation != "rprivate":
		// The flag would travel to the mount's peers.
		return "ro", nil
	}
	return "rro", nil
}

// tmpfsFlags gives each mount flag that a tmpfs may have the group in which
// the last one counts.
var tmpfsFlags = map[string]string{
	"defaults": "", "ro": "access", "rw": "access", "suid": "suid", "nosuid": "suid", "dev": "dev", "nodev": "dev",
	"exec": "exec", "noexec": "exec", "sync": "sync", "async": "sync", "dirsync": "dirsync", "mand": "mand", "nomand": "mand",
	"atime": "atime", "noatime": "atime", "diratime": "diratime", "nodiratime": "diratime",
	"relatime": "relatime", "norelatime": "relatime", "strictatime": "strictatime", "nostrictatime": "strictatime",
	"private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation", "unbindable": "propagation", "runbindable": "propagation",
}

// tmpfsValues are the options of tmpfs(5) that take a value.
var tmpfsValues = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}

// tmpfsOptions puts Docker's options under the user's; of contrary ones the
// last counts.
func tmpfsOptions(user string) ([]string, error) {
	list := []string{"noexec", "nosuid", "nodev", "rprivate"}
	if user != "" {
		list = append(list, strings.Split(user, ",")...)
	}
	last := map[string]int{}
	group := func(o string) string {
		if g, ok := tmpfsFlags[o]; ok {
			return g
		}
		key, _, _ := strings.Cut(o, "=")
		return key
	}
	for i, o := range list {
		key, _, valued := strings.Cut(o, "=")
		_, flag := tmpfsFlags[o]
		if !flag && !(valued && slices.Contains(tmpfsValues, key)) {
			return nil, fmt.Errorf("invalid tmpfs option %q", key)
		}
		last[group(o)] = i
	}
	var out []string
	for i, o := range list {
		if o != "defaults" && last[group(o)] == i {
			out = append(out, o)
		}
	}
	return out, nil
}
