package ledger

import (
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/wire"
)

// Add decides one more endpoint of a sandbox that exists, and writes the record.
// The endpoint never brings the default route, unless the sandbox has none.
func (b *Book) Add(owner, ref string, settings *wire.EndpointSettings) (*Entry, driver.Endpoint, error) {
	if settings == nil {
		settings = &wire.EndpointSettings{}
	}
	b.mu.Lock()
	e, l, err := b.add(owner, ref, settings)
	b.mu.Unlock()
	if err != nil {
		return nil, l, err
	}
	return e, l, b.records.write(e)
}

func (b *state) add(owner, ref string, settings *wire.EndpointSettings) (*Entry, driver.Endpoint, error) {
	var none driver.Endpoint
	w, err := b.find(ref)
	if err != nil {
		return nil, none, err
	}
	old := b.entries[owner]
	switch {
	case w.rec.Name == Host:
		return nil, none, errs.New(errs.Invalid, "cannot connect container to host network - container must be created in host network mode")
	case old == nil || !old.Complete:
		return nil, none, errs.New(errs.Conflict, "container %s has no network namespace", owner)
	case old.Mode == ModeContainer || old.Mode == ModeHost:
		return nil, none, errs.New(errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case w.rec.Name == None || old.Mode == ModeNone:
		return nil, none, errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case slices.ContainsFunc(old.Links, func(l driver.Endpoint) bool { return l.Network == w.rec.ID }):
		return nil, none, errs.New(errs.Denied, "endpoint with name %s already exists in network %s", old.Name, w.rec.Name)
	}
	e := *old
	e.Endpoints, e.Links = slices.Clone(old.Endpoints), slices.Clone(old.Links)
	index, routed := 0, false
	for _, l := range old.Links {
		if n, err := strconv.Atoi(strings.TrimLeft(l.Interface, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")); err == nil && n >= index {
			index = n + 1
		}
		routed = routed || l.Gateway.IsValid()
	}
	if err := b.decideLink(&e, wish{w, settings}, index, !routed && !w.rec.Internal); err != nil {
		return nil, none, err
	}
	b.entries[owner] = &e
	return &e, e.Links[len(e.Links)-1], nil
}

// Subtract takes one endpoint of a sandbox off the books, after it has been
// removed from the kernel.
func (b *Book) Subtract(owner, networkID string) error {
	b.mu.Lock()
	old := b.entries[owner]
	if old == nil {
		b.mu.Unlock()
		return nil
	}
	e := *old
	keep := func(l driver.Endpoint) bool { return l.Network != networkID }
	var gone []driver.Endpoint
	e.Links = nil
	for _, l := range old.Links {
		if keep(l) {
			e.Links = append(e.Links, l)
		} else {
			gone = append(gone, l)
		}
	}
	e.Endpoints = slices.DeleteFunc(slices.Clone(old.Endpoints), func(p Endpoint) bool { return p.NetworkID == networkID })
	b.drop(gone)
	b.entries[owner] = &e
	b.mu.Unlock()
	return b.records.write(&e)
}
