package network

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	h, err := n.Begin(ctx, r)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Finish(ctx)
}

// Half is an attach half done: everything is decided and the namespace exists,
// but nothing is in it yet. So a process can be prepared in the namespace while
// the links are made.
type Half struct {
	Sandbox Sandbox // as decided; never changed
	n       *Networks
	e       *ledger.Entry
	r       AttachRequest
	ns      *kernel.Namespace // nil if the sandbox has none of its own
}

// Begin does the first half of Attach. Whoever gets a Half must Close it, and
// Detach the container if Finish does not succeed.
func (n *Networks) Begin(ctx context.Context, r AttachRequest) (*Half, error) {
	h := &Half{n: n}
	if err := h.begin(ctx, r); err != nil {
		return nil, networking(err)
	}
	return h, nil
}

func (h *Half) begin(ctx context.Context, r AttachRequest) error {
	n := h.n
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.detach(ctx, r.ID); err != nil {
		return err
	}
	if r.Mode == "" || r.Mode == "default" {
		r.Mode = ledger.Bridge
		if n.opts.Bridge == "none" {
			r.Mode = ledger.None
		}
	}
	// Raised first: only then is it certain which subnet a network has.
	if err := n.stage.raiseFor(ctx, r); err != nil {
		return err
	}
	if r.Given, err = take(ctx, n, wishes(r)); err == nil {
		h.e, err = n.book.Decide(r)
	}
	if err != nil {
		drop(context.WithoutCancel(ctx), n, r.Given)
		return err
	}
	h.r = r
	h.Sandbox = h.e.Sandbox
	if !h.e.HasNamespace() {
		return nil
	}
	var inside []func() error
	if n.names.Wanted(h.e) {
		inside = append(inside, func() error { return n.names.Listen(h.e) })
	}
	if h.ns, err = kernel.CreateNamespace(h.e.Path, r.Namespace, inside...); err != nil {
		return errors.Join(err, n.unmake(context.WithoutCancel(ctx), h.e))
	}
	return nil
}

// Finish makes the endpoints and returns the sandbox as made. If it fails nothing
// is left of the sandbox. Others may read the Half meanwhile.
func (h *Half) Finish(ctx context.Context) (*Sandbox, error) {
	e, err := h.finish(ctx)
	if err != nil {
		return nil, networking(err)
	}
	h.n.tellAll(wire.Event{Action: "connect"}, e.Endpoints, e.ID)
	return &e.Sandbox, nil
}

func (h *Half) finish(ctx context.Context) (*ledger.Entry, error) {
	unlock, err := h.n.making.Lock(ctx, h.e.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if h.n.book.Get(h.e.ID) != h.e {
		return nil, errs.New(errs.Conflict, "the network sandbox of container %s has been taken away", h.e.ID)
	}
	if h.ns != nil {
		if err := h.n.stage.fill(ctx, h.ns, h.e, h.r); err != nil {
			return nil, errors.Join(err, h.n.unmake(context.WithoutCancel(ctx), h.n.book.Get(h.e.ID)))
		}
	}
	e := h.n.book.Complete(h.e.ID)
	return e, h.n.names.Sync(ctx, h.e.ID)
}

// Keep are the files that must outlive this process: whoever supervises the
// container is to hold them. They stay ours.
func (h *Half) Keep() []*os.File { return h.n.names.Files(h.e.ID) }

// Close gives back the way into the namespace. The sandbox stays.
func (h *Half) Close() { h.ns.Close() }

// networking says of an error what it hindered.
func networking(err error) error {
	return fmt.Errorf("failed to set up container networking: %w", err)
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
	n.names.Leave(container)
	if err := n.stage.leave(ctx, e); err != nil {
		unlock()
		return fmt.Errorf("remove networking of container %s: %w", container, err)
	}
	n.book.Retire(container)
	// Whoever attaches the same container anew waits for the lock.
	n.reaping.Go(func() {
		defer unlock()
		if n.stage.reap(ctx, e) == nil {
			returnAll(ctx, n.stage, e.Links)
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
	n.names.Leave(e.ID)
	if err := errors.Join(n.stage.leave(ctx, e), n.stage.reap(ctx, e)); err != nil {
		return err
	}
	returnAll(ctx, n.stage, e.Links)
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
