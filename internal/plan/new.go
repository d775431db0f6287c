package plan

import (
	"maps"
	"path"
	"slices"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// New decides what the container asked for by req, made of img, shall be.
// img is nil for a container without an image. The warnings are for the user
// and never nil.
//
// Errors are of kind Invalid, except for the few that Docker answers with 500,
// which are Unknown. What Docker finds out at start only (an unknown user or
// limit, a missing device, a profile that does not parse) passes here and is
// found by ocispec and launch.
func New(req wire.CreateRequest, img *Image, d Defaults) (*Plan, []string, error) {
	if req.Config == nil {
		return nil, nil, errs.New(errs.Invalid, "config cannot be empty in order to create a container")
	}
	d = d.complete()
	warn := warnings{}
	cfg := cloneConfig(req.Config)
	hc := wire.HostConfig{}
	if req.HostConfig != nil {
		hc = *req.HostConfig
	}
	if hc.NetworkMode == "" || hc.NetworkMode.IsDefault() {
		hc.NetworkMode = "bridge"
	}

	if err := checkNetworkMode(&cfg, &hc); err != nil {
		return nil, nil, err
	}
	if err := checkPlatform(&hc, d.Kernel); err != nil {
		return nil, nil, err
	}
	if err := checkConfig(&cfg); err != nil {
		return nil, nil, err
	}
	if err := checkHostConfig(&hc, d.Kernel, &warn); err != nil {
		return nil, nil, err
	}
	if err := checkResources(&hc.Resources, d.Kernel, &warn); err != nil {
		return nil, nil, err
	}
	if err := checkModes(&hc, d, &warn); err != nil {
		return nil, nil, err
	}
	fillHostConfig(&hc, d)
	if err := mergeImage(&cfg, img); err != nil {
		return nil, nil, err
	}
	if err := fillLog(&hc, d); err != nil {
		return nil, nil, err
	}
	p, err := assemble(cfg, hc, req.NetworkingConfig, d)
	if err != nil {
		return nil, nil, err
	}
	if img != nil {
		p.ImageDigest = img.Digest
	}
	if a := p.Security.AppArmor; a != "" && a != Unconfined && !d.Kernel.AppArmor {
		warn.add("AppArmor is not enabled on this host. The profile " + a + " does not confine the container.")
	}
	return p, warn.list(), nil
}

// warnings collects what the user shall hear.
type warnings []string

func (w *warnings) add(text string) { *w = append(*w, text) }

func (w warnings) list() []string {
	if w == nil {
		return []string{}
	}
	return w
}

// assemble makes the plan from values that have been checked and completed.
func assemble(cfg wire.ContainerConfig, hc wire.HostConfig, nc *wire.NetworkingConfig, d Defaults) (*Plan, error) {
	mounts, err := Mounts(&cfg, &hc)
	if err != nil {
		return nil, err
	}
	sec, err := planSecurity(&hc, d)
	if err != nil {
		return nil, err
	}
	links, err := planLinks(hc.Links)
	if err != nil {
		return nil, err
	}
	from, err := planVolumesFrom(hc.VolumesFrom)
	if err != nil {
		return nil, err
	}
	endpoints, err := planEndpoints(hc.NetworkMode, nc, cfg.NetworkDisabled)
	if err != nil {
		return nil, err
	}
	stop, err := planStop(&cfg, d)
	if err != nil {
		return nil, err
	}
	health, err := planHealth(&cfg)
	if err != nil {
		return nil, err
	}
	if err := checkRestartHealth(hc.RestartPolicy, health); err != nil {
		return nil, err
	}
	if hc.UTSMode.IsHost() || hc.NetworkMode.IsHost() && cfg.Hostname == "" {
		cfg.Hostname = d.HostHostname
	}
	p := &Plan{
		Version: Version, Config: cfg, HostConfig: hc, Endpoints: endpoints,
		Process:    planProcess(&cfg, &hc),
		Domainname: cfg.Domainname,
		Init:       wantInit(&hc, d),
		Namespaces: planNamespaces(&cfg, &hc, d),
		Mounts:     mounts,
		ReadOnly:   hc.ReadonlyRootfs,
		ShmSize:    hc.ShmSize,

		Devices: planDevices(hc.Devices), DeviceRules: slices.Clone(hc.DeviceCgroupRules),
		DeviceRequests: hc.DeviceRequests, AllDevices: hc.Privileged,

		Resources: hc.Resources, Ulimits: planUlimits(hc.Ulimits, d.Ulimits),
		OOMScoreAdj: hc.OomScoreAdj, Sysctls: maps.Clone(hc.Sysctls),
		Security: sec,
		Log:      Log{Driver: hc.LogConfig.Type, Options: maps.Clone(hc.LogConfig.Config)},
		Restart:  hc.RestartPolicy, Stop: stop, Health: health,
		Runtime: hc.Runtime, CgroupParent: firstNonEmpty(hc.CgroupParent, d.CgroupParent),
		DNS: slices.Clone(hc.DNS), DNSSearch: slices.Clone(hc.DNSSearch), DNSOptions: slices.Clone(hc.DNSOptions),
		ExtraHosts: slices.Clone(hc.ExtraHosts), Links: links,
		Exposed: cfg.ExposedPorts, PublishAll: hc.PublishAllPorts, Ports: hc.PortBindings,
		VolumesFrom: from, AutoRemove: hc.AutoRemove,
		Labels: cfg.Labels, Annotations: maps.Clone(hc.Annotations), StorageOpt: maps.Clone(hc.StorageOpt),
	}
	if p.RootSize, err = rootSize(hc.StorageOpt); err != nil {
		return nil, err
	}
	p.fillDNS(d)
	if p.Namespaces.Network.Mode != Network {
		p.Ports, p.PublishAll = nil, false // nothing to publish, or nobody's own
	}
	return p, nil
}

// fillDNS takes the daemon's name servers where the user named none. They are
// no part of HostConfig, so that inspect shows the user's words.
func (p *Plan) fillDNS(d Defaults) {
	if len(p.DNS) == 0 {
		p.DNS = slices.Clone(d.DNS)
	}
	if len(p.DNSSearch) == 0 {
		p.DNSSearch = slices.Clone(d.DNSSearch)
	}
	if len(p.DNSOptions) == 0 {
		p.DNSOptions = slices.Clone(d.DNSOptions)
	}
}

func planProcess(cfg *wire.ContainerConfig, hc *wire.HostConfig) Process {
	args := slices.Concat(cfg.Entrypoint, cfg.Cmd)
	return Process{
		Args: args, Env: slices.Clone(cfg.Env),
		Dir: firstNonEmpty(cfg.WorkingDir, "/"), User: cfg.User, GroupAdd: slices.Clone(hc.GroupAdd),
		TTY: cfg.Tty, Console: console(hc.ConsoleSize),
		OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce,
		Umask: hc.Umask,
	}
}

// console bounds a terminal's size to what the kernel holds (struct winsize).
func console(hw [2]uint) [2]uint16 {
	return [2]uint16{uint16(min(hw[0], 0xffff)), uint16(min(hw[1], 0xffff))}
}

// wantInit tells whether a reaper runs first. In another's pid namespace the
// process would not be number 1, so there a reaper is of no use.
func wantInit(hc *wire.HostConfig, d Defaults) bool {
	if !hc.PidMode.IsPrivate() {
		return false
	}
	if hc.Init != nil {
		return *hc.Init
	}
	return d.Init
}

func planDevices(in []wire.DeviceMapping) []Device {
	var out []Device
	for _, m := range in {
		out = append(out, Device{
			Host: m.PathOnHost, Container: firstNonEmpty(m.PathInContainer, m.PathOnHost),
			Permissions: permissions(m.CgroupPermissions),
		})
	}
	return out
}

// permissions keeps the letters that mean something. Docker accepts any text
// here; a text without one known letter grants nothing.
func permissions(s string) string {
	if s == "" {
		return "rwm"
	}
	var b strings.Builder
	for _, c := range "rwm" {
		if strings.ContainsRune(s, c) {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// planUlimits merges the daemon's limits under the user's, sorted by name.
func planUlimits(user []*wire.Ulimit, def []Ulimit) []Ulimit {
	byName := map[string]Ulimit{}
	for _, u := range def {
		byName[u.Name] = u
	}
	for _, u := range user {
		if u != nil {
			byName[u.Name] = Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		}
	}
	var out []Ulimit
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// cloneConfig copies what New may write to.
func cloneConfig(in *wire.ContainerConfig) wire.ContainerConfig {
	c := *in
	c.Env = slices.Clone(in.Env)
	c.Cmd = slices.Clone(in.Cmd)
	c.Entrypoint = slices.Clone(in.Entrypoint)
	c.Labels = maps.Clone(in.Labels)
	c.Volumes = maps.Clone(in.Volumes)
	c.ExposedPorts = maps.Clone(in.ExposedPorts)
	if in.Healthcheck != nil {
		h := *in.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	return c
}

func firstNonEmpty(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// cleanAbs is path.Clean of an absolute path.
func cleanAbs(p string) string { return path.Clean("/" + p) }
