package daemon

import (
	"context"
	"net/netip"

	"gantry/internal/container"
	"gantry/internal/doctor"
	"gantry/internal/network"
)

// explainer answers for the packet rules, by the names of containers.
type explainer struct {
	engine   *container.Engine
	networks *network.Networks
}

// Why says which rule lets packets for a container's port pass, or stops them.
func (e explainer) Why(ctx context.Context, ref, port string, from netip.Addr) (any, error) {
	c, err := e.engine.Inspect(ctx, ref, container.InspectOptions{})
	if err != nil {
		return nil, err
	}
	return network.Why(e.networks, c.ID, port, from)
}

// firewallSource are chains of other programs that keep containers from being
// reached. Mending makes them accept what goes to our bridges.
func firewallSource(n *network.Networks) doctor.Source {
	return doctor.Source{Kind: "firewall", List: func(context.Context) ([]doctor.Thing, error) {
		all, err := network.Blocked(n)
		var list []doctor.Thing
		for _, s := range all {
			list = append(list, doctor.Thing{Name: s, Owner: "?"})
		}
		return list, err
	}, Remove: func(context.Context, doctor.Thing) error { return network.Unblock(n) }}
}
