package network

import (
	"errors"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

// shape bounds the traffic of endpoints of one sandbox, each by r.
func (s *stage) shape(ns *kernel.Namespace, links []driver.Endpoint, r wire.NetRate) error {
	for _, l := range links {
		err := s.host.Shape(ns, s.shaper(l), kernel.Rate{In: r.In, Out: r.Out})
		switch {
		case errors.Is(err, unix.ENODEV):
			return errs.New(errs.Unsupported, "this network's driver can not bound what a container receives: %w", err)
		case errors.Is(err, unix.ENOENT):
			return errs.New(errs.Unsupported, "this kernel has no token bucket (sch_tbf): %w", err)
		case err != nil:
			return err
		}
	}
	return nil
}

func (s *stage) shaper(l driver.Endpoint) kernel.Shaper {
	return kernel.Shaper{Host: l.HostLink, Inside: l.Interface, Queue: ledger.QueueOf(l.HostLink), Owner: s.mark}
}

// rate makes the bounds of a running container's traffic those of r.
func rate(n *Networks, e *ledger.Entry, r wire.NetRate) error {
	if e.Rate == r {
		return nil
	}
	if len(e.Links) > 0 {
		ns, err := kernel.OpenNamespace(e.Path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := n.stage.shape(ns, e.Links, r); err != nil {
			return errors.Join(err, n.stage.shape(ns, e.Links, e.Rate))
		}
	}
	return ledger.SetRate(n.book, e.ID, r)
}
