package container

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"gantry/internal/wire"
)

// List returns the containers that o selects, the newest first.
func (c *Query) List(ctx context.Context, o ListOptions) ([]wire.ContainerSummary, error) {
	sel, err := c.selection(ctx, o)
	if err != nil {
		return nil, err
	}
	all := c.table.all()
	views := make([]*snapshot, 0, len(all))
	for _, a := range all {
		views = append(views, a.view())
	}
	slices.SortFunc(views, newestFirst)
	out, now, linked := []wire.ContainerSummary{}, time.Now(), links{c.core}.byTarget()
	for _, s := range views {
		if !sel.matches(s) {
			continue
		}
		out = append(out, c.summary(ctx, s, now))
		out[len(out)-1].Names = links{c.core}.names(s.rec, linked)
		if o.Size {
			last := &out[len(out)-1]
			last.SizeRw, last.SizeRootFs = c.sizes(ctx, s.rec)
		}
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

func newestFirst(a, b *snapshot) int {
	if d := b.rec.CreatedAt.Compare(a.rec.CreatedAt); d != 0 {
		return d
	}
	return cmp.Compare(a.rec.ID, b.rec.ID)
}

func (c *core) summary(ctx context.Context, s *snapshot, now time.Time) wire.ContainerSummary {
	rec, p := s.rec, s.rec.Plan
	w := wire.ContainerSummary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, Image: p.Config.Image, ImageID: rec.Image.ID,
		ImageManifestDescriptor: rec.Image.Manifest, Command: command(p.Process.Args), Created: rec.CreatedAt.Unix(),
		Ports: s.ports(), Labels: p.Labels, State: s.status(), Status: s.sentence(now),
		Health:          &wire.HealthSummary{Status: "none"},
		NetworkSettings: &wire.NetworkSettingsSummary{Networks: s.endpoints()},
		Mounts:          c.mountPoints(ctx, p),
	}
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	w.HostConfig.NetworkMode, w.HostConfig.Annotations = string(p.HostConfig.NetworkMode), p.HostConfig.Annotations
	if s.health != nil {
		w.Health.Status, w.Health.FailingStreak = s.health.Status, s.health.FailingStreak
	}
	for _, e := range w.NetworkSettings.Networks {
		e.Aliases, e.DNSNames = nil, nil // a list does not tell them
	}
	return w
}

// ports lists a running container's ports: each published one by its host's
// address and port, the others that it exposes by their own number.
func (s *snapshot) ports() []wire.PortSummary {
	out := []wire.PortSummary{}
	if s.sandbox == nil || !s.state.up() {
		return out
	}
	published := s.networkSettings().Ports
	for port, bindings := range published {
		if len(bindings) == 0 {
			out = append(out, wire.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
		for _, b := range bindings {
			host, err := wire.ParsePort(b.HostPort)
			if err != nil {
				continue
			}
			out = append(out, wire.PortSummary{IP: b.HostIP, PrivatePort: port.Num(), PublicPort: host.Num(), Type: string(port.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b wire.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), compareIP(a.IP, b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return out
}

func compareIP(a, b netip.Addr) int {
	if a.Is4() != b.Is4() {
		if a.Is4() {
			return -1
		}
		return 1
	}
	return a.Compare(b)
}

// Counts counts the containers.
func (c *Query) Counts() Counts {
	var n Counts
	for _, a := range c.table.all() {
		n.Total++
		switch s := a.view(); {
		case s.state.Frozen:
			n.Paused++
		case s.state.up():
			n.Running++
		default:
			n.Stopped++
		}
	}
	return n
}

// Uses returns the containers made of an image.
func (c *Query) Uses(imageID string) []Use {
	var out []Use
	for _, a := range c.table.all() {
		if s := a.view(); s.rec.Image.ID == imageID {
			out = append(out, Use{ID: s.rec.ID, Name: s.rec.Name, Running: s.state.up()})
		}
	}
	return out
}
