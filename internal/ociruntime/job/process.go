package job

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// ProcessOptions is what ProcessFromSpec needs besides the spec; see Options.
type ProcessOptions struct {
	Filter      []byte
	FilterFlags uint32
}

// defaultUmask is what a process gets whose spec names none, as Docker has it.
const defaultUmask = 0o022

// ProcessFromSpec makes a process of an OCI spec's. Errors are errs.Invalid and
// name the field.
func ProcessFromSpec(s *specs.Process, o ProcessOptions) (*Process, error) {
	p := &Process{
		Args: s.Args, Env: s.Env, Cwd: s.Cwd,
		UID: s.User.UID, GID: s.User.GID, Groups: s.User.AdditionalGids, Umask: defaultUmask,
		NoNewPrivileges: s.NoNewPrivileges, Terminal: s.Terminal,
		AppArmor: s.ApparmorProfile, SELinux: s.SelinuxLabel,
	}
	if s.User.Umask != nil {
		if *s.User.Umask > 0o777 {
			return nil, invalid("process.user.umask", "is %#o", *s.User.Umask)
		}
		p.Umask = *s.User.Umask
	}
	for _, step := range []func() error{
		p.checkStrings,
		func() error { return p.filter(o) },
		func() error { return p.capabilities(s.Capabilities) },
		func() error { return p.rlimits(s.Rlimits) },
		func() error { return p.console(s.ConsoleSize) },
		func() error { return p.priorities(s) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Process) checkStrings() error {
	if len(p.Args) == 0 {
		return invalid("process.args", "is empty")
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"process.args", p.Args}, {"process.env", p.Env}, {"process.apparmorProfile", []string{p.AppArmor, p.SELinux}}} {
		for _, v := range list.values {
			if strings.IndexByte(v, 0) >= 0 {
				return invalid(list.field, "holds a zero byte: %q", v)
			}
		}
	}
	if len(p.Groups) > 65536 { // NGROUPS_MAX
		return invalid("process.user.additionalGids", "has %d entries", len(p.Groups))
	}
	// (uid_t)-1 means "no change" to the kernel, so it can't be anybody.
	for _, id := range append([]uint32{p.UID, p.GID}, p.Groups...) {
		if id == 1<<32-1 {
			return invalid("process.user", "holds the id %d", id)
		}
	}
	return absolute("process.cwd", p.Cwd)
}

func (p *Process) filter(o ProcessOptions) error {
	if len(o.Filter) == 0 {
		return nil
	}
	if len(o.Filter)%8 != 0 || len(o.Filter) > maxFilter*8 {
		return invalid("linux.seccomp", "is compiled to %d bytes", len(o.Filter))
	}
	if o.FilterFlags&(unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH) != 0 {
		return invalid("linux.seccomp.flags", "hold one that is the runtime's own")
	}
	p.Seccomp = &Seccomp{Filter: o.Filter, Flags: o.FilterFlags}
	return nil
}

func (p *Process) capabilities(s *specs.LinuxCapabilities) error {
	if s == nil {
		return nil
	}
	for _, set := range []struct {
		field string
		names []string
		mask  *uint64
	}{
		{"bounding", s.Bounding, &p.Caps.Bounding},
		{"effective", s.Effective, &p.Caps.Effective},
		{"inheritable", s.Inheritable, &p.Caps.Inheritable},
		{"permitted", s.Permitted, &p.Caps.Permitted},
		{"ambient", s.Ambient, &p.Caps.Ambient},
	} {
		mask, err := CapabilityMask(set.names)
		if err != nil {
			return invalid("process.capabilities."+set.field, "%w", err)
		}
		*set.mask = mask
	}
	return nil
}

// CapabilityMask turns names such as CAP_CHOWN into a mask, bit n for
// capability n. An unknown name is an errs.Invalid.
func CapabilityMask(names []string) (uint64, error) {
	var mask uint64
next:
	for _, name := range names {
		for bit, known := range capabilityNames {
			if name == known {
				mask |= 1 << bit
				continue next
			}
		}
		return 0, errs.New(errs.Invalid, "unknown capability: %q", name)
	}
	return mask, nil
}

// CapabilityNames returns the names of a mask's capabilities in the order of
// their numbers; bits without a name are left out.
func CapabilityNames(mask uint64) []string {
	var names []string
	for bit, name := range capabilityNames {
		if mask>>bit&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

func (p *Process) rlimits(list []specs.POSIXRlimit) error {
	for _, l := range list {
		n, ok := rlimitNames[l.Type]
		if !ok {
			return invalid("process.rlimits", "holds the unknown type %q", l.Type)
		}
		for _, have := range p.Rlimits {
			if have.Resource == n {
				return invalid("process.rlimits", "holds %q twice", l.Type)
			}
		}
		if l.Soft > l.Hard {
			return invalid("process.rlimits", "%s: soft limit %d is above hard limit %d", l.Type, l.Soft, l.Hard)
		}
		p.Rlimits = append(p.Rlimits, Rlimit{Resource: n, Soft: l.Soft, Hard: l.Hard})
	}
	return nil
}

func (p *Process) console(b *specs.Box) error {
	if b == nil {
		return nil
	}
	if b.Height > 0xffff || b.Width > 0xffff {
		return invalid("process.consoleSize", "is %dx%d", b.Width, b.Height)
	}
	p.ConsoleHeight, p.ConsoleWidth = uint16(b.Height), uint16(b.Width)
	return nil
}

func (p *Process) priorities(s *specs.Process) error {
	if a := s.OOMScoreAdj; a != nil {
		if *a < -1000 || *a > 1000 {
			return invalid("process.oomScoreAdj", "is %d", *a)
		}
		v := int32(*a)
		p.OOMScoreAdj = &v
	}
	if q := s.Scheduler; q != nil {
		policy, ok := schedulerPolicies[q.Policy]
		if !ok {
			return invalid("process.scheduler.policy", "is %q", q.Policy)
		}
		if q.Priority < 0 {
			return invalid("process.scheduler.priority", "is %d", q.Priority)
		}
		p.Scheduler = &Scheduler{
			Policy: policy, Nice: q.Nice, Priority: uint32(q.Priority),
			Runtime: q.Runtime, Deadline: q.Deadline, Period: q.Period,
		}
		for _, f := range q.Flags {
			bit, ok := schedulerFlags[f]
			if !ok {
				return invalid("process.scheduler.flags", "holds %q", f)
			}
			p.Scheduler.Flags |= bit
		}
	}
	if q := s.IOPriority; q != nil {
		class, ok := ioClasses[q.Class]
		if !ok || q.Priority < 0 || q.Priority > 7 {
			return invalid("process.ioPriority", "is %s, %d", q.Class, q.Priority)
		}
		p.IOPriority = &IOPriority{Class: class, Priority: uint8(q.Priority)}
	}
	if q := s.ExecCPUAffinity; q != nil {
		var err error
		if p.Affinity, err = cpuSet(q.Initial); err == nil {
			p.FinalAffinity, err = cpuSet(q.Final)
		}
		return err
	}
	return nil
}

// cpuSet parses the kernel's list form, "0-3,7" (cpuset(7)).
func cpuSet(list string) ([]uint64, error) {
	if list == "" {
		return nil, nil
	}
	var set []uint64
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || lo > hi || hi > 8191 {
			return nil, invalid("process.execCPUAffinity", "holds %q", part)
		}
		for cpu := lo; cpu <= hi; cpu++ {
			for uint64(len(set)) <= cpu/64 {
				set = append(set, 0)
			}
			set[cpu/64] |= 1 << (cpu % 64)
		}
	}
	return set, nil
}
