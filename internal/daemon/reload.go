package daemon

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gantry/internal/config"
	"gantry/internal/daemon/listen"
	"gantry/internal/wire"
)

// reload reads the configuration, and the certificates, again. What can't
// change while the daemon runs keeps its value; a configuration with an error
// changes nothing.
func (d *Daemon) reload(args []string) {
	_ = listen.Notify("RELOADING=1")
	defer func() { _ = listen.Notify("READY=1") }()
	fresh, _, err := load(args)
	if err != nil {
		d.log.Error("the configuration was not reloaded", "err", err)
		return
	}
	if d.tls != nil {
		if err := d.tls.Reload(); err != nil {
			d.log.Error("the configuration was not reloaded", "err", err)
			return
		}
	}
	if err := d.doors.reloadPolicies(); err != nil {
		d.log.Error("the configuration was not reloaded", "err", err)
		return
	}
	running := d.config.Load()
	next := reloaded(running, fresh)
	d.level.Set(levelOf(next.LogLevel))
	d.config.Store(next)
	d.log.Info("configuration reloaded")
	for _, w := range fresh.Warnings {
		if !slices.Contains(running.Warnings, w) {
			d.log.Warn(w)
		}
	}
	d.bus.Publish(wire.Event{Type: "daemon", Action: "reload", Actor: wire.EventActor{ID: d.id, Attributes: reloadAttributes(next, d.about.host.Name)}})
}

// reloaded returns running with those settings of fresh that may change while
// the daemon runs.
func reloaded(running, fresh *config.Config) *config.Config {
	c := *running
	c.Debug, c.LogLevel, c.Labels = fresh.Debug, fresh.LogLevel, fresh.Labels
	c.ShutdownTimeout, c.StopTimeout, c.LiveRestore = fresh.ShutdownTimeout, fresh.StopTimeout, fresh.LiveRestore
	c.ShmSize, c.IPCMode, c.CgroupnsMode = fresh.ShmSize, fresh.IPCMode, fresh.CgroupnsMode
	c.Features, c.RegistryMirrors, c.InsecureRegistries = fresh.Features, fresh.RegistryMirrors, fresh.InsecureRegistries
	c.LazyPull = fresh.LazyPull
	c.Registries, c.MaxDownloads, c.MaxUploads, c.DownloadAttempts = fresh.Registries, fresh.MaxDownloads, fresh.MaxUploads, fresh.DownloadAttempts
	c.Runtimes, c.DefaultRuntime = fresh.Runtimes, fresh.DefaultRuntime
	c.Ulimits, c.LogOpts = fresh.Ulimits, fresh.LogOpts
	c.DiskBudget = fresh.DiskBudget
	c.Warnings = fresh.Warnings
	return &c
}

// reloadAttributes is what the event says of the settings that can change.
func reloadAttributes(c *config.Config, host string) map[string]string {
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
	var names []string
	for name := range runtimes(c) {
		names = append(names, name)
	}
	slices.Sort(names)
	return map[string]string{
		"name": host, "debug": fmt.Sprint(c.Debug), "labels": text(append([]string{}, c.Labels...)),
		"live-restore": fmt.Sprint(c.LiveRestore), "shutdown-timeout": fmt.Sprint(c.ShutdownTimeout), "default-stop-timeout": fmt.Sprint(c.StopTimeout),
		"default-shm-size": fmt.Sprint(c.ShmSize), "default-ipc-mode": c.IPCMode, "default-cgroupns-mode": c.CgroupnsMode,
		"default-runtime": c.DefaultRuntime, "runtimes": strings.Join(append(names, config.OwnRuntime), " "),
		"registry-mirrors": text(append([]string{}, c.RegistryMirrors...)), "insecure-registries": text(append([]string{}, c.InsecureRegistries...)),
		"features": text(c.Features), "max-concurrent-downloads": fmt.Sprint(c.MaxDownloads), "max-concurrent-uploads": fmt.Sprint(c.MaxUploads),
		"max-download-attempts": fmt.Sprint(c.DownloadAttempts),
	}
}
