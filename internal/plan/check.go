package plan

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// maxHostname is the kernel's __NEW_UTS_LEN (uname(2)).
const maxHostname = 64

// checkNetworkMode refuses what can't go with another container's network, or
// the host's.
func checkNetworkMode(cfg *wire.ContainerConfig, hc *wire.HostConfig) error {
	mode := hc.NetworkMode
	if mode == "container" || mode.IsContainer() && mode.ConnectedContainer() == "" {
		return errs.New(errs.Invalid, "invalid network mode: invalid container format container:<name|id>")
	}
	conflict := func(text string) error { return errs.New(errs.Invalid, "conflicting options: %s", text) }
	if mode.IsContainer() {
		switch {
		case cfg.Hostname != "":
			return conflict("hostname and the network mode")
		case len(hc.Links) > 0:
			return conflict("container type network can't be used with links. This would result in undefined behavior")
		case len(hc.DNS) > 0:
			return conflict("dns and the network mode")
		case len(hc.ExtraHosts) > 0:
			return conflict("custom host-to-IP mapping and the network mode")
		case len(hc.PortBindings) > 0 || hc.PublishAllPorts:
			return conflict("port publishing and the container type network mode")
		case len(cfg.ExposedPorts) > 0:
			return conflict("port exposing and the container type network mode")
		}
	}
	if hc.UTSMode.IsHost() && cfg.Hostname != "" {
		return conflict("hostname and the UTS mode")
	}
	if mode.IsHost() && len(hc.Links) > 0 {
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	}
	return nil
}

