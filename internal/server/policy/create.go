package policy

import (
	"context"
	"slices"
	"strings"

	"gantry/internal/plan"
	"gantry/internal/wire"
)

// A World answers what a decision depends on besides the request.
type World interface {
	// Labels returns the labels of a container that the request names.
	Labels(ctx context.Context, ref string) (map[string]string, error)
	// Volume returns a volume's driver and its options; false if there is none.
	Volume(ctx context.Context, name string) (driver string, options map[string]string, found bool)
}

const createOp = "container.create"

// CreateContainer decides about a new container. It fills in what the policy
// gives to each: labels and limits. roots are the directories that the sources
// of host binds must be found beneath at every start, by the mounts' targets,
// whatever links their paths lead through by then.
func (p *Policy) CreateContainer(ctx context.Context, r *wire.CreateRequest, w World) (roots map[string]string, err error) {
	for _, check := range []func() error{
		func() error { return p.Image(createOp, r.Config.Image) },
		func() error { return p.rights(r.HostConfig) },
		func() error { return p.namespaces(ctx, r.HostConfig, w) },
		func() error { return p.devices(&r.HostConfig.Resources) },
		func() error { return p.networks(r) },
		func() error { return p.ports(createOp, r.HostConfig.PortBindings) },
		func() error { return p.limits(createOp, &r.HostConfig.Resources) },
		func() (err error) { roots, err = p.mounts(ctx, r, w); return err },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	for k, v := range p.Labels {
		if got, ok := r.Config.Labels[k]; ok && got != v {
			return nil, p.deny(createOp, "labels: containers of this socket have the label %s=%s", k, v)
		}
		if r.Config.Labels == nil {
			r.Config.Labels = map[string]string{}
		}
		r.Config.Labels[k] = v
	}
	p.Create.fill(&r.HostConfig.Resources)
	return roots, nil
}

// rights decides about what a container may do on the host.
func (p *Policy) rights(h *wire.HostConfig) error {
	c := &p.Create
	if h.Privileged && !c.Privileged {
		return p.deny(createOp, "create.privileged: privileged containers are not allowed")
	}
	for _, name := range h.CapAdd {
		if !c.Privileged && !slices.Contains(c.Capabilities, capability(name)) {
			return p.deny(createOp, "create.capabilities: %s may not be added", capability(name))
		}
	}
	for _, o := range h.SecurityOpt {
		if harmlessOption(o) || matchAny(c.SecurityOptions, o) {
			continue
		}
		return p.deny(createOp, "create.securityOptions: %q is not allowed", o)
	}
	for name := range h.Sysctls {
		if !matchAny(c.Sysctls, name) {
			return p.deny(createOp, "create.sysctls: %s may not be set", name)
		}
	}
	if h.Runtime != "" && !slices.Contains(c.Runtimes, h.Runtime) {
		return p.deny(createOp, "create.runtimes: %q is not allowed", h.Runtime)
	}
	switch t := h.LogConfig.Type; t {
	case "", "json-file", "local", "none", "journald":
	default:
		if !slices.Contains(c.LogDrivers, t) {
			return p.deny(createOp, "create.logDrivers: %q is not allowed", t)
		}
	}
	switch {
	case c.Privileged:
	case h.MaskedPaths != nil || h.ReadonlyPaths != nil:
		return p.deny(createOp, "create.privileged: masked and read-only paths may not be changed")
	case h.OomScoreAdj < 0:
		return p.deny(createOp, "create.privileged: a negative OomScoreAdj is not allowed")
	case h.CgroupParent != "" || h.Cgroup != "":
		return p.deny(createOp, "create.privileged: the control group may not be chosen")
	case len(h.Annotations) > 0:
		return p.deny(createOp, "create.privileged: annotations are not allowed")
	}
	return nil
}

// harmlessOption says whether a security option only takes rights away.
func harmlessOption(o string) bool {
	o = strings.Replace(o, ":", "=", 1)
	return o == "no-new-privileges" || o == "no-new-privileges=true" || o == "seccomp=builtin"
}

// namespaces decides about namespaces of the host and of other containers.
func (p *Policy) namespaces(ctx context.Context, h *wire.HostConfig, w World) error {
	for name, mode := range map[string]string{
		"network": string(h.NetworkMode), "pid": string(h.PidMode), "ipc": string(h.IpcMode),
		"uts": string(h.UTSMode), "user": string(h.UsernsMode), "cgroup": string(h.CgroupnsMode),
	} {
		if other, ok := strings.CutPrefix(mode, "container:"); ok {
			if err := p.join(ctx, w, other); err != nil {
				return err
			}
			continue
		}
		if mode == "host" && !slices.Contains(p.Create.Namespaces, name) {
			return p.deny(createOp, "create.namespaces: the host's %s namespace is not allowed", name)
		}
	}
	for _, from := range h.VolumesFrom {
		name, _, _ := strings.Cut(from, ":")
		if err := p.join(ctx, w, name); err != nil {
			return err
		}
	}
	for _, link := range h.Links {
		name, _, _ := strings.Cut(link, ":")
		if err := p.join(ctx, w, name); err != nil {
			return err
		}
	}
	return nil
}

// join decides about another container whose parts the new one is to share.
func (p *Policy) join(ctx context.Context, w World, ref string) error {
	if p.Create.Join {
		return nil
	}
	if len(p.Labels) == 0 {
		return p.deny(createOp, "create.join: other containers' namespaces, volumes and links are not allowed")
	}
	labels, err := w.Labels(ctx, ref)
	if err != nil {
		return err
	}
	return p.Container(createOp, labels)
}

// devices decides about devices of the host.
func (p *Policy) devices(r *wire.Resources) error {
	for _, d := range r.Devices {
		if clean := cleanPath(d.PathOnHost); clean == "" || !slices.Contains(p.Create.Devices, clean) {
			return p.deny(createOp, "create.devices: %q is not allowed", d.PathOnHost)
		}
	}
	if len(r.DeviceCgroupRules) > 0 && !p.Create.Privileged {
		return p.deny(createOp, "create.privileged: device rules are not allowed")
	}
	if len(r.DeviceRequests) > 0 && !p.Create.DeviceRequests {
		return p.deny(createOp, "create.deviceRequests: GPUs and CDI devices are not allowed")
	}
	return nil
}

// networks decides about the networks that the container joins.
func (p *Policy) networks(r *wire.CreateRequest) error {
	mode := string(r.HostConfig.NetworkMode)
	switch {
	case mode == "", mode == "default":
		mode = "bridge"
	case mode == "none", mode == "host", strings.HasPrefix(mode, "container:"):
		mode = ""
	}
	if mode != "" {
		if err := p.Network(createOp, mode); err != nil {
			return err
		}
	}
	if r.NetworkingConfig == nil {
		return nil
	}
	for name, e := range r.NetworkingConfig.EndpointsConfig {
		if err := p.Network(createOp, name); err != nil && name != "none" && name != "default" {
			return err
		}
		if e != nil && e.NetworkID != "" && p.Networks != nil {
			return p.deny(createOp, "networks: name networks by their names")
		}
	}
	return nil
}

// ports decides about the ports of the host that are published.
func (p *Policy) ports(operation string, ports wire.PortMap) error {
	for port, bindings := range ports {
		for _, b := range bindings {
			if b.HostPort == "" || b.HostPort == "0" {
				continue
			}
			r, err := parsePorts(b.HostPort)
			if err != nil || !slices.ContainsFunc(p.Create.ports, func(a portRange) bool { return a.low <= r.low && r.high <= a.high }) {
				return p.deny(operation, "create.publish: %v may not be published on port %q", port, b.HostPort)
			}
		}
	}
	return nil
}

// mounts decides about what of the host is mounted, as the engine itself reads
// the request.
func (p *Policy) mounts(ctx context.Context, r *wire.CreateRequest, w World) (map[string]string, error) {
	list, err := plan.Mounts(r.Config, r.HostConfig)
	if err != nil {
		return nil, err // as the engine would say
	}
	roots := map[string]string{}
	for i := range list {
		m := &list[i]
		switch m.Type {
		case "tmpfs":
		case "bind":
			root, err := p.bind(m)
			if err != nil {
				return nil, err
			}
			roots[m.Target] = root
		case "volume":
			if err := p.volume(ctx, m, w); err != nil {
				return nil, err
			}
		case "image":
			if err := p.Image(createOp, m.Source); err != nil {
				return nil, err
			}
		default:
			return nil, p.deny(createOp, "create.binds: mounts of type %q are not allowed", m.Type)
		}
	}
	return roots, nil
}

func (p *Policy) bind(m *plan.Mount) (root string, err error) {
	clean := cleanPath(m.Source)
	for _, b := range p.Create.Binds {
		if clean == "" || !beneath(b.Path, clean) || b.ReadOnly && !m.ReadOnly {
			continue
		}
		if strings.HasSuffix(string(m.Propagation), "shared") {
			return "", p.deny(createOp, "create.binds: %s: mounts may not be propagated to the host", m.Source)
		}
		return b.Path, nil
	}
	return "", p.deny(createOp, "create.binds: %q may not be bound", m.Source)
}

func (p *Policy) volume(ctx context.Context, m *plan.Mount, w World) error {
	if err := p.Volume(createOp, m.Name, m.Driver, m.DriverOptions); err != nil {
		return err
	}
	if m.Name == "" {
		return nil
	}
	driver, options, found := w.Volume(ctx, m.Name)
	if !found || slices.Contains(p.Create.Volumes, m.Name) {
		return nil
	}
	return p.Volume(createOp, m.Name, driver, options)
}

// Volume decides about a volume that is made or used.
func (p *Policy) Volume(operation, name, driver string, options map[string]string) error {
	if name != "" && p.Create.Volumes != nil && !matchAny(p.Create.Volumes, name) {
		return p.deny(operation, "create.volumes: %q matches none of the patterns", name)
	}
	if driver != "" && driver != "local" {
		return p.deny(operation, "create.volumes: the volume driver %q is not allowed", driver)
	}
	if len(options) == 0 || options["type"] == "tmpfs" && options["device"] == "tmpfs" && !strings.Contains(options["o"], "bind") {
		return nil
	}
	return p.deny(operation, "create.volumes: a volume with mount options can be any place of the host")
}
