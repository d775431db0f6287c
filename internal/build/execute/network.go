package execute

import (
	"crypto/rand"
	"net"
	"sync"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"gantry/internal/errs"
	"gantry/internal/launch"
)

// BuildKit knows the networks default, host and none; the API's own builds can
// be on any of the daemon's. A step is told so by way of a host that it is to
// know: the address under networkHost is a ticket that stands for the network,
// and that nobody can guess who was not given it. What a step is cached under
// has the names of its hosts in it, but not their addresses.

// networkHost is the host whose address is a ticket.
const networkHost = "network.build.gantry.internal"

// A Network is what steps may be on: a network's name, or "container:ID" with
// the container and its process in Joins.
type Network struct {
	Mode  string
	Joins launch.Joins
}

// tickets are networks by address.
type tickets struct {
	mu   sync.Mutex
	nets map[string]Network
}

// Network gives out a ticket for steps on a network: an entry for the hosts that
// they know, "name=address". It is good until done is called.
func (e *Executor) Network(n Network) (entry string, done func()) {
	addr := make(net.IP, net.IPv6len)
	_, _ = rand.Read(addr) // never fails
	addr[0] = 0xfd         // an address, whatever reads it
	key := addr.String()
	e.tickets.mu.Lock()
	defer e.tickets.mu.Unlock()
	if e.tickets.nets == nil {
		e.tickets.nets = map[string]Network{}
	}
	e.tickets.nets[key] = n
	return networkHost + "=" + key, func() {
		e.tickets.mu.Lock()
		defer e.tickets.mu.Unlock()
		delete(e.tickets.nets, key)
	}
}

// redeem returns the network that a ticket stands for.
func (t *tickets) redeem(addr net.IP) (Network, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.nets[addr.String()]; ok {
		return n, nil
	}
	return Network{}, errs.New(errs.Denied, "no step can have a host %s", networkHost)
}

// network decides which network a step is on.
func (t *tickets) network(m executor.Meta) (n Network, err error) {
	n.Mode = "bridge"
	for _, h := range m.ExtraHosts {
		if h.Host != networkHost {
			continue
		}
		if n, err = t.redeem(h.IP); err != nil {
			return n, err
		}
	}
	switch m.NetMode {
	case pb.NetMode_HOST:
		return Network{Mode: "host"}, nil
	case pb.NetMode_NONE:
		return Network{Mode: "none"}, nil
	}
	return n, nil
}
