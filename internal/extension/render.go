package extension

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/plugin"
	"gantry/internal/wire"
)

// socketDir is where a plugin makes its socket, as it sees it.
const socketDir = "/run/docker/plugins"

// places are the directories of the host that a plugin gets.
type places struct{ rootfs, propagated, sockets string }

// input decides what to launch for a plugin. Pure.
func input(r record, at places, d plan.Defaults) (launch.Input, error) {
	pl, _, err := plan.New(request(r), nil, d)
	if err != nil {
		return launch.Input{}, err
	}
	if pl.Mounts, err = mounts(r, at); err != nil {
		return launch.Input{}, err
	}
	return launch.Input{
		ID: r.ID, Name: "plugin-" + r.ID[:12], Plan: pl, Root: &launch.Root{Upper: at.rootfs},
	}, nil
}

// request says in the words of the API what container a plugin gets: what its
// configuration asks for, and for the rest what every container has.
func request(r record) wire.CreateRequest {
	c, s := r.Config, r.Settings
	hc := &wire.HostConfig{
		NetworkMode: "none", UsernsMode: "host", CapAdd: c.Linux.Capabilities,
		LogConfig: wire.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
	}
	switch c.Network.Type {
	case "host", "bridge":
		hc.NetworkMode = container.NetworkMode(c.Network.Type)
	}
	if c.IpcHost {
		hc.IpcMode = "host"
	}
	if c.PidHost {
		hc.PidMode = "host"
	}
	if c.Linux.AllowAllDevices {
		hc.DeviceCgroupRules = []string{"a *:* rwm"}
	}
	for _, dev := range s.Devices {
		if dev.Path != nil && *dev.Path != "" {
			hc.Devices = append(hc.Devices, container.DeviceMapping{PathOnHost: *dev.Path, PathInContainer: *dev.Path, CgroupPermissions: "rwm"})
		}
	}
	user := ""
	if c.User.UID != 0 || c.User.GID != 0 {
		user = fmt.Sprintf("%d:%d", c.User.UID, c.User.GID)
	}
	return wire.CreateRequest{
		Config: &wire.ContainerConfig{
			User: user, Env: s.Env, Cmd: slices.Concat(c.Entrypoint, s.Args), WorkingDir: c.WorkDir,
		},
		HostConfig: hc,
	}
}

// mounts are the places of the host that a plugin sees. Pure.
func mounts(r record, at places) ([]plan.Mount, error) {
	list := []plan.Mount{{Type: "bind", Source: at.sockets, Target: socketDir, Propagation: "rprivate"}}
	if p := r.Config.PropagatedMount; p != "" {
		list = append(list, plan.Mount{Type: "bind", Source: at.propagated, Target: path.Clean(p), Propagation: "rshared"})
	}
	for _, m := range r.Settings.Mounts {
		if m.Type == "tmpfs" {
			list = append(list, plan.Mount{Type: "tmpfs", Target: path.Clean(m.Destination), Options: strings.Join(m.Options, ",")})
			continue
		}
		if m.Source == nil || *m.Source == "" {
			return nil, errs.New(errs.Invalid, "the source of mount %q is not set", m.Name)
		}
		p := plan.Mount{Type: "bind", Source: path.Clean(*m.Source), Target: path.Clean(m.Destination), Propagation: "rprivate"}
		p.NonRecursive = slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind")
		for _, o := range m.Options {
			switch o {
			case "ro":
				p.ReadOnly = true
			case "private", "rprivate", "shared", "rshared", "slave", "rslave":
				p.Propagation = o
			}
		}
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b plan.Mount) int {
		return cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/"))
	})
	return list, nil
}

// kinds are what plugins say that they implement, by the types of their
// interfaces.
func kinds(types []wire.PluginType) string {
	var out []string
	for _, t := range types {
		switch strings.ToLower(t.Capability) {
		case "volumedriver":
			out = append(out, "VolumeDriver")
		case "networkdriver":
			out = append(out, "NetworkDriver")
		case "ipamdriver":
			out = append(out, "IpamDriver")
		case "logdriver":
			out = append(out, "LogDriver")
		case "authz":
			out = append(out, "authz")
		case "metricscollector":
			out = append(out, "MetricsCollector")
		default:
			out = append(out, t.Capability)
		}
	}
	return strings.Join(out, ",")
}

// supported returns why a plugin is of no use here, or nil: one that has interfaces
// and none that the engine calls would run for nothing. Pure.
func supported(r record) error {
	types := r.Config.Interface.Types
	for _, t := range types {
		switch strings.ToLower(t.Capability) {
		case "volumedriver", "networkdriver", "ipamdriver", "authz":
			return nil
		}
	}
	if len(types) == 0 {
		return nil
	}
	var names []string
	for _, t := range types {
		names = append(names, t.Capability)
	}
	return errs.New(errs.Unsupported, "plugin %s implements %s: plugins of this kind are not supported (volumedriver, networkdriver, ipamdriver and authz are)", r.Name, strings.Join(names, ", "))
}

// endpoint is where a plugin that runs is reached; false if it has no socket.
func endpoint(r record, at places) (plugin.Endpoint, bool) {
	socket := r.Config.Interface.Socket
	if socket == "" {
		return plugin.Endpoint{}, false
	}
	return plugin.Endpoint{
		Network: "unix", Address: path.Join(at.sockets, socket), Implements: kinds(r.Config.Interface.Types),
		Root: at.rootfs, Propagated: r.Config.PropagatedMount, PropagatedTo: at.propagated,
	}, true
}
