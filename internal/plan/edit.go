package plan

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Edit returns p with the changes of x: published ports, mounts, environment
// and labels. What it returns is what a container created so would have; p is
// not changed. New anonymous volumes have no names yet. Errors are Invalid, or
// Unsupported for what this version can't change.
func Edit(p *Plan, x *wire.UpdateExtra, d Defaults) (*Plan, []string, error) {
	warn := warnings{}
	q := p.clone()
	if x == nil {
		return q, warn.list(), nil
	}
	if x.NetRate != nil {
		if err := q.setNetRate(*x.NetRate); err != nil {
			return nil, nil, err
		}
	}
	if err := q.editPorts(x, d, &warn); err != nil {
		return nil, nil, err
	}
	if err := q.editMounts(x); err != nil {
		return nil, nil, err
	}
	if err := q.editEnv(x.Env); err != nil {
		return nil, nil, err
	}
	q.editLabels(x.Labels, x.RemoveLabels)
	return q, warn.list(), nil
}

// editPorts changes the published ports. A port that is published is exposed,
// too, and stays so.
func (p *Plan) editPorts(x *wire.UpdateExtra, d Defaults, w *warnings) error {
	if x.PublishedPorts == nil && len(x.AddPorts) == 0 && len(x.RemovePorts) == 0 {
		return nil
	}
	if p.Namespaces.Network.Mode == Container {
		return errs.New(errs.Invalid, "conflicting options: port publishing and the container type network mode")
	}
	hc := p.HostConfig
	ports := wire.PortMap{}
	for port, list := range hc.PortBindings {
		ports[port] = slices.Clone(list)
	}
	if x.PublishedPorts != nil {
		ports = maps.Clone(*x.PublishedPorts)
	}
	for _, s := range x.RemovePorts {
		if err := removePort(ports, s); err != nil {
			return err
		}
	}
	for port, list := range x.AddPorts {
		if len(list) == 0 {
			list = []wire.PortBinding{{}}
		}
		for _, b := range list {
			if !slices.Contains(ports[port], b) {
				ports[port] = append(slices.Clone(ports[port]), b)
			}
		}
	}
	for port := range ports {
		if port.IsZero() || port.Num() == 0 {
			return errs.New(errs.Invalid, "invalid port specification: %q", port)
		}
	}
	hc.PortBindings = ports
	if err := checkPorts(&hc, w); err != nil {
		return err
	}
	p.HostConfig = hc
	exposed := wire.PortSet{}
	maps.Copy(exposed, p.Config.ExposedPorts)
	for port := range hc.PortBindings {
		exposed[port] = struct{}{}
	}
	p.Config.ExposedPorts, p.Exposed = exposed, exposed
	if p.Namespaces.Network.Mode == Network {
		p.Ports = hc.PortBindings
	} else if len(hc.PortBindings) > 0 {
		w.add("Published ports are discarded when using " + string(p.Namespaces.Network.Mode) + " network mode")
	}
	return nil
}

// removePort takes what s names, [[address:]host port:]port[/protocol], out of
// ports.
func removePort(ports wire.PortMap, s string) error {
	spec, host := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, spec = s[:i], s[i+1:]
	}
	port, err := wire.ParsePort(spec)
	if err != nil {
		return errs.New(errs.Invalid, "invalid port specification: %q", s)
	}
	ip, hostPort := "", host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		ip, hostPort = strings.Trim(host[:i], "[]"), host[i+1:]
	}
	list := ports[port]
	kept := slices.DeleteFunc(slices.Clone(list), func(b wire.PortBinding) bool {
		return host == "" || b.HostPort == hostPort && sameAddress(b.HostIP, ip)
	})
	if len(kept) == len(list) {
		return errs.New(errs.Invalid, "port %s is not published", s)
	}
	if ports[port] = kept; len(kept) == 0 {
		delete(ports, port)
	}
	return nil
}

// sameAddress compares a binding's address with what the user wrote; none is
// every address.
func sameAddress(a netip.Addr, s string) bool {
	if s == "" {
		return !a.IsValid() || a.IsUnspecified()
	}
	b, err := netip.ParseAddr(s)
	return err == nil && (a == b || b.IsUnspecified() && !a.IsValid())
}

// editMounts removes mounts by their targets, then adds others.
func (p *Plan) editMounts(x *wire.UpdateExtra) error {
	for _, target := range x.RemoveMounts {
		if err := p.removeMount(target); err != nil {
			return err
		}
	}
	for i := range x.AddMounts {
		in := &x.AddMounts[i]
		if err := checkMount(in); err != nil {
			return err
		}
		m, err := fromMount(in)
		if err != nil {
			return err
		}
		if m.Type == typeImage {
			return errs.New(errs.Unsupported, "mount %s: image mounts can not be added by this version of Gantry", m.Target)
		}
		if slices.ContainsFunc(p.Mounts, func(old Mount) bool { return old.Target == m.Target }) {
			return errs.New(errs.Invalid, "Duplicate mount point: %s", m.Target)
		}
		p.Mounts = append(p.Mounts, m)
		p.HostConfig.Mounts = append(slices.Clone(p.HostConfig.Mounts), *in)
	}
	sortMounts(p.Mounts)
	return nil
}

