package daemon

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/build"
	"gantry/internal/config"
	"gantry/internal/disk"
	"gantry/internal/image"
	"gantry/internal/network"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// openBuilder makes the builder, of which nothing is open before the first build.
func (d *Daemon) openBuilder(p parts, l build.Launcher, defaults func() plan.Defaults) error {
	b, err := build.New(build.Options{
		Root: d.config.Load().Root, RunDir: d.config.Load().Run, Content: p.images.content, Names: image.Builds{Images: p.images.Images},
		Hosts: d.registries(p.images).client.Hosts, Launcher: l, Defaults: defaults, Log: d.log,
		Config: func() build.Config { return buildConfig(d.config.Load(), network.HostGateway(p.networks)) },
	})
	if err != nil {
		return err
	}
	d.builder = b
	d.later("builder", func(context.Context) error { return b.Close() })
	return nil
}

// buildCache is the builder's cache as the disk wants it.
type buildCache struct{ *build.Builder }

// Prune removes cache.
func (c buildCache) Prune(ctx context.Context, o disk.CachePrune) (wire.CachePruned, error) {
	return c.Builder.Prune(ctx, build.PruneOptions(o))
}

// freshCache is how long whatever was of use stays in the build cache, full or
// not: the layers of the build that has just ended above all.
const freshCache = 10 * time.Minute

// buildConfig is what the configuration says about builds.
func buildConfig(c *config.Config, gateway []netip.Addr) build.Config {
	b := c.Builder
	out := build.Config{HistoryAge: b.HistoryAge, HistoryEntries: b.HistoryEntries, DeviceDirs: cdiDirs(c)}
	for _, e := range []struct {
		on   bool
		name string
	}{{b.NetworkHost, "network.host"}, {b.Insecure, "security.insecure"}, {b.Devices, "device"}} {
		if e.on {
			out.Entitlements = append(out.Entitlements, e.name)
		}
	}
	if len(gateway) > 0 {
		out.HostGateway = gateway[0].String()
	}
	if b.NoGC {
		return out
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.Root, &fs); err != nil {
		return out // without a disk to look at nothing is too much
	}
	total := int64(fs.Blocks) * fs.Frsize
	for _, r := range cacheRules(b) {
		out.GC = append(out.GC, build.GCRule{
			All: r.All, Filter: r.Filter, KeepDuration: max(r.Keep, freshCache),
			Reserved: r.Reserved.Of(total), MaxUsed: r.MaxUsed.Of(total), MinFree: r.MinFree.Of(total),
		})
	}
	return out
}

// cacheRules are those that are configured, or else: contexts and cache mounts
// go first, then what was not used for two months, then what is too much.
func cacheRules(b config.Builder) []config.CacheRule {
	if len(b.Rules) > 0 {
		return b.Rules
	}
	all := b.Defaults
	for _, d := range []struct {
		to *config.Size
		p  int64
	}{{&all.Reserved, 10}, {&all.MaxUsed, 75}, {&all.MinFree, 20}} {
		if *d.to == (config.Size{}) {
			d.to.Percent = d.p
		}
	}
	return []config.CacheRule{
		{Filter: []string{"type==source.local,type==exec.cachemount,type==source.git.checkout"}, Keep: 48 * time.Hour, CacheBounds: config.CacheBounds{MaxUsed: config.Size{Bytes: 512 << 20}}},
		{Keep: 60 * 24 * time.Hour, CacheBounds: all},
		{CacheBounds: all},
		{All: true, CacheBounds: all},
	}
}
