package ocispec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/plan"
)

// specVersion is the runtime-spec version of what Render gives.
const specVersion = "1.3.0"

// runtimeFailed begins what Docker's users read when the runtime refuses a
// spec. We refuse earlier, and say it the same way.
const runtimeFailed = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "

// initTarget is where the program at Inputs.InitPath is to be seen.
const initTarget = "/sbin/docker-init"

// Render writes p as an OCI spec. The errors are what Docker answers at start
// with code 500, so they have no kind.
func Render(p *plan.Plan, in Inputs) (*specs.Spec, error) {
	mounts, err := renderMounts(p, in)
	if err != nil {
		return nil, err
	}
	sysctls, err := renderSysctls(p)
	if err != nil {
		return nil, err
	}
	limitPing(p, in, sysctls)
	res, err := Resources(p, in)
	if err != nil {
		return nil, err
	}
	env := plan.Environ(p.Process.Env, in.Hostname, in.LinkEnv, plan.Terminal(p.Process.TTY))
	proc, err := process(p, p.Process, env, p.Security, in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specVersion,
		Process:     proc,
		Root:        &specs.Root{Path: in.RootPath, Readonly: p.ReadOnly},
		Mounts:      mounts,
		Annotations: maps.Clone(p.Annotations),
		Linux: &specs.Linux{
			Sysctl:            sysctls,
			Resources:         res,
			CgroupsPath:       in.CgroupPath,
			Namespaces:        namespaces(p, in),
			Devices:           devices(in),
			UIDMappings:       slices.Clone(in.UIDMap),
			GIDMappings:       slices.Clone(in.GIDMap),
			RootfsPropagation: rootPropagation(p),
			MaskedPaths:       slices.Clone(p.Security.MaskedPaths),
			ReadonlyPaths:     slices.Clone(p.Security.ReadonlyPaths),
		},
	}
	if p.Namespaces.UTS.Mode != plan.Host {
		s.Hostname, s.Domainname = in.Hostname, p.Domainname
	}
	if p.Security.Seccomp != plan.Unconfined {
		s.Linux.Seccomp = in.Seccomp
	}
	withInit(p, in, s)
	return s, nil
}

// Process writes a further process of p's container for the runtime. in.User
// is the process's, in.Caps and in.AppArmor are as at Render; the rest of in
// is not read.
func Process(p *plan.Plan, e *plan.ExecPlan, in Inputs) (*specs.Process, error) {
	sec := p.Security
	if e.Privileged {
		sec.Privileged, sec.AppArmor = true, plan.Unconfined
	}
	return process(p, e.Process, plan.Override(slices.Clone(in.LinkEnv), e.Process.Env), sec, in)
}

func process(p *plan.Plan, proc plan.Process, env []string, sec plan.Security, in Inputs) (*specs.Process, error) {
	limits, err := rlimits(p.Ulimits)
	if err != nil {
		return nil, err
	}
	caps := sec.Capabilities(in.Caps)
	score := p.OOMScoreAdj
	out := &specs.Process{
		Terminal: proc.TTY,
		User:     specs.User{UID: in.User.UID, GID: in.User.GID, Umask: proc.Umask, AdditionalGids: slices.Clone(in.User.Groups)},
		Args:     slices.Clone(proc.Args),
		Env:      withHome(env, in.User.Home),
		Cwd:      proc.Dir,
		// Inheritable and ambient stay empty: a program of another user
		// must not find capabilities it did not earn (CVE-2022-24769).
		Capabilities: &specs.LinuxCapabilities{
			Bounding: caps, Effective: slices.Clone(caps), Permitted: slices.Clone(caps),
		},
		Rlimits:         limits,
		NoNewPrivileges: sec.NoNewPrivileges,
		OOMScoreAdj:     &score,
	}
	if in.AppArmor != "" {
		out.ApparmorProfile = in.AppArmor
		if sec.AppArmor != "" {
			out.ApparmorProfile = sec.AppArmor
		}
	}
	if proc.TTY && proc.Console != [2]uint16{} {
		out.ConsoleSize = &specs.Box{Height: uint(proc.Console[0]), Width: uint(proc.Console[1])}
	}
	return out, nil
}

// withHome appends HOME unless env has one that is not empty.
func withHome(env []string, home string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return kv == "HOME=" })
	if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		return env
	}
	if home == "" {
		home = "/"
	}
	return append(env, "HOME="+home)
}

