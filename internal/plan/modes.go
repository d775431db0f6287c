package plan

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// planNamespaces says where each namespace comes from. HostConfig is complete.
func planNamespaces(cfg *wire.ContainerConfig, hc *wire.HostConfig, d Defaults) Namespaces {
	return Namespaces{
		Network: networkNamespace(hc.NetworkMode, cfg.NetworkDisabled),
		PID:     sharedNamespace(string(hc.PidMode)),
		IPC:     sharedNamespace(string(hc.IpcMode)),
		UTS:     utsNamespace(hc),
		Cgroup:  sharedNamespace(string(hc.CgroupnsMode)),
		User:    Namespace{Mode: userMode(hc, d)},
	}
}

func networkNamespace(mode wire.NetworkMode, disabled bool) Namespace {
	switch {
	case mode.IsContainer():
		return Namespace{Mode: Container, Container: mode.ConnectedContainer()}
	case mode.IsHost():
		return Namespace{Mode: Host}
	case mode.IsNone() || disabled:
		return Namespace{Mode: None}
	}
	return Namespace{Mode: Network, Network: string(mode)}
}

// sharedNamespace reads a mode of HostConfig: "", "host", "container:x" …
func sharedNamespace(mode string) Namespace {
	if of, ok := strings.CutPrefix(mode, "container:"); ok {
		return Namespace{Mode: Container, Container: of}
	}
	if mode == "" {
		return Namespace{Mode: Private}
	}
	return Namespace{Mode: Mode(mode)}
}

// utsNamespace: a container in the host's network shares its host name by
// default only in text; the namespace stays its own.
func utsNamespace(hc *wire.HostConfig) Namespace {
	if hc.UTSMode.IsHost() {
		return Namespace{Mode: Host}
	}
	return Namespace{Mode: Private}
}

// fillHostConfig writes Docker's and the daemon's defaults where the user was
// silent, so that inspect shows them.
func fillHostConfig(hc *wire.HostConfig, d Defaults) {
	if hc.RestartPolicy.Name == "" {
		hc.RestartPolicy.Name = "no"
	}
	if hc.Runtime == "" {
		hc.Runtime = d.Runtime
	}
	if hc.Memory > 0 && hc.MemorySwap == 0 {
		hc.MemorySwap = 2 * hc.Memory
	}
	if hc.ShmSize == 0 {
		hc.ShmSize = d.ShmSize
	}
	if hc.IpcMode == "" {
		hc.IpcMode = wire.IpcMode(d.IpcMode)
	}
	if hc.CgroupnsMode == "" {
		hc.CgroupnsMode = defaultCgroupns(hc, d)
	}
	if hc.OomKillDisable == nil && d.Kernel.OOMKillDisable {
		hc.OomKillDisable = new(bool)
	}
	fillPaths(hc)
	if !labelled(hc.SecurityOpt) && (hc.Privileged || hc.IpcMode.IsHost() || hc.PidMode.IsHost()) {
		// Docker shows that labels can't confine such a container.
		hc.SecurityOpt = append(slices.Clone(hc.SecurityOpt), "label=disable")
	}
}

// defaultCgroupns: on cgroup v2 a container sees its own group as the root; on
// v1 that would break what programs know of the layout.
func defaultCgroupns(hc *wire.HostConfig, d Defaults) wire.CgroupnsMode {
	switch {
	case !d.Kernel.CgroupNamespaces, hc.Privileged && !d.Kernel.CgroupV2:
		return "host"
	case d.CgroupnsMode != "":
		return wire.CgroupnsMode(d.CgroupnsMode)
	case d.Kernel.CgroupV2:
		return "private"
	}
	return "host"
}

// fillPaths hides Docker's paths, unless the user gave a list or the container is privileged.
func fillPaths(hc *wire.HostConfig) {
	if hc.Privileged {
		return
	}
	if hc.MaskedPaths == nil {
		hc.MaskedPaths = slices.Clone(defaultMaskedPaths)
	}
	if hc.ReadonlyPaths == nil {
		hc.ReadonlyPaths = slices.Clone(defaultReadonlyPaths)
	}
}

// defaultMaskedPaths hold what tells about other containers or the machine.
var defaultMaskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

