package network

import (
	"context"
	"errors"
	"fmt"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/ledger"
)

// Republish makes the published ports of a container that is attached, what it
// reaches by links and the bounds of its traffic those of r: what is published and stays keeps its host port and its connections, and no
// other container's are touched. It returns the sandbox as it is then, nil if
// the container has no endpoint of its own. If it fails the ports are as
// before. What a daemon that dies half-way has written down, Open makes true.
func (n *Networks) Republish(ctx context.Context, r AttachRequest) (*Sandbox, error) {
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	was := n.book.Get(r.ID)
	if was == nil || !was.Complete {
		return nil, errs.New(errs.NotFound, "container %s has no network sandbox", r.ID)
	}
	if err := rate(n, was, r.Rate); err != nil {
		return nil, err
	}
	if err := relink(ctx, n, r); err != nil {
		return nil, err
	}
	x, err := ledger.Reallocate(n.book, r)
	if err != nil {
		return nil, err
	}
	if x.To.Owner == "" {
		return nil, nil
	}
	p, ok := n.stage.driver(x.To).(driver.Publisher)
	if !ok {
		err = errs.New(errs.Unsupported, "the driver of this network can not change the published ports of a running container")
	} else {
		err = p.Republish(ctx, x.From, x.To)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("publish ports: %w", err), x.TakeBack())
	}
	x.Keep()
	s := x.Entry.Sandbox
	return &s, nil
}

// relink makes what a container reaches by links that of r.
func relink(ctx context.Context, n *Networks, r AttachRequest) error {
	changed, err := ledger.SetReaches(n.book, r)
	for _, l := range changed {
		if d, ok := n.stage.driver(l).(driver.Linker); ok {
			err = errors.Join(err, d.Relink(ctx, l))
		}
	}
	if err != nil {
		return fmt.Errorf("change links: %w", err)
	}
	return nil
}
