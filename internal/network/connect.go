package network

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

// Members are the networks as containers that run join and leave them.
type Members struct{ *Networks }

// Connect adds an endpoint on the network ref to the sandbox of the running
// container that r describes, and returns the sandbox as it is then. r has the
// ports that the container publishes: they follow the default route. If it fails
// the sandbox is as before.
func (n Members) Connect(ctx context.Context, r AttachRequest, ref string, settings *wire.EndpointSettings) (*Sandbox, error) {
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.stage.raiseFor(ctx, AttachRequest{Mode: ref}); err != nil {
		return nil, err
	}
	if r.Given, err = take(ctx, n.Networks, map[string]*wire.EndpointSettings{ref: settings}); err != nil {
		drop(context.WithoutCancel(ctx), n.Networks, r.Given)
		return nil, err
	}
	c, err := n.book.Add(r, ref, settings)
	if err != nil {
		drop(context.WithoutCancel(ctx), n.Networks, r.Given)
		return nil, err
	}
	told := map[string]driver.Joined{}
	ns, err := kernel.OpenNamespace(c.Entry.Path)
	if err == nil {
		defer ns.Close()
		if err = n.stage.join(ctx, ns, c.Link, told); err == nil {
			err = n.stage.move(ctx, ns, slices.DeleteFunc(c.Moves, func(m ledger.Move) bool {
				_, own := told[m.To.Network] // its default route is the driver's to tell
				return own
			}))
			err = errors.Join(err, n.stage.learn(ctx, ns, r, told))
		}
		if err == nil && c.Entry.Rate != (wire.NetRate{}) {
			err = n.stage.shape(ns, []driver.Endpoint{c.Link}, c.Entry.Rate)
		}
		if err == nil {
			err = n.names.Sync(ctx, r.ID)
		}
	}
	if err != nil {
		_, back := n.part(context.WithoutCancel(ctx), r, n.book.Get(r.ID), c.Link.Network)
		return nil, errors.Join(err, back)
	}
	now := n.book.Get(r.ID)
	n.tellAll(wire.Event{Action: "connect"}, now.Endpoints[len(now.Endpoints)-1:], r.ID)
	s := now.Sandbox
	return &s, nil
}

// Disconnect removes the endpoint of a running container on the network ref, and
// returns the sandbox as it is then. The default route and the published ports
// go to the network that comes first now.
func (n Members) Disconnect(ctx context.Context, r AttachRequest, ref string) (*Sandbox, error) {
	w, err := n.book.Find(ref)
	if err != nil {
		return nil, err
	}
	if w.Name == ledger.Host {
		return nil, errs.New(errs.Invalid, "cannot disconnect container from host network - container was created in host network mode")
	}
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	e := n.book.Get(r.ID)
	if e != nil {
		for i, p := range e.Endpoints {
			if p.NetworkID != w.ID {
				continue
			}
			s, err := n.part(context.WithoutCancel(ctx), r, e, w.ID)
			if err == nil {
				n.tellAll(wire.Event{Action: "disconnect"}, e.Endpoints[i:i+1], r.ID)
			}
			return s, err
		}
	}
	return nil, fmt.Errorf("container %s is not connected to network %s", r.ID, ref) // 500, as recorded
}

// part takes an endpoint out of the kernel, then off the books, and moves what
// goes elsewhere. It can be done twice.
func (n Members) part(ctx context.Context, r AttachRequest, e *ledger.Entry, networkID string) (*Sandbox, error) {
	for _, l := range e.Links {
		if l.Network == networkID {
			if err := n.stage.quit(ctx, l); err != nil {
				return nil, err
			}
			returnAll(ctx, n.stage, []driver.Endpoint{l})
		}
	}
	c, err := n.book.Subtract(r, networkID)
	if err != nil {
		return nil, err
	}
	if err := n.names.Sync(ctx, r.ID); err != nil {
		return nil, err
	}
	if len(c.Moves) > 0 {
		ns, err := kernel.OpenNamespace(c.Entry.Path)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		if err := n.stage.move(ctx, ns, c.Moves); err != nil {
			return nil, err
		}
	}
	s := c.Entry.Sandbox
	return &s, nil
}

// Rename makes the networks of a container call it by another name. One without
// a sandbox is left alone.
func (n Members) Rename(ctx context.Context, container, name string) error {
	unlock, err := n.making.Lock(ctx, container)
	if err != nil {
		return err
	}
	defer unlock()
	err = ledger.Rename(n.book, container, name)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.names.Sync(ctx, container)
}

// Network returns what is decided about the network with this ID, name or
// unique prefix of an ID. An unknown one is errs.NotFound.
func (n Members) Network(ref string) (wire.Network, error) {
	w, err := n.book.Find(ref)
	return w.Network, err
}

// Stale removes the endpoint called name on the network ref, for a container
// that nobody knows any more. If there is none the error is errs.NotFound.
func (n Members) Stale(ctx context.Context, ref, name string) error {
	w, err := n.book.Find(ref)
	if err != nil {
		return err
	}
	for _, e := range n.book.Entries() {
		if e.Name != name && e.ID != name {
			continue
		}
		if _, err := n.Disconnect(ctx, AttachRequest{ID: e.ID, Name: e.Name}, w.ID); err == nil {
			return nil
		}
	}
	return errs.New(errs.NotFound, "endpoint %s not found", name)
}