// removeMount takes the mount at target out of the plan, and out of that part
// of the user's words that it comes from.
func (p *Plan) removeMount(target string) error {
	target = path.Clean(target)
	i := slices.IndexFunc(p.Mounts, func(m Mount) bool { return m.Target == target })
	if i < 0 {
		return errs.New(errs.Invalid, "container has no mount at %s", target)
	}
	m := p.Mounts[i]
	p.Mounts = slices.Delete(p.Mounts, i, i+1)
	hc := &p.HostConfig
	switch m.From {
	case FromBinds:
		hc.Binds = slices.DeleteFunc(slices.Clone(hc.Binds), func(raw string) bool {
			b, err := parseBind(raw, hc.VolumeDriver)
			return err == nil && b.Target == target
		})
	case FromMounts:
		hc.Mounts = slices.DeleteFunc(slices.Clone(hc.Mounts), func(w wire.Mount) bool { return path.Clean(w.Target) == target })
	case FromTmpfs:
		hc.Tmpfs = maps.Clone(hc.Tmpfs)
		maps.DeleteFunc(hc.Tmpfs, func(dest, _ string) bool { return path.Clean(dest) == target })
	case FromVolumes:
		vols := maps.Clone(p.Config.Volumes)
		maps.DeleteFunc(vols, func(dest string, _ struct{}) bool { return cleanAbs(dest) == target })
		p.Config.Volumes = vols
	}
	return nil
}

// editEnv sets KEY=value and removes KEY.
func (p *Plan) editEnv(list []string) error {
	if len(list) == 0 {
		return nil
	}
	env := slices.Clone(p.Process.Env)
	for _, s := range list {
		key, _, set := strings.Cut(s, "=")
		if key == "" || strings.IndexByte(s, 0) >= 0 {
			return errs.New(errs.Invalid, "invalid environment variable: %s", s)
		}
		i := slices.IndexFunc(env, func(old string) bool { k, _, _ := strings.Cut(old, "="); return k == key })
		switch {
		case set && i >= 0:
			env[i] = s
		case set:
			env = append(env, s)
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		}
	}
	p.Process.Env, p.Config.Env = env, slices.Clone(env)
	return nil
}

func (p *Plan) editLabels(set map[string]string, remove []string) {
	if len(set) == 0 && len(remove) == 0 {
		return
	}
	labels := maps.Clone(p.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, k := range remove {
		delete(labels, k)
	}
	maps.Copy(labels, set)
	p.Labels, p.Config.Labels = labels, labels
}

// A Difference is what must be done to a running container that was launched
// by one plan to make it what another says.
type Difference struct {
	Remove []Mount // deepest first
	Add    []Mount // as they are to be made: a mount after those it lies under
	Ports  bool    // the published ports or the bounds of traffic differ
	Limits bool    // the resources differ
}

// Compare returns what leads from one plan to the other. Environment, labels and
// policies do not count: they need nothing to be done.
func Compare(from, to *Plan) Difference {
	d := Difference{Ports: !samePorts(from, to) || from.NetRate != to.NetRate, Limits: !sameJSON(from.Resources, to.Resources)}
	for _, m := range from.Mounts {
		if !slices.ContainsFunc(to.Mounts, func(o Mount) bool { return sameJSON(m, o) }) {
			d.Remove = append(d.Remove, m)
		}
	}
	slices.Reverse(d.Remove)
	for _, m := range to.Mounts {
		if !slices.ContainsFunc(from.Mounts, func(o Mount) bool { return sameJSON(m, o) }) {
			d.Add = append(d.Add, m)
		}
	}
	return d
}

// Empty reports whether nothing is to be done.
func (d Difference) Empty() bool {
	return len(d.Remove) == 0 && len(d.Add) == 0 && !d.Ports && !d.Limits
}

// Hides returns the mount of p below target: one that a new mount there would
// hide, or that would go with an old one. Those in except do not count.
func (p *Plan) Hides(target string, except []Mount) (Mount, bool) {
	for _, m := range p.Mounts {
		if strings.HasPrefix(m.Target, target+"/") && !slices.ContainsFunc(except, func(e Mount) bool { return e.Target == m.Target }) {
			return m, true
		}
	}
	return Mount{}, false
}

// Tag tells a mount from every other that there may be at the same place.
func (m Mount) Tag() string {
	h := fnv.New64a()
	data, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	h.Write(data)
	return strconv.FormatUint(h.Sum64(), 16)
}

func samePorts(a, b *Plan) bool {
	return a.PublishAll == b.PublishAll && sameJSON(a.Ports, b.Ports) && sameJSON(a.Exposed, b.Exposed)
}

// sameJSON compares values as they are stored.
func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}
