package container

import (
	"context"
	"maps"
	"path/filepath"
	"strings"

	"gantry/internal/plan"
	"gantry/internal/wire"
)

// Inspect returns all that is known of a container.
func (c *Query) Inspect(ctx context.Context, ref string, o InspectOptions) (wire.ContainerJSON, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return wire.ContainerJSON{}, err
	}
	s := a.view()
	rec, p := s.rec, s.rec.Plan
	cfg, hc := p.InspectConfig(rec.ID), p.HostConfig
	hc.Links = links{c.core}.shown(rec)
	w := wire.ContainerJSON{Gantry: order{c.core}.extra(s), InspectResponse: wire.InspectResponse{
		ID: rec.ID, Created: stamp(rec.CreatedAt), Args: []string{}, State: s.wireState(), Image: rec.Image.ID,
		Name: "/" + rec.Name, RestartCount: s.state.Restarts, Driver: rec.Image.driver(), Platform: rec.Image.Platform,
		ExecIDs: c.execs.running(rec.ID), HostConfig: &hc, Config: &cfg,
		Storage: &wire.Storage{RootFS: &wire.RootFSStorage{Snapshot: &wire.RootFSStorageSnapshot{Name: rec.Image.driver()}}},
		Mounts:  c.mountPoints(ctx, p), NetworkSettings: s.networkSettings(),
		ImageManifestDescriptor: rec.Image.Manifest,
	}}
	if args := p.Process.Args; len(args) > 0 {
		w.Path, w.Args = args[0], append(w.Args, args[1:]...)
	}
	if p.Security.AppArmor != "" {
		w.AppArmorProfile = p.Security.AppArmor
	}
	if s.state.Ran {
		dir := c.dir(rec.ID)
		w.ResolvConfPath, w.HostnamePath = filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hostname")
		w.HostsPath = filepath.Join(dir, "hosts")
		if p.Log.Driver == "json-file" {
			w.LogPath = c.logPath(rec)
		}
	}
	if o.Size {
		rw, root := c.sizes(ctx, rec)
		w.SizeRw, w.SizeRootFs = &rw, &root
	}
	return w, nil
}

// logPath is where the shim writes a container's log.
func (c *core) logPath(rec *Record) string {
	return filepath.Join(c.dir(rec.ID), rec.Plan.Log.Record().File(rec.ID))
}

// networkSettings is what inspect tells of addresses and ports: those of the
// sandbox while the container is up, else only what was asked for.
func (s *snapshot) networkSettings() *wire.NetworkSettings {
	w := &wire.NetworkSettings{Ports: wire.PortMap{}, Networks: s.endpoints()}
	if s.sandbox == nil || !s.state.up() {
		return w
	}
	w.SandboxID, w.SandboxKey = s.sandbox.ID, s.sandbox.Path
	for port := range s.rec.Plan.Exposed {
		w.Ports[port] = nil
	}
	for _, e := range s.sandbox.Endpoints {
		maps.Copy(w.Ports, e.Ports)
	}
	return w
}

// endpoints gives each network that the container belongs to.
func (s *snapshot) endpoints() map[string]*wire.EndpointSettings {
	out := make(map[string]*wire.EndpointSettings, len(s.rec.Plan.Endpoints))
	for name, e := range s.rec.Plan.Endpoints {
		c := e.Copy()
		if c == nil {
			c = &wire.EndpointSettings{}
		}
		c.NetworkID = s.netIDs[name]
		out[name] = c
	}
	if s.sandbox == nil || !s.state.up() {
		return out
	}
	for _, e := range s.sandbox.Endpoints {
		c := out[e.NetworkName]
		if c == nil {
			c = &wire.EndpointSettings{}
			out[e.NetworkName] = c
		}
		c.NetworkID, c.EndpointID = e.NetworkID, e.ID
		if mac, err := wire.ParseMAC(e.MAC); err == nil {
			c.MacAddress = mac
		}
		c.Gateway, c.IPv6Gateway = e.Gateway4, e.Gateway6
		if e.IPv4.IsValid() {
			c.IPAddress, c.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
		}
		if e.IPv6.IsValid() {
			c.GlobalIPv6Address, c.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
		}
		if e.NetworkName != "bridge" {
			c.DNSNames = s.dnsNames(c.Aliases)
		}
	}
	return out
}

// dnsNames are the names that other containers of a network find this one by.
func (s *snapshot) dnsNames(aliases []string) []string {
	all := append([]string{s.rec.Name}, aliases...)
	all = append(all, s.rec.ID[:12], s.rec.Plan.Hostname(s.rec.ID))
	seen := map[string]bool{}
	out := all[:0]
	for _, n := range all {
		if n != "" && !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}

// mountPoints is the list of mounts as inspect shows them. Those of --tmpfs
// are no mount points there.
func (c *core) mountPoints(ctx context.Context, p *plan.Plan) []wire.MountPoint {
	out := []wire.MountPoint{}
	for _, m := range p.Mounts {
		if m.From == plan.FromTmpfs {
			continue
		}
		w := wire.MountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, Mode: m.Mode, RW: !m.ReadOnly}
		switch m.Type {
		case "volume":
			w.Name, w.Driver, w.Source = m.Name, m.Driver, c.o.Volumes.Path(ctx, m.Name)
			if m.From == plan.FromMounts || m.From == plan.FromBinds && m.Mode == "" {
				w.Mode = "z" // what Docker says of a volume that somebody named
			}
		case "bind":
			w.Propagation = wire.Propagation(m.Propagation)
		case "tmpfs":
			w.Source = ""
		}
		out = append(out, w)
	}
	return out
}

// command is the first process's command line as `docker ps` shows it.
func command(args []string) string {
	if len(args) == 0 {
		return ""
	}
	shown := make([]string, 0, len(args))
	shown = append(shown, args[0])
	for _, a := range args[1:] {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		shown = append(shown, a)
	}
	return strings.Join(shown, " ")
}