func withInit(p *plan.Plan, in Inputs, s *specs.Spec) {
	if !p.Init {
		return
	}
	if in.InitPath == "" {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[AnnotationInit] = "1"
		return
	}
	s.Process.Args = append([]string{initTarget, "--"}, s.Process.Args...)
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: initTarget, Type: "bind", Source: in.InitPath, Options: []string{"bind", "ro"},
	})
}

// namespaces lists what is fresh or joined; what is not listed is the host's.
func namespaces(p *plan.Plan, in Inputs) []specs.LinuxNamespace {
	ns := p.Namespaces
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(mode plan.Mode, t specs.LinuxNamespaceType, path string) {
		if mode != plan.Host {
			out = append(out, specs.LinuxNamespace{Type: t, Path: path})
		}
	}
	add(ns.Network.Mode, specs.NetworkNamespace, in.NetNS)
	add(ns.UTS.Mode, specs.UTSNamespace, in.UTSNS)
	add(ns.PID.Mode, specs.PIDNamespace, in.PIDNS)
	add(ns.IPC.Mode, specs.IPCNamespace, in.IPCNS)
	add(ns.Cgroup.Mode, specs.CgroupNamespace, "")
	if in.UserNS != "" {
		add(plan.Private, specs.UserNamespace, in.UserNS)
	}
	return out
}

// rootPropagation must let through what a mount inside wants to share.
func rootPropagation(p *plan.Plan) string {
	out := ""
	for _, m := range p.Mounts {
		switch m.Propagation {
		case "shared", "rshared":
			return "shared"
		case "slave", "rslave":
			out = "rslave"
		}
	}
	return out
}

// rlimitNames are the limits of getrlimit(2).
var rlimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
	"rtprio", "rttime", "sigpending", "stack",
}

func rlimits(list []plan.Ulimit) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range list {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		if !slices.Contains(rlimitNames, strings.ToLower(u.Name)) {
			return nil, fmt.Errorf(runtimeFailed+"wrong rlimit value: %s", name)
		}
		// -1 is RLIM_INFINITY in the kernel's unsigned form.
		out = append(out, specs.POSIXRlimit{Type: name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out, nil
}

// ipcSysctls are those of the IPC namespace (ipc_namespaces(7)) besides fs.mqueue.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// limitPing ends the default range of groups that may ping at the last one that
// is mapped: the kernel takes no others.
func limitPing(p *plan.Plan, in Inputs, sysctls map[string]string) {
	const name = "net.ipv4.ping_group_range"
	if _, ok := sysctls[name]; !ok || len(in.GIDMap) == 0 {
		return
	}
	for own := range p.Sysctls {
		if plan.SysctlName(own) == name {
			return
		}
	}
	last := in.GIDMap[len(in.GIDMap)-1]
	sysctls[name] = fmt.Sprintf("0 %d", min(uint64(last.ContainerID)+uint64(last.Size)-1, 1<<31-1))
}

// renderSysctls refuses those that would change more than the container's own
// namespaces.
func renderSysctls(p *plan.Plan) (map[string]string, error) {
	out := p.NetSysctls()
	for _, raw := range slices.Sorted(maps.Keys(p.Sysctls)) {
		name := plan.SysctlName(raw)
		if err := checkSysctl(name, p.Namespaces); err != nil {
			return nil, fmt.Errorf(runtimeFailed+"%w", err)
		}
		out[name] = p.Sysctls[raw]
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func checkSysctl(name string, ns plan.Namespaces) error {
	switch {
	case !validSysctl(name):
		return fmt.Errorf("sysctl %q is no name below /proc/sys", name)
	case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
		if ns.IPC.Mode == plan.Host {
			return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", name)
		}
		return nil
	case strings.HasPrefix(name, "net."):
		if ns.Network.Mode == plan.Host {
			return fmt.Errorf("sysctl %q not allowed in host network namespace", name)
		}
		return nil
	case name == "kernel.domainname":
		if ns.UTS.Mode == plan.Host {
			return fmt.Errorf("sysctl %q is not allowed in the hosts uts namespace", name)
		}
		return nil
	case name == "kernel.hostname":
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI \"hostname\" field", name)
	}
	return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
}

// validSysctl refuses names that would lead out of /proc/sys/net and the like
// once their dots are slashes and their slashes dots.
func validSysctl(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part == "/" || part == "//" || strings.IndexByte(part, 0) >= 0 {
			return false
		}
	}
	return true
}
