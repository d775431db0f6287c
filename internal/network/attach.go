package network

import (
	"context"
	"errors"
	"fmt"

	"gantry/internal/errs"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

// Attach makes the sandbox of a container: namespace, endpoints, addresses,
// published ports. What an earlier, interrupted attach or a missing detach left
// under the same ID is removed first. If it fails nothing is left.
//
// Errors carry Docker's texts: an unknown network is errs.NotFound, a taken host
// port or an exhausted pool fail with what the client knows.
func (n *Networks) Attach(ctx context.Context, r AttachRequest) (*Sandbox, error) {
	e, err := n.attach(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("failed to set up container networking: %w", err)
	}
	n.tellAll(wire.Event{Action: "connect"}, e.Endpoints, e.ID)
	s := e.Sandbox
	return &s, nil
}

func (n *Networks) attach(ctx context.Context, r AttachRequest) (*ledger.Entry, error) {
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.detach(ctx, r.ID); err != nil {
		return nil, err
	}
	if r.Mode == "" || r.Mode == "default" {
		r.Mode = ledger.Bridge
		if n.opts.Bridge == "none" {
			r.Mode = ledger.None
		}
	}
	// Raised first: only then is it certain which subnet a network has.
	if err := n.stage.raiseFor(ctx, r); err != nil {
		return nil, err
	}
	e, err := n.book.Decide(r)
	if err != nil {
		return nil, err
	}
	if err := n.stage.make(ctx, e, r.Sysctls); err != nil {
		return nil, errors.Join(err, n.unmake(context.WithoutCancel(ctx), e))
	}
	return n.book.Complete(e.ID), nil
}

// Detach takes the sandbox of a container away, also a half-made one. When it
// returns, nothing leads to the container any more and its host ports are free;
// the kernel may still be busy removing its links, and until it has done so the
// addresses are not given to others. One that does not exist is no error.
func (n *Networks) Detach(ctx context.Context, container string) error {
	if e := n.book.Get(container); e == nil || e.Retired {
		return nil
	}
	unlock, err := n.making.Lock(ctx, container)
	if err != nil {
		return err
	}
	e := n.book.Get(container)
	if e == nil || e.Retired {
		unlock()
		return nil
	}
	ctx = context.WithoutCancel(ctx) // half a removal helps nobody
	if err := n.stage.leave(ctx, e); err != nil {
		unlock()
		return fmt.Errorf("remove networking of container %s: %w", container, err)
	}
	n.book.Retire(container)
	// Whoever attaches the same container anew waits for the lock.
	n.reaping.Go(func() {
		defer unlock()
		if n.stage.reap(ctx, e) == nil {
			_ = n.book.Strike(container)
		} // else it stays on the books, for Reconcile
	})
	if e.Complete {
		n.tellAll(wire.Event{Action: "disconnect"}, e.Endpoints, container)
	}
	return nil
}

// Settle returns when nothing of the sandboxes that were detached before is
// left.
func (n *Networks) Settle() { n.reaping.Wait() }

// detach is Detach to the end, with the container's lock held.
func (n *Networks) detach(ctx context.Context, container string) error {
	e := n.book.Get(container)
	if e == nil {
		return nil
	}
	if err := n.unmake(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("remove networking of container %s: %w", container, err)
	}
	if e.Complete {
		n.tellAll(wire.Event{Action: "disconnect"}, e.Endpoints, container)
	}
	return nil
}

// unmake takes everything of a sandbox out of the kernel, then off the books.
// If part of it fails the record stays, for the next one to try again.
func (n *Networks) unmake(ctx context.Context, e *ledger.Entry) error {
	if err := errors.Join(n.stage.leave(ctx, e), n.stage.reap(ctx, e)); err != nil {
		return err
	}
	return n.book.Strike(e.ID)
}

// Sandbox returns the sandbox of a container, also after a restart of the
// daemon, or errs.NotFound.
func (n *Networks) Sandbox(_ context.Context, container string) (*Sandbox, error) {
	e := n.book.Get(container)
	if e == nil || !e.Complete {
		return nil, errs.New(errs.NotFound, "container %s has no network sandbox", container)
	}
	s := e.Sandbox
	return &s, nil
}

// Connect adds an endpoint on the network ref to the sandbox of a running
// container and returns it.
func (n *Networks) Connect(ctx context.Context, ref, container string, settings *wire.EndpointSettings) (*Endpoint, error) {
	unlock, err := n.making.Lock(ctx, container)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.stage.raiseFor(ctx, AttachRequest{Mode: ref}); err != nil {
		return nil, err
	}
	e, l, err := n.book.Add(container, ref, settings)
	if err != nil {
		return nil, err
	}
	ns, err := kernel.OpenNamespace(e.Path)
	if err == nil {
		err = n.stage.join(ctx, ns, l)
		ns.Close()
	}
	if err != nil {
		return nil, errors.Join(err, n.stage.quit(context.WithoutCancel(ctx), l), n.book.Subtract(container, l.Network))
	}
	ep := e.Endpoints[len(e.Endpoints)-1]
	n.tellAll(wire.Event{Action: "connect"}, []Endpoint{ep}, container)
	return &ep, nil
}

// Disconnect removes the endpoint of a running container on the network ref.
// The texts of its errors are those of Docker for a container called name.
func (n *Networks) Disconnect(ctx context.Context, ref, container string) error {
	w, err := n.book.Find(ref)
	if err != nil {
		return err
	}
	if w.Name == ledger.Host {
		return errs.New(errs.Invalid, "cannot disconnect container from host network - container was created in host network mode")
	}
	unlock, err := n.making.Lock(ctx, container)
	if err != nil {
		return err
	}
	defer unlock()
	if e := n.book.Get(container); e != nil {
		for i, l := range e.Links {
			if l.Network != w.ID {
				continue
			}
			if err := n.stage.quit(context.WithoutCancel(ctx), l); err != nil {
				return err
			}
			if err := n.book.Subtract(container, w.ID); err != nil {
				return err
			}
			n.tellAll(wire.Event{Action: "disconnect"}, e.Endpoints[i:i+1], container)
			return nil
		}
	}
	return fmt.Errorf("container %s is not connected to network %s", container, ref) // 500, as recorded
}
