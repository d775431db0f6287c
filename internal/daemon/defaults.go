package daemon

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"

	"gantry/internal/config"
	"gantry/internal/errs"
	"gantry/internal/plan"
)

// seccompText returns what plan.Defaults wants of --seccomp-profile.
func seccompText(profile string) (string, error) {
	switch profile {
	case "", plan.Builtin, plan.Unconfined:
		return profile, nil
	}
	data, err := os.ReadFile(profile)
	if err != nil {
		return "", fmt.Errorf("seccomp profile: %w", err)
	}
	return string(data), nil
}

// defaults is what the configuration says for containers that say nothing.
func defaults(c *config.Config, k plan.Kernel, seccomp, hostname string) plan.Defaults {
	d := plan.Defaults{
		Runtime: c.DefaultRuntime, Runtimes: runtimeNames(c),
		LogDriver: c.LogDriver, LogOptions: c.LogOpts,
		ShmSize: c.ShmSize, IpcMode: c.IPCMode, CgroupnsMode: c.CgroupnsMode, CgroupParent: c.CgroupParent,
		Init: c.Init, StopTimeout: c.StopTimeout,
		// As in Docker, where they are off since they tell one container the
		// secrets of another.
		LinkEnv: os.Getenv("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS") == "1",
		DNS:     c.DNS, DNSSearch: c.DNSSearch, DNSOptions: c.DNSOptions,
		Seccomp: seccomp, NoNewPrivileges: c.NoNewPrivs,
		SystemdCgroup: c.CgroupDriver == "systemd", HostHostname: hostname,
		UsernsRemap: remaps(c),
		Kernel:      k,
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		u := c.Ulimits[name]
		d.Ulimits = append(d.Ulimits, plan.Ulimit{Name: name, Soft: u.Soft, Hard: u.Hard})
	}
	return d
}

// runtimes gives, by name, the programs of other runtimes: those of the
// configuration, and runc where it is installed.
func runtimes(c *config.Config) map[string][]string {
	all := map[string][]string{}
	if path, err := exec.LookPath("runc"); err == nil {
		all["runc"] = []string{path}
	}
	for name, r := range c.Runtimes {
		all[name] = append([]string{r.Path}, r.Args...)
	}
	return all
}

// runtime is the program of another runtime, as the configuration has it now.
func (d *Daemon) runtime(name string) []string {
	if name == config.OwnRuntime {
		return nil
	}
	return runtimes(d.config.Load())[name]
}

func runtimeNames(c *config.Config) []string {
	return append([]string{config.OwnRuntime}, slices.Sorted(maps.Keys(runtimes(c)))...)
}

// checkLogDefaults refuses a log driver, or options of it, that no container
// could use.
func checkLogDefaults(c *config.Config) error {
	if !slices.Contains(append(plan.LogDrivers(), plan.LogNone), c.LogDriver) {
		return errs.New(errs.Invalid, "failed to set log driver: logger: no log driver named '%s' is registered", c.LogDriver)
	}
	if err := plan.CheckLog(c.LogDriver, c.LogOpts); err != nil {
		return fmt.Errorf("failed to set log opts: %w", err)
	}
	return nil
}