// checkPlatform refuses what Linux, or this one, does not have.
func checkPlatform(hc *wire.HostConfig, k Kernel) error {
	if !hc.Isolation.IsDefault() {
		return errs.New(errs.Invalid, "invalid isolation (%s): linux only supports 'default'", hc.Isolation)
	}
	if hc.IOMaximumBandwidth != 0 {
		return errs.New(errs.Invalid, "invalid QoS settings: linux does not support configuration of maximum bandwidth")
	}
	if hc.IOMaximumIOps != 0 {
		return errs.New(errs.Invalid, "invalid QoS settings: linux does not support configuration of maximum IOPs")
	}
	if (hc.CPURealtimePeriod != 0 || hc.CPURealtimeRuntime != 0) && !k.CPURealtime {
		return errs.New(errs.Invalid, "kernel does not support CPU real-time scheduler")
	}
	if hc.CPURealtimePeriod != 0 && hc.CPURealtimeRuntime > hc.CPURealtimePeriod {
		return errs.New(errs.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
	}
	return nil
}

// checkConfig checks the portable half, and cleans the working directory.
func checkConfig(cfg *wire.ContainerConfig) error {
	if len(cfg.Hostname) > maxHostname {
		return errs.New(errs.Invalid, "hostname %q is too long (maximum %d bytes)", cfg.Hostname, maxHostname)
	}
	if cfg.WorkingDir != "" {
		if !path.IsAbs(cfg.WorkingDir) {
			return errs.New(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", cfg.WorkingDir)
		}
		cfg.WorkingDir = path.Clean(cfg.WorkingDir)
	}
	if cfg.StopSignal != "" {
		if _, err := ParseSignal(cfg.StopSignal); err != nil {
			return err
		}
	}
	for _, kv := range cfg.Env {
		if kv == "" || kv[0] == '=' || strings.IndexByte(kv, 0) >= 0 {
			return errs.New(errs.Invalid, "invalid environment variable: %s", kv)
		}
	}
	return checkHealth(cfg.Healthcheck)
}

func checkHealth(h *wire.Healthcheck) error {
	if h == nil {
		return nil
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if f.d != 0 && f.d < time.Millisecond {
			return errs.New(errs.Invalid, "%s in Healthcheck cannot be less than %s", f.name, time.Millisecond)
		}
	}
	if h.Retries < 0 {
		return errs.New(errs.Invalid, "Retries in Healthcheck cannot be negative")
	}
	return nil
}

// checkHostConfig checks the half that is about this host.
func checkHostConfig(hc *wire.HostConfig, k Kernel, w *warnings) error {
	if hc.AutoRemove && !hc.RestartPolicy.IsNone() {
		return errs.New(errs.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	for i := range hc.Mounts {
		if err := checkMount(&hc.Mounts[i]); err != nil {
			return err
		}
		if hc.Mounts[i].Type == typeVolume && hc.VolumeDriver != "" {
			w.add("WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead")
		}
	}
	for _, h := range hc.ExtraHosts {
		if err := checkExtraHost(h); err != nil {
			return err
		}
	}
	if err := checkPorts(hc, w); err != nil {
		return err
	}
	if err := checkRestart(hc.RestartPolicy); err != nil {
		return err
	}
	for k := range hc.Annotations {
		if k == "" {
			return errs.New(errs.Invalid, "invalid Annotations: the empty string is not permitted as an annotation key")
		}
	}
	if _, err := normalizeCaps(hc.CapAdd, k); err != nil {
		return errs.New(errs.Invalid, "invalid CapAdd: %w", err)
	}
	if _, err := normalizeCaps(hc.CapDrop, k); err != nil {
		return errs.New(errs.Invalid, "invalid CapDrop: %w", err)
	}
	return nil
}

// checkExtraHost checks "name:address" or "name=address".
func checkExtraHost(s string) error {
	name, addr, ok := strings.Cut(s, ":")
	if n, a, eq := strings.Cut(s, "="); eq && len(n) < len(name) {
		name, addr, ok = n, a, true
	}
	if !ok || name == "" {
		return errs.New(errs.Invalid, "bad format for add-host: %q", s)
	}
	if addr == "host-gateway" {
		return nil
	}
	bare := addr
	if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
		bare = addr[1 : len(addr)-1]
	}
	if _, err := netip.ParseAddr(bare); err != nil {
		return errs.New(errs.Invalid, "invalid IP address in add-host: %q", addr)
	}
	return nil
}

// checkPorts checks the host's side of published ports. A port with no
// binding at all is published somewhere, with a warning.
func checkPorts(hc *wire.HostConfig, w *warnings) error {
	bindings := wire.PortMap{}
	var empty []string
	for port, list := range hc.PortBindings {
		for _, b := range list {
			if !validPortRange(b.HostPort) {
				return errs.New(errs.Invalid, "invalid port specification: %q", b.HostPort)
			}
		}
		if len(list) == 0 {
			empty = append(empty, port.String())
			list = []wire.PortBinding{{}}
		}
		bindings[port] = slices.Clone(list)
	}
	hc.PortBindings = bindings
	if len(empty) > 0 {
		slices.Sort(empty)
		w.add("Following container port(s) have an empty list of port-bindings: " + strings.Join(empty, ", ") +
			". Such bindings will be discarded in a future version.")
	}
	return nil
}

// validPortRange accepts "", "8080" and "8000-8010".
func validPortRange(s string) bool {
	if s == "" {
		return true
	}
	lo, hi, ranged := strings.Cut(s, "-")
	if !ranged {
		hi = lo
	}
	a, errA := strconv.ParseUint(lo, 10, 16)
	b, errB := strconv.ParseUint(hi, 10, 16)
	return errA == nil && errB == nil && a <= b
}

func checkRestart(p wire.RestartPolicy) error {
	switch p.Name {
	case "no", "always", "unless-stopped":
		switch {
		case p.MaximumRetryCount < 0:
			return errs.New(errs.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative")
		case p.MaximumRetryCount > 0:
			return errs.New(errs.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure", OnUnhealthy:
		if p.MaximumRetryCount < 0 {
			return errs.New(errs.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	case "":
	default:
		return errs.New(errs.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", p.Name)
	}
	return nil
}

// OnUnhealthy is a restart policy beyond Docker's: as on-failure, and also when
// the health check says that the container does not work any more.
const OnUnhealthy = "on-unhealthy"

// checkRestartHealth refuses to wait for the verdict of a check that is not there.
func checkRestartHealth(p wire.RestartPolicy, h *Health) error {
	if p.Name == OnUnhealthy && h == nil {
		return errs.New(errs.Invalid, "invalid restart policy: on-unhealthy needs a health check (--health-cmd, --health-http or --health-tcp), and neither the container nor its image has one")
	}
	return nil
}

// checkModes checks whose namespaces are used, and what goes with that.
func checkModes(hc *wire.HostConfig, d Defaults, w *warnings) error {
	if !hc.IpcMode.Valid() {
		return errs.New(errs.Invalid, "invalid IPC mode: %s", hc.IpcMode)
	}
	if !hc.PidMode.Valid() {
		return errs.New(errs.Invalid, "invalid PID mode: %s", hc.PidMode)
	}
	if !hc.UTSMode.Valid() {
		return errs.New(errs.Invalid, "invalid UTS mode: %s", hc.UTSMode)
	}
	if hc.ShmSize < 0 {
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	}
	if hc.OomScoreAdj < -1000 || hc.OomScoreAdj > 1000 {
		return errs.New(errs.Invalid, "Invalid value %d, range for oom score adj is [-1000, 1000]", hc.OomScoreAdj)
	}
	if !d.Kernel.IPv4Forwarding && !hc.NetworkMode.IsHost() && !hc.NetworkMode.IsNone() {
		w.add("IPv4 forwarding is disabled. Networking will not work.")
	}
	if hc.NetworkMode.IsHost() && len(hc.PortBindings) > 0 {
		w.add("Published ports are discarded when using host network mode")
	}
	if err := checkRemapped(hc, d); err != nil {
		return err
	}
	if d.SystemdCgroup && hc.CgroupParent != "" && (len(hc.CgroupParent) <= len("x.slice")-1 || !strings.HasSuffix(hc.CgroupParent, ".slice")) {
		return errs.New(errs.Invalid, "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	if hc.Runtime != "" && hc.Runtime != d.Runtime && !slices.Contains(d.Runtimes, hc.Runtime) {
		return errs.New(errs.Invalid, "unknown or invalid runtime name: %s", hc.Runtime)
	}
	for dest := range hc.Tmpfs {
		if err := checkTarget(dest); err != nil {
			return errs.With(errs.Invalid, err)
		}
	}
	if !hc.CgroupnsMode.Valid() {
		return errs.New(errs.Invalid, "invalid cgroup namespace mode: %s", hc.CgroupnsMode)
	}
	if hc.CgroupnsMode.IsPrivate() && !d.Kernel.CgroupNamespaces {
		w.add("Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded.")
		hc.CgroupnsMode = "host"
	}
	return nil
}

// checkRemapped refuses what a user namespace with other ids can't share with
// the host.
func checkRemapped(hc *wire.HostConfig, d Defaults) error {
	if userMode(hc, d) == Host {
		return nil
	}
	switch {
	case hc.Privileged:
		return errs.New(errs.Invalid, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case hc.NetworkMode.IsHost():
		return errs.New(errs.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
	case hc.PidMode.IsHost():
		return errs.New(errs.Invalid, "cannot share the host PID namespace when user namespaces are enabled")
	}
	return nil
}
