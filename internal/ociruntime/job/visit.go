package job

// The layout of the wire form: one function for each struct, naming its fields
// in order.

func visitJob(c *coder, j *Job) {
	c.str(&j.ID)
	c.str(&j.Bundle)
	visitProcess(c, &j.Process)
	c.flag(&j.Reaper)
	list(c, &j.Namespaces, func(c *coder, n *Namespace) {
		num(c, &n.Type)
		c.str(&n.Path)
	})
	list(c, &j.UIDMap, visitIDMap)
	list(c, &j.GIDMap, visitIDMap)
	list(c, &j.TimeOffsets, func(c *coder, t *TimeOffset) {
		c.str(&t.Clock)
		num(c, &t.Secs)
		num(c, &t.Nanos)
	})
	c.str(&j.Hostname)
	c.str(&j.Domainname)
	list(c, &j.Sysctls, visitKeyValue)
	visitRoot(c, &j.Root)
	list(c, &j.Mounts, visitMount)
	list(c, &j.Devices, func(c *coder, d *Device) {
		c.str(&d.Path)
		num(c, &d.Mode)
		num(c, &d.Major)
		num(c, &d.Minor)
		num(c, &d.UID)
		num(c, &d.GID)
	})
	c.strs(&j.MaskedPaths)
	c.strs(&j.ReadonlyPaths)
	opt(c, &j.Personality, num[uint64])
	for _, h := range []*[]Hook{
		&j.Hooks.Prestart, &j.Hooks.CreateRuntime, &j.Hooks.CreateContainer,
		&j.Hooks.StartContainer, &j.Hooks.Poststart, &j.Hooks.Poststop,
	} {
		list(c, h, visitHook)
	}
	list(c, &j.Annotations, visitKeyValue)
	c.str(&j.Cgroup.Path)
	opt(c, &j.Cgroup.Resources, visitResources)
	c.flag(&j.StdinOpen)
}

func visitProcess(c *coder, p *Process) {
	c.strs(&p.Args)
	c.strs(&p.Env)
	c.str(&p.Cwd)
	num(c, &p.UID)
	num(c, &p.GID)
	list(c, &p.Groups, num[uint32])
	num(c, &p.Umask)
	for _, set := range []*uint64{&p.Caps.Bounding, &p.Caps.Effective, &p.Caps.Inheritable, &p.Caps.Permitted, &p.Caps.Ambient} {
		num(c, set)
	}
	c.flag(&p.NoNewPrivileges)
	list(c, &p.Rlimits, func(c *coder, r *Rlimit) {
		num(c, &r.Resource)
		num(c, &r.Soft)
		num(c, &r.Hard)
	})
	opt(c, &p.OOMScoreAdj, num[int32])
	c.flag(&p.Terminal)
	num(c, &p.ConsoleHeight)
	num(c, &p.ConsoleWidth)
	opt(c, &p.Seccomp, func(c *coder, s *Seccomp) {
		c.bytes(&s.Filter)
		num(c, &s.Flags)
	})
	c.str(&p.AppArmor)
	c.str(&p.SELinux)
	opt(c, &p.Scheduler, func(c *coder, s *Scheduler) {
		num(c, &s.Policy)
		num(c, &s.Flags)
		num(c, &s.Nice)
		num(c, &s.Priority)
		num(c, &s.Runtime)
		num(c, &s.Deadline)
		num(c, &s.Period)
	})
	opt(c, &p.IOPriority, func(c *coder, i *IOPriority) {
		num(c, &i.Class)
		num(c, &i.Priority)
	})
	list(c, &p.Affinity, num[uint64])
	list(c, &p.FinalAffinity, num[uint64])
}

func visitRoot(c *coder, r *Root) {
	opt(c, &r.Overlay, func(c *coder, o *Overlay) {
		c.strs(&o.Lower)
		c.str(&o.Upper)
		c.str(&o.Work)
		c.strs(&o.Options)
		c.flag(&o.Mapped)
		c.flag(&o.Bounded)
	})
	c.str(&r.Path)
	c.flag(&r.Readonly)
	num(c, &r.Propagation)
}

func visitMount(c *coder, m *Mount) {
	c.str(&m.Target)
	c.str(&m.Type)
	c.str(&m.Source)
	num(c, &m.Set)
	num(c, &m.Clear)
	num(c, &m.RecSet)
	num(c, &m.RecClear)
	c.flag(&m.Recursive)
	num(c, &m.Propagation)
	num(c, &m.Flags)
	c.strs(&m.Data)
	c.flag(&m.CopyUp)
	c.flag(&m.IDMapped)
	c.flag(&m.IDMapRec)
	list(c, &m.UIDMap, visitIDMap)
	list(c, &m.GIDMap, visitIDMap)
	c.flag(&m.SourceNoFollow)
	c.str(&m.SourceBeneath)
	c.flag(&m.TargetNoFollow)
}

func visitIDMap(c *coder, m *IDMap) {
	num(c, &m.Inside)
	num(c, &m.Outside)
	num(c, &m.Size)
}

func visitKeyValue(c *coder, kv *KeyValue) {
	c.str(&kv.Key)
	c.str(&kv.Value)
}

func visitHook(c *coder, h *Hook) {
	c.str(&h.Path)
	c.strs(&h.Args)
	c.strs(&h.Env)
	num(c, &h.Timeout)
}
