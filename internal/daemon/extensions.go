package daemon

import (
	"context"
	"slices"
	"strings"

	"gantry/internal/config"
	"gantry/internal/extension"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/remote"
	"gantry/internal/volume"
)

// openExtensions finds the plugins that are installed as images, and brings up
// those that are enabled: containers that start after it may need them.
func openExtensions(ctx context.Context, d *Daemon, c *config.Config, p parts, l *launch.Launcher, defaults func() plan.Defaults) error {
	m, err := extension.Open(ctx, extension.Options{
		Store: p.db, Content: p.images.content, Launcher: l, Plugins: p.plugins, Events: d.bus, Root: c.Root, RunDir: c.Run, Defaults: defaults, Log: d.log,
		Registry: remote.Options{Log: d.log, Agent: agent(), Config: func() remote.Config { return remoteConfig(d.config.Load()) }},
		Users:    pluginUsers(p),
	})
	if err != nil {
		return err
	}
	d.extensions = m
	d.later("plugins", func(context.Context) error { m.Close(); return nil })
	m.Start(ctx)
	return nil
}

// pluginUsers counts what uses a plugin: the volumes and networks that were made
// here with it.
func pluginUsers(p parts) func(ctx context.Context, name string) (int, error) {
	return func(ctx context.Context, name string) (int, error) {
		names := []string{name}
		if short, ok := strings.CutSuffix(name, ":latest"); ok {
			names = append(names, short)
		}
		n, err := volume.Kept(p.volumes, names...)
		if err != nil {
			return 0, err
		}
		list, err := p.networks.List(ctx, nil)
		for _, w := range list {
			if slices.Contains(names, w.Driver) || slices.Contains(names, w.IPAM.Driver) {
				n++
			}
		}
		return n, err
	}
}

// unlisted gives the IDs of the containers that no record of the engine has: those
// of builds and of plugins.
func unlisted(d *Daemon) func() []string {
	return func() []string { return append(d.builder.Steps(), d.extensions.Containers()...) }
}
