package ledger

import (
	"slices"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/wire"
)

// A Change is what becomes of a sandbox when an endpoint comes or goes.
type Change struct {
	Entry *Entry          // as it is now
	Link  driver.Endpoint // the one that comes or goes
	// Moves are the endpoints that change besides: default routes and published
	// ports go where the new order of networks wants them.
	Moves []Move
}

// A Move is an endpoint before and after.
type Move struct{ From, To driver.Endpoint }

// Add decides one more endpoint, on the network ref, of the sandbox of r, and
// writes the record. The default route and the published ports of r go to it if
// its network comes first.
func (b *Book) Add(r AttachRequest, ref string, settings *wire.EndpointSettings) (Change, error) {
	if settings == nil {
		settings = &wire.EndpointSettings{}
	}
	b.mu.Lock()
	c, err := b.add(r, ref, settings)
	b.mu.Unlock()
	if err != nil {
		return c, err
	}
	return c, b.records.write(c.Entry)
}

func (b *state) add(r AttachRequest, ref string, settings *wire.EndpointSettings) (Change, error) {
	w, err := b.find(ref)
	if err != nil {
		return Change{}, err
	}
	old := b.entries[r.ID]
	if err := addable(old, w, r.ID); err != nil {
		return Change{}, err
	}
	e := *old
	e.Mode = ModeLinks // one that was without any network has this one
	e.Endpoints, e.Links = slices.Clone(old.Endpoints), slices.Clone(old.Links)
	if err := b.decideLink(&e, wish{w, settings, r.Given[w.rec.ID]}); err != nil {
		return Change{}, err
	}
	moves, err := b.elect(&e, r)
	if err != nil {
		b.drop(e.Links[len(old.Links):])
		return Change{}, err
	}
	b.entries[r.ID] = &e
	c := Change{Entry: &e, Link: e.Links[len(e.Links)-1], Moves: moves}
	for _, m := range moves {
		if m.To.Network == w.rec.ID { // made bare, it gets the rest when the others have given it up
			c.Link = m.From
		}
	}
	return c, nil
}

// addable returns why a sandbox can't have an endpoint on a network.
func addable(old *Entry, w *network, owner string) error {
	switch {
	case w.rec.Name == Host:
		return errs.New(errs.Invalid, "cannot connect container to host network - container must be created in host network mode")
	case w.rec.ConfigOnly:
		return errConfigOnly(&w.rec)
	case old == nil || !old.Complete:
		return errs.New(errs.Conflict, "container %s has no network namespace", owner)
	case old.Mode == ModeContainer || old.Mode == ModeHost:
		return errs.New(errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case slices.ContainsFunc(old.Endpoints, func(l Endpoint) bool { return l.NetworkID == w.rec.ID }):
		return errs.New(errs.Denied, "endpoint with name %s already exists in network %s", old.Name, w.rec.Name)
	case w.rec.Name == None, old.Mode == ModeNone && len(old.Endpoints) > 0:
		return errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// Subtract takes one endpoint of a sandbox off the books, after it has been
// removed from the kernel. What it had of default routes and published ports
// goes to the network that comes first now.
func (b *Book) Subtract(r AttachRequest, networkID string) (Change, error) {
	b.mu.Lock()
	old := b.entries[r.ID]
	if old == nil {
		b.mu.Unlock()
		return Change{}, nil
	}
	e := *old
	c := Change{Entry: &e}
	var gone []driver.Endpoint
	e.Links = nil
	for _, l := range old.Links {
		if l.Network != networkID {
			e.Links = append(e.Links, l)
			continue
		}
		gone = append(gone, l)
		c.Link = l
	}
	e.Endpoints = slices.DeleteFunc(slices.Clone(old.Endpoints), func(p Endpoint) bool { return p.NetworkID == networkID })
	b.drop(gone)
	var err error
	c.Moves, err = b.elect(&e, r)
	b.entries[r.ID] = &e
	b.mu.Unlock()
	if err != nil {
		return c, err
	}
	return c, b.records.write(&e)
}
