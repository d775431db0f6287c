// Package create turns the flags of run and create into the request that makes
// a container. It is pure but for the files that flags name: env files, label
// files and seccomp profiles, which are read here because the daemon may be on
// another machine. Package cli calls it. It must not know the API's transport
// or the terminal.
package create

import (
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"gantry/internal/cli/opt"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Attached reports whether -a was given, and CIDFile where --cidfile points to.
func (f *Flags) Attached() bool { return len(f.attach.Values) > 0 }

// CIDFile returns the value of --cidfile.
func (f *Flags) CIDFile() string { return f.cidFile }

// Extra returns what the daemon is asked for beyond Docker, nil for nothing.
func (f *Flags) Extra() *wire.CreateExtra {
	if len(f.after.Values) == 0 && len(f.mounts.IDMaps) == 0 && !f.rate.Given {
		return nil
	}
	x := &wire.CreateExtra{After: f.after.Values, IDMaps: f.mounts.IDMaps}
	if f.rate.Given {
		x.NetRate = &f.rate.Value
	}
	return x
}

// AutoRemove returns the value of --rm.
func (f *Flags) AutoRemove() bool { return f.autoRemove }

// AddMissingEnv sets variables that --env does not set (proxies of config.json).
func (f *Flags) AddMissingEnv(defaults map[string]string) {
	set := map[string]bool{}
	for _, e := range f.env.Values {
		name, _, _ := strings.Cut(e, "=")
		set[name] = true
	}
	for _, k := range slices.Sorted(maps.Keys(defaults)) {
		if !set[k] {
			f.env.Values = append(f.env.Values, k+"="+defaults[k])
		}
	}
}

// Request returns the body of POST /containers/create. The errors carry Docker's
// texts; fs tells which flags were given.
func (f *Flags) Request(fs *pflag.FlagSet) (*wire.CreateRequest, error) {
	if f.macAddress != "" {
		if _, err := net.ParseMAC(strings.TrimSpace(f.macAddress)); err != nil {
			return nil, errs.New(errs.Invalid, "%s is not a valid mac address", f.macAddress)
		}
	}
	if f.swappiness != -1 && (f.swappiness < 0 || f.swappiness > 100) {
		return nil, errs.New(errs.Invalid, "invalid value: %d. Valid memory swappiness range is 0-100", f.swappiness)
	}
	conf := &wire.ContainerConfig{}
	host := &wire.HostConfig{}
	for _, step := range []func(*pflag.FlagSet, *wire.ContainerConfig, *wire.HostConfig) error{
		f.setVolumes, f.setPorts, f.setDevices, f.setProcess, f.setModes, f.setHealth, f.setHost, f.setResources,
	} {
		if err := step(fs, conf, host); err != nil {
			return nil, err
		}
	}
	endpoints, err := f.endpoints()
	if err != nil {
		return nil, err
	}
	return &wire.CreateRequest{
		Config: conf, HostConfig: host,
		NetworkingConfig: &wire.NetworkingConfig{EndpointsConfig: endpoints},
	}, nil
}

func (f *Flags) setProcess(fs *pflag.FlagSet, c *wire.ContainerConfig, _ *wire.HostConfig) error {
	env, err := opt.ReadFiles(f.envFile.Values, f.env.Values, opt.EnvLine(osLookup))
	if err != nil {
		return err
	}
	labels, err := opt.ReadFiles(f.labelFile.Values, f.labels.Values, nil)
	if err != nil {
		return err
	}
	if len(env) == 0 {
		env = nil
	}
	c.Image, c.Env, c.Labels = f.Image, env, opt.ToMap(labels)
	if len(f.Args) > 0 {
		c.Cmd = f.Args
	}
	if f.entrypoint != "" {
		c.Entrypoint = []string{f.entrypoint}
	} else if fs.Changed("entrypoint") {
		c.Entrypoint = []string{""} // --entrypoint= takes the image's away
	}
	c.Hostname, c.Domainname, c.User, c.WorkingDir = f.hostname, f.domainname, f.user, f.workdir
	c.Tty, c.OpenStdin, c.StopSignal = f.tty, f.stdin, f.stopSignal
	c.AttachStdin = f.stdin || f.attach.Has("stdin")
	c.AttachStdout = !f.Attached() || f.attach.Has("stdout")
	c.AttachStderr = !f.Attached() || f.attach.Has("stderr")
	// The container's input ends when the client that gives it goes away.
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	return nil
}

func (f *Flags) setModes(_ *pflag.FlagSet, _ *wire.ContainerConfig, h *wire.HostConfig) error {
	h.PidMode, h.UTSMode = container.PidMode(f.pid), container.UTSMode(f.uts)
	h.UsernsMode, h.CgroupnsMode = container.UsernsMode(f.userns), container.CgroupnsMode(f.cgroupns)
	h.IpcMode, h.Isolation = container.IpcMode(f.ipc), container.Isolation(f.isolation)
	switch {
	case !h.PidMode.Valid():
		return errs.New(errs.Invalid, "--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return errs.New(errs.Invalid, "--uts: invalid UTS mode")
	case !h.UsernsMode.Valid() && h.UsernsMode != "auto":
		return errs.New(errs.Invalid, "--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errs.New(errs.Invalid, "--cgroupns: invalid CGROUP mode")
	}
	return nil
}

func (f *Flags) setHealth(_ *pflag.FlagSet, c *wire.ContainerConfig, _ *wire.HostConfig) error {
	tests := 0
	for _, s := range []string{f.healthCmd, f.healthHTTP, f.healthTCP} {
		if s != "" {
			tests++
		}
	}
	if tests > 1 {
		return errs.New(errs.Invalid, "conflicting options: only one of --health-cmd, --health-http and --health-tcp can be given")
	}
	set := tests > 0 || f.healthInterval != 0 || f.healthTimeout != 0 || f.healthStartPeriod != 0 || f.healthRetries != 0 || f.healthStartInterval != 0
	if f.noHealthcheck {
		if set {
			return errs.New(errs.Invalid, "--no-healthcheck conflicts with --health-* options")
		}
		c.Healthcheck = &wire.Healthcheck{Test: []string{"NONE"}}
		return nil
	}
	if !set {
		return nil
	}
	for _, v := range []struct {
		name string
		bad  bool
	}{
		{"interval", f.healthInterval < 0}, {"timeout", f.healthTimeout < 0}, {"retries", f.healthRetries < 0},
		{"start-period", f.healthStartPeriod < 0}, {"start-interval", f.healthStartInterval < 0},
	} {
		if v.bad {
			return errs.New(errs.Invalid, "--health-%s cannot be negative", v.name)
		}
	}
	c.Healthcheck = &wire.Healthcheck{
		Interval: f.healthInterval, Timeout: f.healthTimeout, StartPeriod: f.healthStartPeriod,
		StartInterval: f.healthStartInterval, Retries: f.healthRetries,
	}
	switch {
	case f.healthCmd != "":
		c.Healthcheck.Test = []string{"CMD-SHELL", f.healthCmd}
	case f.healthHTTP != "":
		c.Healthcheck.Test = append([]string{"HTTP"}, strings.Fields(f.healthHTTP)...)
	case f.healthTCP != "":
		c.Healthcheck.Test = []string{"TCP", f.healthTCP}
	}
	return nil
}

func (f *Flags) setHost(fs *pflag.FlagSet, _ *wire.ContainerConfig, h *wire.HostConfig) error {
	restart, err := ParseRestart(f.restart)
	if err != nil {
		return err
	}
	if f.autoRemove && !restart.IsNone() {
		return errs.New(errs.Invalid, "conflicting options: cannot specify both --restart and --rm")
	}
	if f.logDriver == "none" && len(f.logOpt.Values) > 0 {
		return errs.New(errs.Invalid, "invalid logging opts for driver %s", f.logDriver)
	}
	if err := f.setSecurity(h); err != nil {
		return err
	}
	h.StorageOpt = map[string]string{}
	for _, s := range f.storageOpt.Values {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return errs.New(errs.Invalid, "invalid storage option")
		}
		h.StorageOpt[k] = v
	}
	h.RestartPolicy, h.AutoRemove, h.ContainerIDFile = restart, f.autoRemove, f.cidFile
	h.LogConfig = container.LogConfig{Type: f.logDriver, Config: opt.ToMap(f.logOpt.Values)}
	h.OomScoreAdj, h.Privileged, h.PublishAllPorts, h.ReadonlyRootfs = f.oomScoreAdj, f.privileged, f.publishAll, f.readOnly
	h.Links, h.ExtraHosts, h.VolumesFrom = f.links.Values, f.extraHosts.Values, f.volumesFrom.Values
	h.DNS, h.DNSSearch, h.DNSOptions = addrs(f.dns.Values), orEmpty(f.dnsSearch.Values), orEmpty(f.dnsOption.Values)
	h.CapAdd, h.CapDrop, h.GroupAdd = f.capAdd.Values, f.capDrop.Values, f.groupAdd.Values
	h.VolumeDriver, h.ShmSize, h.Runtime = f.volumeDriver, int64(f.shmSize), f.runtime
	h.Sysctls, h.Annotations, h.Mounts = orEmptyMap(f.sysctls.Values), orEmptyMap(f.annotations.Values), f.mounts.List
	h.NetworkMode = "default"
	if len(f.networks) > 0 {
		h.NetworkMode = container.NetworkMode(f.networks[0].Target)
	}
	if fs.Changed("init") {
		h.Init = &f.initProcess
	}
	return nil
}

func (f *Flags) setResources(_ *pflag.FlagSet, _ *wire.ContainerConfig, h *wire.HostConfig) error {
	r := &h.Resources
	r.CgroupParent, r.NanoCPUs = f.cgroupParent, int64(f.cpus)
	r.Memory, r.MemoryReservation, r.MemorySwap = int64(f.memory), int64(f.memoryReservation), int64(f.memorySwap)
	r.MemorySwappiness, r.OomKillDisable, r.PidsLimit = &f.swappiness, &f.oomKillDisable, &f.pidsLimit
	r.CPUCount, r.CPUPercent, r.CPUShares = f.cpuCount, f.cpuPercent, f.cpuShares
	r.CPUPeriod, r.CPUQuota, r.CPURealtimePeriod, r.CPURealtimeRuntime = f.cpuPeriod, f.cpuQuota, f.cpuRtPeriod, f.cpuRtRuntime
	r.CpusetCpus, r.CpusetMems = f.cpusetCpus, f.cpusetMems
	r.BlkioWeight, r.BlkioWeightDevice = f.blkioWeight, f.blkioDevices
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = f.readBps.Devices, f.writeBps.Devices
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = f.readIOps.Devices, f.writeIOps.Devices
	r.IOMaximumIOps, r.IOMaximumBandwidth = f.ioMaxIOps, uint64(f.ioMaxBandwidth)
	r.Ulimits, r.DeviceCgroupRules = f.ulimits, f.deviceRules.Values
	return nil
}
