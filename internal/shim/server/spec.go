package server

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// processJSON is a process in the form in which other runtimes take it
// (runtime-spec, config.md, "Process"). Its system call filter is not in it: a
// runtime uses the container's.
func processJSON(p *job.Process) ([]byte, error) {
	s := specs.Process{
		Terminal: p.Terminal, Args: p.Args, Env: p.Env, Cwd: p.Cwd, NoNewPrivileges: p.NoNewPrivileges,
		ApparmorProfile: p.AppArmor, SelinuxLabel: p.SELinux,
		User: specs.User{UID: p.UID, GID: p.GID, AdditionalGids: p.Groups, Umask: &p.Umask},
		Capabilities: &specs.LinuxCapabilities{
			Bounding: job.CapabilityNames(p.Caps.Bounding), Effective: job.CapabilityNames(p.Caps.Effective),
			Inheritable: job.CapabilityNames(p.Caps.Inheritable), Permitted: job.CapabilityNames(p.Caps.Permitted),
			Ambient: job.CapabilityNames(p.Caps.Ambient),
		},
	}
	if p.OOMScoreAdj != nil {
		n := int(*p.OOMScoreAdj)
		s.OOMScoreAdj = &n
	}
	if p.ConsoleHeight > 0 || p.ConsoleWidth > 0 {
		s.ConsoleSize = &specs.Box{Height: uint(p.ConsoleHeight), Width: uint(p.ConsoleWidth)}
	}
	for _, r := range p.Rlimits {
		name, err := rlimitName(r.Resource)
		if err != nil {
			return nil, err
		}
		s.Rlimits = append(s.Rlimits, specs.POSIXRlimit{Type: name, Soft: r.Soft, Hard: r.Hard})
	}
	return json.Marshal(s)
}

func rlimitName(resource int) (string, error) {
	names := [...]string{
		unix.RLIMIT_CPU: "CPU", unix.RLIMIT_FSIZE: "FSIZE", unix.RLIMIT_DATA: "DATA", unix.RLIMIT_STACK: "STACK",
		unix.RLIMIT_CORE: "CORE", unix.RLIMIT_RSS: "RSS", unix.RLIMIT_NPROC: "NPROC", unix.RLIMIT_NOFILE: "NOFILE",
		unix.RLIMIT_MEMLOCK: "MEMLOCK", unix.RLIMIT_AS: "AS", unix.RLIMIT_LOCKS: "LOCKS", unix.RLIMIT_SIGPENDING: "SIGPENDING",
		unix.RLIMIT_MSGQUEUE: "MSGQUEUE", unix.RLIMIT_NICE: "NICE", unix.RLIMIT_RTPRIO: "RTPRIO", unix.RLIMIT_RTTIME: "RTTIME",
	}
	if resource < 0 || resource >= len(names) || names[resource] == "" {
		return "", errs.New(errs.Invalid, "resource limit %d has no name", resource)
	}
	return "RLIMIT_" + names[resource], nil
}
