package policy

import (
	"slices"
	"strings"

	"gantry/internal/wire"
)

// limits decides about the limits that a request asks for: none above those of
// the policy.
func (p *Policy) limits(operation string, r *wire.Resources) error {
	c := &p.Create
	if c.memory > 0 {
		if r.Memory > c.memory || r.Memory < 0 {
			return p.deny(operation, "create.memory: %d bytes are more than %s", r.Memory, c.Memory)
		}
		if r.MemorySwap < 0 || r.MemorySwap > 2*c.memory {
			return p.deny(operation, "create.memory: memory and swap are bounded by twice %s", c.Memory)
		}
		if r.OomKillDisable != nil && *r.OomKillDisable {
			return p.deny(operation, "create.memory: OomKillDisable is not allowed")
		}
	}
	if c.CPUs > 0 {
		most := int64(c.CPUs * 1e9)
		if r.NanoCPUs < 0 || r.NanoCPUs > most {
			return p.deny(operation, "create.cpus: more than %v", c.CPUs)
		}
		period := r.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		if r.CPUQuota < 0 || float64(r.CPUQuota) > c.CPUs*float64(period) {
			return p.deny(operation, "create.cpus: more than %v", c.CPUs)
		}
	}
	if n := r.PidsLimit; c.Pids > 0 && n != nil && (*n <= 0 || *n > c.Pids) {
		return p.deny(operation, "create.pids: more than %d", c.Pids)
	}
	if (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && !c.Privileged {
		return p.deny(operation, "create.privileged: real-time processor time is not allowed")
	}
	return nil
}

// fill gives a new container the limits that it did not ask for.
func (c *Create) fill(r *wire.Resources) {
	if c.memory > 0 && r.Memory == 0 {
		r.Memory = c.memory
	}
	if c.CPUs > 0 && r.NanoCPUs == 0 && r.CPUQuota == 0 {
		if r.CPUPeriod != 0 {
			r.CPUQuota = int64(c.CPUs * float64(r.CPUPeriod))
		} else {
			r.NanoCPUs = int64(c.CPUs * 1e9)
		}
	}
	if c.Pids > 0 && r.PidsLimit == nil {
		n := c.Pids
		r.PidsLimit = &n
	}
}

const updateOp = "container.update"

// UpdateContainer decides about changes of a container.
func (p *Policy) UpdateContainer(u *wire.UpdateRequest) error {
	if u.CgroupParent != "" && !p.Create.Privileged {
		return p.deny(updateOp, "create.privileged: the control group may not be chosen")
	}
	if err := p.devices(&u.Resources); err != nil {
		return err
	}
	if err := p.limits(updateOp, &u.Resources); err != nil || u.Gantry == nil {
		return err
	}
	return p.edit(u.Gantry)
}

// edit decides about changes beyond Docker's. Host directories can be bound by
// new containers alone, where each start looks for links that lead out.
func (p *Policy) edit(x *wire.UpdateExtra) error {
	all := []wire.PortMap{x.AddPorts}
	if x.PublishedPorts != nil {
		all = append(all, *x.PublishedPorts)
	}
	for _, ports := range all {
		if err := p.ports(updateOp, ports); err != nil {
			return err
		}
	}
	for _, m := range x.AddMounts {
		if m.Type != "tmpfs" {
			return p.deny(updateOp, "create.binds: mounts of type %q can be given to new containers alone", m.Type)
		}
	}
	for k, v := range x.Labels {
		if want, ok := p.Labels[k]; ok && v != want {
			return p.deny(updateOp, "labels: the label %s stays", k)
		}
	}
	for _, k := range x.RemoveLabels {
		if _, ok := p.Labels[k]; ok {
			return p.deny(updateOp, "labels: the label %s stays", k)
		}
	}
	return nil
}

// CreateExec decides about a process in a container.
func (p *Policy) CreateExec(e *wire.ExecCreate) error {
	const op = "exec.create"
	if e.Privileged && !p.Exec.Privileged {
		return p.deny(op, "exec.privileged: privileged processes are not allowed")
	}
	if p.Exec.Users != nil && !slices.Contains(p.Exec.Users, e.User) {
		return p.deny(op, "exec.users: %q is not allowed", e.User)
	}
	return nil
}

// CreateNetwork decides about a new network.
func (p *Policy) CreateNetwork(n *wire.NetworkCreate) error {
	const op = "network.create"
	if err := p.Network(op, n.Name); err != nil {
		return err
	}
	if n.Driver != "" && n.Driver != "bridge" && !slices.Contains(p.Create.Namespaces, "network") {
		return p.deny(op, "create.namespaces: networks of the driver %q reach the host's links", n.Driver)
	}
	for k := range n.Options {
		if strings.HasPrefix(k, "com.docker.network.bridge.") && (k == "com.docker.network.bridge.enable_icc" || k == "com.docker.network.bridge.enable_ip_masquerade") || k == "com.docker.network.driver.mtu" {
			continue
		}
		return p.deny(op, "networks: the option %s is not allowed", k)
	}
	return nil
}

// A BuildRequest is what a policy looks at of a build.
type BuildRequest struct {
	Network, Remote, CgroupParent string
	Tags                          []string
	Entitlements                  []string // that lift what bounds RUN
}

// Import decides about the import of an image called ref: src is "-" for what
// the client sends, or an address that the daemon shall fetch, with what it may
// reach and the client may not.
func Import(p *Policy, ref, src string) error {
	const op = "image.import"
	if src != "-" && !p.Build.Remote {
		return p.deny(op, "build.remote: the daemon fetches nothing to import")
	}
	return p.Image(op, ref)
}

// RunBuild decides about a build.
func (p *Policy) RunBuild(b BuildRequest) error {
	const op = "build.run"
	allowed := p.Build.Networks
	if allowed == nil {
		allowed = []string{"", "default", "none", "bridge"}
	}
	if !slices.Contains(allowed, b.Network) {
		return p.deny(op, "build.networks: %q is not allowed", b.Network)
	}
	if b.Remote != "" && b.Remote != "client-session" && !p.Build.Remote {
		return p.deny(op, "build.remote: the daemon fetches no contexts")
	}
	if (b.CgroupParent != "" || len(b.Entitlements) > 0) && !p.Create.Privileged {
		return p.deny(op, "create.privileged: control groups and entitlements may not be chosen")
	}
	for _, t := range b.Tags {
		if err := p.Image(op, t); err != nil {
			return err
		}
	}
	return nil
}
