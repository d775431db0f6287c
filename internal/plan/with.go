package plan

import (
	"maps"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// Hostname is the host name of the container with that full ID. It is empty
// only if the container takes another's network: then it has the other's.
func (p *Plan) Hostname(containerID string) string {
	if p.Config.Hostname != "" || p.Namespaces.Network.Mode == Container {
		return p.Config.Hostname
	}
	return id.Short(containerID)
}

// InspectConfig is Config as inspect shows it for the container with that ID.
func (p *Plan) InspectConfig(containerID string) wire.ContainerConfig {
	c := p.Config
	c.Hostname = p.Hostname(containerID)
	return c
}

// NetSysctls are those of Sysctls that belong to the network namespace, with
// the two that Docker sets in every one that is not another's: any user may
// bind low ports and send ping.
func (p *Plan) NetSysctls() map[string]string {
	out := map[string]string{}
	if m := p.Namespaces.Network.Mode; m != Host && m != Container {
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for k, v := range p.Sysctls {
		if name := SysctlName(k); len(name) > 4 && name[:4] == "net." {
			out[name] = v
		}
	}
	return out
}

// SysctlName brings a sysctl's name into the form with dots (sysctl(8)): if
// the first separator is a slash, slashes separate and dots belong to names,
// such as those of VLAN interfaces.
func SysctlName(s string) string {
	for i := range len(s) {
		if s[i] == '.' {
			return s
		}
		if s[i] == '/' {
			break
		}
	}
	b := []byte(s)
	for i, c := range b {
		switch c {
		case '/':
			b[i] = '.'
		case '.':
			b[i] = '/'
		}
	}
	return string(b)
}

// clone copies p so far that Mounts can be replaced.
func (p *Plan) clone() *Plan {
	q := *p
	q.Mounts = slices.Clone(p.Mounts)
	return &q
}

// WithVolumeNames returns a copy of p in which the anonymous volumes have the
// names given by their targets.
func (p *Plan) WithVolumeNames(byTarget map[string]string) *Plan {
	q := p.clone()
	for i, m := range q.Mounts {
		if name, ok := byTarget[m.Target]; ok && m.Type == typeVolume && m.Anonymous {
			q.Mounts[i].Name = name
		}
	}
	return q
}

// WithExtra returns a copy of p with what a request asks for beyond Docker.
func (p *Plan) WithExtra(e wire.CreateExtra) (*Plan, error) {
	q := p.clone()
	var err error
	if q.After, err = parseAfter(e.After); err != nil {
		return nil, err
	}
	if e.NetRate != nil {
		if err := q.setNetRate(*e.NetRate); err != nil {
			return nil, err
		}
	}
	return q, q.mapOwners(e.IDMaps)
}

// WithBindRoots returns a copy of p in which the sources of bind mounts must be
// found beneath the directories given by their targets.
func (p *Plan) WithBindRoots(byTarget map[string]string) *Plan {
	if len(byTarget) == 0 {
		return p
	}
	q := p.clone()
	for i, m := range q.Mounts {
		if m.Type == typeBind {
			q.Mounts[i].Within = byTarget[m.Target]
		}
	}
	return q
}

// Inherit returns a copy of p that has also the mounts of another container,
// the one named by ref. What the user asked for himself stays; a volume that
// only the image asked for, or that came from a container named earlier, gives
// way. The mounts must have their names.
func (p *Plan) Inherit(ref VolumesFrom, mounts []Mount) *Plan {
	q := p.clone()
	at := map[string]int{}
	for i, m := range q.Mounts {
		at[m.Target] = i
	}
	for _, m := range mounts {
		if m.From == FromTmpfs {
			continue // belongs to the other container's definition, not to its data
		}
		m.From, m.NoCopy = FromOther, true
		m.DriverOptions, m.VolumeLabels = maps.Clone(m.DriverOptions), maps.Clone(m.VolumeLabels)
		m.ReadOnly = m.ReadOnly || ref.ReadOnly
		i, there := at[m.Target]
		switch {
		case !there:
			at[m.Target] = len(q.Mounts)
			q.Mounts = append(q.Mounts, m)
		case q.Mounts[i].From == FromVolumes || q.Mounts[i].From == FromOther:
			q.Mounts[i] = m
		}
	}
	sortMounts(q.Mounts)
	return q
}

// WithJoined returns a copy of p in which the containers whose namespaces it
// joins are known by their IDs, given by what the user called them.
func (p *Plan) WithJoined(ids map[string]string) *Plan {
	q := p.clone()
	for _, n := range []*Namespace{&q.Namespaces.Network, &q.Namespaces.PID, &q.Namespaces.IPC} {
		if full, ok := ids[n.Container]; ok && n.Mode == Container {
			n.Container = full
		}
	}
	return q
}

// WithLinked returns a copy of p in which the linked containers are known by
// their IDs, given in the order of Links.
func (p *Plan) WithLinked(ids []string) *Plan {
	q := p.clone()
	q.Links = slices.Clone(p.Links)
	for i, full := range ids {
		q.Links[i].Container = full
	}
	return q
}

// WithoutLink returns a copy of p without the links of that alias.
func (p *Plan) WithoutLink(alias string) *Plan {
	q := p.clone()
	q.Links = slices.DeleteFunc(slices.Clone(p.Links), func(l Link) bool { return l.Alias == alias })
	return q
}

// withResources returns a copy of p with other limits and restart policy.
func (p *Plan) withResources(r wire.Resources, restart wire.RestartPolicy) *Plan {
	q := p.clone()
	q.Resources, q.HostConfig.Resources = r, r
	q.Restart, q.HostConfig.RestartPolicy = restart, restart
	return q
}

// WithEndpoint returns a copy of p whose container is in the network called
// name, too, with these settings.
func (p *Plan) WithEndpoint(name string, s *wire.EndpointSettings) *Plan {
	q := p.clone()
	q.Endpoints = maps.Clone(p.Endpoints)
	if q.Endpoints == nil {
		q.Endpoints = map[string]*wire.EndpointSettings{}
	}
	q.Endpoints[name] = s
	return q
}

// WithoutEndpoint returns a copy of p whose container is not in the network that
// it has by one of these names any more.
func (p *Plan) WithoutEndpoint(names ...string) *Plan {
	q := p.clone()
	q.Endpoints = maps.Clone(p.Endpoints)
	for _, n := range names {
		delete(q.Endpoints, n)
	}
	return q
}

// CheckEndpoint returns why a container can't have these settings in a network,
// in Docker's words, or nil.
func CheckEndpoint(network string, s *wire.EndpointSettings) error {
	if err := checkEndpoint(network, s); err != nil {
		return errs.New(errs.Invalid, "invalid endpoint settings:\n%w", err)
	}
	return nil
}