// defaultReadonlyPaths hold the switches of the kernel.
var defaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// planEndpoints says which networks the container is in, with the settings
// the user gave.
func planEndpoints(mode wire.NetworkMode, nc *wire.NetworkingConfig, disabled bool) (map[string]*wire.EndpointSettings, error) {
	out := map[string]*wire.EndpointSettings{}
	if mode.IsContainer() || disabled {
		return out, nil
	}
	if nc != nil {
		for name, s := range nc.EndpointsConfig {
			if name == "default" {
				name = "bridge"
			}
			if s == nil {
				s = &wire.EndpointSettings{}
			}
			out[name] = s.Copy()
		}
	}
	name := string(mode)
	if _, ok := out[name]; !ok && (len(out) == 0 || !predefined(name)) {
		out[name] = &wire.EndpointSettings{}
	}
	for _, n := range slices.Sorted(maps.Keys(out)) {
		if err := checkEndpoint(n, out[n]); err != nil {
			return nil, errs.New(errs.Invalid, "invalid config for network %s: invalid endpoint settings:\n%w", n, err)
		}
	}
	return out, nil
}

// predefined tells the networks that every daemon has.
func predefined(network string) bool {
	return network == "bridge" || network == "host" || network == "none"
}

func checkEndpoint(network string, s *wire.EndpointSettings) error {
	if !predefined(network) {
		return nil
	}
	var list []error
	if c := s.IPAMConfig; c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid() || len(c.LinkLocalIPs) > 0) {
		list = append(list, errors.New("user-specified IP address is supported on user-defined networks only"))
	}
	if len(s.Aliases) > 0 {
		list = append(list, errors.New("network-scoped aliases are only supported for user-defined networks"))
	}
	return errors.Join(list...)
}

// planLinks reads "container[:alias]". Docker answers a breach with 500.
func planLinks(list []string) ([]Link, error) {
	var out []Link
	for _, s := range list {
		arr := strings.Split(s, ":")
		switch {
		case s == "":
			return nil, fmt.Errorf("empty string specified for links")
		case len(arr) > 2:
			return nil, fmt.Errorf("bad format for links: %s", s)
		case len(arr) == 1:
			out = append(out, Link{Container: s, Alias: s})
		case strings.HasPrefix(arr[0], "/"):
			// As inspect of an old engine gives it: /other:/this/alias.
			out = append(out, Link{Container: arr[0][1:], Alias: path.Base(arr[1])})
		default:
			out = append(out, Link{Container: arr[0], Alias: arr[1]})
		}
	}
	return out, nil
}

func planStop(cfg *wire.ContainerConfig, d Defaults) (Stop, error) {
	sig, err := ParseSignal(firstNonEmpty(cfg.StopSignal, "SIGTERM"))
	if err != nil {
		return Stop{}, err
	}
	s := Stop{Signal: sig, Timeout: d.StopTimeout}
	if cfg.StopTimeout != nil {
		s.Timeout = *cfg.StopTimeout
	}
	return s, nil
}

// Docker's defaults of a health check.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
)

// planHealth resolves the check; nil for none. A kind of test that nobody knows
// is no test, as in Docker.
func planHealth(cfg *wire.ContainerConfig) (*Health, error) {
	in := cfg.Healthcheck
	if in == nil || len(in.Test) < 2 {
		return nil, nil
	}
	h := Health{
		Interval: in.Interval, Timeout: in.Timeout, StartPeriod: in.StartPeriod,
		StartInterval: in.StartInterval, Retries: in.Retries,
	}
	var err error
	if h.Probe, err = parseProbe(in.Test); err != nil {
		return nil, err
	}
	switch {
	case h.Probe != nil:
	case in.Test[0] == "CMD":
		h.Args = slices.Clone(in.Test[1:])
	case in.Test[0] == "CMD-SHELL":
		shell := cfg.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		h.Args = slices.Concat(shell, in.Test[1:])
	default:
		return nil, nil
	}
	for _, f := range []struct {
		d   *time.Duration
		def time.Duration
	}{{&h.Interval, healthInterval}, {&h.Timeout, healthTimeout}, {&h.StartInterval, healthStartInterval}} {
		if *f.d == 0 {
			*f.d = f.def
		}
	}
	if h.Retries == 0 {
		h.Retries = healthRetries
	}
	return &h, nil
}
