package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ports"
)

// unmake takes everything of a sandbox out of the kernel, then off the books.
// It is the one teardown: of a failed attach, of a detach and of a crash. If
// part of it fails the record stays, for the next one to try again.
func (n *Networks) unmake(ctx context.Context, s *sandbox) error {
	var all []error
	for _, l := range s.Links {
		all = append(all, n.leave(ctx, l))
	}
	if s.Mode == modeNone || s.Mode == modeLinks {
		all = append(all, kernel.RemoveNamespace(s.Path))
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	if err := os.Remove(n.sandboxFile(s.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(s)
	if n.sandboxes[s.ID] == s {
		delete(n.sandboxes, s.ID)
	}
	return nil
}

func (n *Networks) leave(ctx context.Context, l driver.Endpoint) error {
	n.mu.RLock()
	w := n.networks[l.Network]
	n.mu.RUnlock()
	if w == nil { // the network was removed by force: its driver knows the link by name
		return n.bridge.Leave(ctx, l)
	}
	return n.drivers[w.rec.Driver].Leave(ctx, l)
}

// forgetLocked gives a sandbox's addresses and host ports back.
func (n *Networks) forgetLocked(s *sandbox) {
	for _, l := range s.Links {
		n.dropLocked(l)
	}
	s.Links, s.Endpoints = nil, nil
}

func (n *Networks) dropLocked(l driver.Endpoint) {
	if w := n.networks[l.Network]; w != nil {
		w.users--
		if w.pool != nil {
			w.pool.Release(l.Addr.Addr(), l.Owner)
		}
	}
	for _, p := range l.Ports {
		n.ports.Release(ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort})
	}
}

// Sandbox returns the sandbox of a container, also after a restart of the
// daemon; false if it has none.
func (n *Networks) Sandbox(container string) (*Sandbox, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := n.sandboxes[container]
	if s == nil || !s.complete {
		return nil, false
	}
	out := s.Sandbox
	return &out, true
}

// Reconcile removes the sandboxes of all containers that are not alive, and
// what stands in the kernel under our names without any record.
func (n *Networks) Reconcile(ctx context.Context, alive []string) error {
	keep := map[string]bool{}
	for _, a := range alive {
		keep[a] = true
	}
	n.mu.RLock()
	var dead []string
	for owner := range n.sandboxes {
		if !keep[owner] {
			dead = append(dead, owner)
		}
	}
	n.mu.RUnlock()
	var all []error
	for _, owner := range dead {
		all = append(all, n.Detach(ctx, owner))
	}
	strays, err := n.Strays(ctx)
	all = append(all, err)
	for _, r := range strays {
		all = append(all, n.removeStray(r))
	}
	return errors.Join(all...)
}

// Kinds of resource.
const (
	KindLink      = "link"
	KindNamespace = "netns"
	KindPort      = "nft-element"
	KindTable     = "nft-table"
	KindLease     = "ip-lease"
	KindRecord    = "sandbox-record"
)

// Resource is one thing that exists, or should, on behalf of an owner.
type Resource struct {
	Kind  string
	Name  string
	Owner string // container ID, network name, or as much of it as the name tells
}

// Owned returns what the records say should exist.
func (n *Networks) Owned(context.Context) ([]Resource, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []Resource
	for _, s := range n.sandboxes {
		out = append(out, Resource{KindRecord, n.sandboxFile(s.ID), s.ID})
		if s.Mode == modeNone || s.Mode == modeLinks {
			out = append(out, Resource{KindNamespace, s.Path, s.ID})
		}
		for _, l := range s.Links {
			out = append(out, Resource{KindLink, l.HostLink, s.ID}, Resource{KindLease, l.Addr.Addr().String(), s.ID})
			for _, p := range l.Ports {
				out = append(out, Resource{KindPort, portName(p.Proto.String(), p.HostIP.String(), p.HostPort), s.ID})
			}
		}
	}
	up := false
	for _, w := range n.networks {
		if w.up {
			up = true
			out = append(out, Resource{KindLink, w.rec.Link, w.rec.Name})
		}
	}
	if up {
		out = append(out, Resource{KindTable, n.opts.table(), ""})
	}
	return out, nil
}

func portName(proto, ip string, port uint16) string { return fmt.Sprintf("%s:%d/%s", ip, port, proto) }

// Existing returns what is there under our names: links, namespaces, the table
// and its elements, leases and records.
func (n *Networks) Existing(context.Context) ([]Resource, error) {
	bridges := n.bridges()
	links, err := n.host.Links("")
	if err != nil {
		return nil, err
	}
	masters := map[int]bool{}
	var out []Resource
	for _, l := range links {
		if name, ok := bridges[l.Name]; ok && l.Kind == "bridge" {
			masters[l.Index] = true
			out = append(out, Resource{KindLink, l.Name, name})
		}
	}
	n.mu.RLock()
	known := map[string]bool{}
	for _, s := range n.sandboxes {
		for _, l := range s.Links {
			known[l.HostLink] = true
		}
	}
	n.mu.RUnlock()
	for _, l := range links {
		// A pair without a bridge could be another daemon's.
		if isVeth(l.Name) && l.Kind == "veth" && (masters[l.Master] || known[l.Name]) {
			out = append(out, Resource{KindLink, l.Name, l.Name[len(linkPrefix) : len(linkPrefix)+11]})
		}
	}
	for kind, dir := range map[string]string{KindNamespace: n.netnsDir(), KindRecord: n.sandboxDir()} {
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			owner := strings.TrimSuffix(f.Name(), ".json")
			if id.Valid(owner) || known[owner] || kind == KindNamespace {
				out = append(out, Resource{kind, dir + "/" + f.Name(), owner})
			}
		}
	}
	return n.existingRules(out)
}

func (n *Networks) existingRules(out []Resource) ([]Resource, error) {
	if published, err := n.rules.Published(); err == nil {
		out = append(out, Resource{KindTable, n.opts.table(), ""})
		for _, p := range published {
			out = append(out, Resource{KindPort, portName(p.Proto.String(), p.HostIP.String(), p.HostPort), p.Owner})
		}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, w := range n.networks {
		if w.pool == nil {
			continue
		}
		for a, owner := range w.pool.Leases() {
			out = append(out, Resource{KindLease, a.String(), owner})
		}
	}
	return out, nil
}

// bridges returns the links of this daemon's networks with the networks' names.
func (n *Networks) bridges() map[string]string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	m := map[string]string{}
	for _, w := range n.networks {
		if w.rec.Link != "" {
			m[w.rec.Link] = w.rec.Name
		}
	}
	return m
}

// Strays returns what exists without an owner on the books. A bridge of an idle
// network counts as owned: it stays until Close.
func (n *Networks) Strays(ctx context.Context) ([]Resource, error) {
	there, err := n.Existing(ctx)
	if err != nil {
		return nil, err
	}
	owned, err := n.Owned(ctx)
	if err != nil {
		return nil, err
	}
	have := map[[2]string]bool{}
	for _, r := range owned {
		have[[2]string{r.Kind, r.Name}] = true
	}
	bridges := n.bridges()
	var out []Resource
	for _, r := range there {
		if _, isBridge := bridges[r.Name]; r.Kind == KindTable || (r.Kind == KindLink && isBridge) || have[[2]string{r.Kind, r.Name}] {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

func (n *Networks) removeStray(r Resource) error {
	// Between the listing and now an attach may have begun: look again under
	// the owner's lock, where it is known.
	n.mu.RLock()
	s := n.sandboxes[r.Owner]
	n.mu.RUnlock()
	if s != nil {
		return nil
	}
	switch r.Kind {
	case KindLink:
		return n.host.RemoveLink(r.Name)
	case KindNamespace:
		return kernel.RemoveNamespace(r.Name)
	case KindRecord:
		return os.Remove(r.Name)
	case KindPort:
		return n.bridge.Reassert()
	}
	return nil
}

func ours(link string) bool {
	return isVeth(link) || isBridge(link) || strings.HasPrefix(link, "gantry")
}

func isVeth(link string) bool   { return hexAfter(link, linkPrefix, 12) }
func isBridge(link string) bool { return hexAfter(link, bridgePrefix, 12) }

func hexAfter(link, prefix string, n int) bool {
	rest, ok := strings.CutPrefix(link, prefix)
	return ok && len(rest) == n && id.ValidPrefix(rest[:11])
}
