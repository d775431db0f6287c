package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"gantry/internal/network/bridge"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/network/nat"
)

// Kinds of resource.
const (
	KindLink      = "link"
	KindNamespace = "netns"
	KindPort      = "nft-element"
	KindTable     = "nft-table"
	KindLease     = "ip-lease"
)

// Resource is one thing that exists, or should, on behalf of an owner.
type Resource struct {
	Kind  string
	Name  string
	Owner string // container ID, network name, or as much of it as the name tells
}

// Reconcile removes the sandboxes of all containers that are not alive, and
// what stands in the kernel under our names without any record. Call it after
// Open, before anything is attached.
func (n *Networks) Reconcile(ctx context.Context, alive []string) error {
	keep := map[string]bool{}
	for _, a := range alive {
		keep[a] = true
	}
	var all []error
	for _, e := range n.book.Entries() {
		if keep[e.ID] {
			continue
		}
		unlock, err := n.making.Lock(ctx, e.ID)
		if err != nil {
			return err
		}
		all = append(all, n.detach(ctx, e.ID))
		unlock()
	}
	strays, err := n.Strays(ctx)
	all = append(all, err)
	for _, r := range strays {
		all = append(all, n.RemoveStray(ctx, r))
	}
	return errors.Join(all...)
}

// Owned returns what the books say should exist. What was detached and is only
// waiting for the kernel is left out.
func (n *Networks) Owned(context.Context) ([]Resource, error) {
	return owned(n, func(e *ledger.Entry) bool { return !e.Retired }), nil
}

func owned(n *Networks, counts func(*ledger.Entry) bool) []Resource {
	var out []Resource
	for _, e := range n.book.Entries() {
		if !counts(e) {
			continue
		}
		if e.HasNamespace() {
			out = append(out, Resource{KindNamespace, e.Path, e.ID})
		}
		for _, l := range e.Links {
			if l.HostLink != "" {
				out = append(out, Resource{KindLink, l.HostLink, e.ID})
			}
			for _, a := range l.Addresses() {
				out = append(out, Resource{KindLease, a.Addr().String(), e.ID})
			}
			for _, p := range bridge.Ruled(n.stage.bridge, l) {
				out = append(out, Resource{KindPort, p.String(), e.ID})
			}
		}
	}
	up := false
	for _, w := range n.book.Networks() {
		if n.stage.up.has(w.ID) {
			up = true
			if w.Link == "" {
				continue // another program's affair
			}
			out = append(out, Resource{KindLink, w.Link, w.Name})
		}
	}
	if up {
		out = append(out, Resource{KindTable, n.opts.table(), ""})
	}
	return out
}

// Existing returns what is there under our names: links, namespaces, the table
// and its elements, and leases.
func (n *Networks) Existing(context.Context) ([]Resource, error) {
	out, err := n.stage.links()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(n.book.NamespaceDir())
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		out = append(out, Resource{KindNamespace, n.book.NamespaceDir() + "/" + f.Name(), f.Name()})
	}
	if published, err := n.stage.bridge.Published(); err == nil {
		out = append(out, Resource{KindTable, n.opts.table(), ""})
		for _, p := range published {
			out = append(out, Resource{KindPort, p.String(), p.Owner})
		}
	}
	for a, owner := range n.book.Leases() {
		out = append(out, Resource{KindLease, a.String(), owner})
	}
	return out, nil
}

// Strays returns what exists without an owner on the books. The bridge of an
// idle network counts as owned: it stays until Close.
func (n *Networks) Strays(ctx context.Context) ([]Resource, error) {
	all := func(*ledger.Entry) bool { return true }
	// What comes is on the books before it exists, what goes is there no more
	// when it is struck off: so look at the books before and after.
	books := owned(n, all)
	there, err := n.Existing(ctx)
	if err != nil {
		return nil, err
	}
	have := map[[2]string]bool{}
	for _, r := range append(books, owned(n, all)...) {
		have[[2]string{r.Kind, r.Name}] = true
	}
	bridges := n.stage.bridges()
	var out []Resource
	for _, r := range there {
		if _, isBridge := bridges[r.Name]; r.Kind == KindTable || (r.Kind == KindLink && isBridge) || have[[2]string{r.Kind, r.Name}] {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// RemoveStray removes what Strays has found, unless its owner has come onto the
// books since.
func (n *Networks) RemoveStray(_ context.Context, r Resource) error {
	if n.book.Get(r.Owner) != nil {
		return nil
	}
	switch r.Kind {
	case KindLink:
		return n.stage.host.RemoveLink(r.Name)
	case KindNamespace:
		return kernel.RemoveNamespace(r.Name)
	case KindPort:
		return n.stage.bridge.Reassert()
	}
	return nil
}

// Warnings returns, in sentences, what on this host keeps containers from
// being reached although our own rules would let them.
func (n *Networks) Warnings(context.Context) ([]string, error) {
	var out []string
	if v, err := kernel.Sysctl(ipForward); err == nil && v == "0" && n.opts.NoIPForward {
		out = append(out, "IPv4 forwarding is disabled: containers reach nothing beyond this host")
	}
	if n.nameless != nil {
		out = append(out, fmt.Sprintf("containers that were found running are not told names: %v", n.nameless))
	}
	chains, err := n.stage.bridge.DropsForwarding()
	for _, c := range chains {
		out = append(out, fmt.Sprintf("packet filter chain %s drops forwarded packets by default: containers are not reachable from elsewhere, nor reach it, unless it accepts their bridges", c))
	}
	for _, program := range nat.LegacyDropsForwarding() {
		out = append(out, fmt.Sprintf("%s drops forwarded packets by default (chain FORWARD): containers are not reachable from elsewhere, nor reach it, unless it accepts their bridges: gantry doctor --fix, or %[1]s -P FORWARD ACCEPT", program))
	}
	return out, err
}
