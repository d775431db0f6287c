package daemon

import (
	"context"
	"path/filepath"
	"time"

	"gantry/internal/config"
	"gantry/internal/container"
	"gantry/internal/doctor"
	"gantry/internal/id"
	"gantry/internal/launch"
	"gantry/internal/network"
	"gantry/internal/volume"
)

// settle is how long what looks ownerless has to last.
const settle = 300 * time.Millisecond

// newDoctor names what there can be of a container outside of its records. steps
// are the containers of builds, which have none.
func newDoctor(c *config.Config, launcher *launch.Launcher, engine *container.Engine, steps func() []string, networks *network.Networks, volumes *volume.Volumes, more ...doctor.Source) *doctor.Doctor {
	owners := func(ctx context.Context) (map[string]bool, error) {
		list, err := engine.List(ctx, container.ListOptions{All: true})
		if err != nil {
			return nil, err
		}
		m := map[string]bool{}
		for _, s := range list {
			// What a container that goes up or down has is on its way too.
			m[s.ID] = s.State != "created" && s.State != "exited" && s.State != "dead"
		}
		for _, id := range steps() {
			m[id] = true
		}
		return m, nil
	}
	return &doctor.Doctor{
		Owners: owners, Settle: settle,
		Sources: append([]doctor.Source{
			doctor.Directories(filepath.Join(c.Root, "containers"), doctor.Known),
			doctor.Directories(filepath.Join(c.Run, "c"), doctor.Running),
			doctor.Mounts(c.Root, c.Run),
			groupSource(c, launcher),
			doctor.Processes("gantry-shim", c.Root, c.Run),
			networkSource(networks, owners), straySource(networks), volumeSource(volumes),
		}, more...),
	}
}

// groupSource are the control groups of containers.
func groupSource(c *config.Config, l *launch.Launcher) doctor.Source {
	s := doctor.Cgroups("/sys/fs/cgroup", cgroupParent(c))
	if c.CgroupDriver != "systemd" {
		return s
	}
	s.List = func(context.Context) ([]doctor.Thing, error) {
		scopes, err := l.Scopes()
		var list []doctor.Thing
		for dir, owner := range scopes {
			list = append(list, doctor.Thing{Name: dir, Owner: owner})
		}
		return list, err
	}
	return s
}

// networkSource are the things of networks that records have for a container.
// They go together, with the network's own clean-up.
func networkSource(n *network.Networks, owners doctor.Owners) doctor.Source {
	return doctor.Source{Kind: "network", Need: doctor.Running, List: func(ctx context.Context) ([]doctor.Thing, error) {
		owned, err := n.Owned(ctx)
		var list []doctor.Thing
		for _, r := range owned {
			if id.Valid(r.Owner) {
				list = append(list, doctor.Thing{Name: r.Kind + " " + r.Name, Owner: r.Owner})
			}
		}
		return list, err
	}, Remove: func(ctx context.Context, _ doctor.Thing) error {
		all, err := owners(ctx)
		if err != nil {
			return err
		}
		var alive []string
		for c, up := range all {
			if up {
				alive = append(alive, c)
			}
		}
		return n.Reconcile(ctx, alive)
	}}
}

// straySource are links, namespaces and rules that no record has.
func straySource(n *network.Networks) doctor.Source {
	resource := func(r network.Resource) doctor.Thing {
		return doctor.Thing{Name: r.Kind + " " + r.Name, Owner: "?" + r.Owner}
	}
	return doctor.Source{Kind: "network", List: func(ctx context.Context) ([]doctor.Thing, error) {
		strays, err := n.Strays(ctx)
		var list []doctor.Thing
		for _, r := range strays {
			list = append(list, resource(r))
		}
		return list, err
	}, Remove: func(ctx context.Context, t doctor.Thing) error {
		strays, err := n.Strays(ctx)
		for _, r := range strays {
			if resource(r) == t {
				return n.RemoveStray(ctx, r)
			}
		}
		return err
	}}
}

// volumeSource are directories of volumes that no record has.
func volumeSource(v *volume.Volumes) doctor.Source {
	return doctor.Source{Kind: "volume", List: func(ctx context.Context) ([]doctor.Thing, error) {
		strays, err := v.Strays(ctx)
		var list []doctor.Thing
		for _, s := range strays {
			list = append(list, doctor.Thing{Name: s, Owner: "?"})
		}
		return list, err
	}}
}

// examiner shows a doctor to the API.
type examiner struct{ d *doctor.Doctor }

// Examine lists what has no owner.
func (e examiner) Examine(ctx context.Context) (any, error) { return e.d.Examine(ctx) }

// Mend removes it too.
func (e examiner) Mend(ctx context.Context) (any, error) { return e.d.Mend(ctx) }
