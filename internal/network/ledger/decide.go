package ledger

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/wire"
)

// Decide chooses everything for a container's sandbox, holds it, and writes the
// record. The container must have none. Errors carry Docker's texts.
func (b *Book) Decide(r AttachRequest) (*Entry, error) {
	b.mu.Lock()
	s, err := b.decide(r, b.NamespaceDir())
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := b.records.write(s); err != nil {
		return nil, errors.Join(err, b.Strike(s.ID))
	}
	return s, nil
}

func (b *state) decide(r AttachRequest, namespaces string) (*Entry, error) {
	s := &Entry{Sandbox: Sandbox{ID: r.ID}, Name: r.Name, Rate: r.Rate, Naming: naming(r)}
	kind, _, _ := strings.Cut(r.Mode, ":")
	switch {
	case kind == "container":
		t := b.entries[r.SharedWith]
		if t == nil || !t.Complete {
			return nil, errs.New(errs.Conflict, "cannot join network namespace of a non running container: %s", r.SharedWith)
		}
		s.Mode, s.SharedWith, s.Path = ModeContainer, r.SharedWith, t.Path
	case r.Mode == Host, r.Mode == None && !elsewhere(r):
		s.Mode = r.Mode
		w := b.named(r.Mode)
		s.Endpoints = []Endpoint{{NetworkID: w.rec.ID, NetworkName: w.rec.Name, ID: id.New()}}
	default:
		s.Mode = ModeLinks
		if err := b.decideLinks(s, r); err != nil {
			b.drop(s.Links)
			return nil, err
		}
	}
	if s.HasNamespace() {
		s.Path = filepath.Join(namespaces, s.ID)
	}
	b.entries[s.ID] = s
	return s, nil
}

// elsewhere reports whether a container that was made without network has been
// put on one since. Pure.
func elsewhere(r AttachRequest) bool {
	_, stays := r.Endpoints[None]
	return len(r.Endpoints) > 0 && !stays
}

// wish is one network that a container asks for.
type wish struct {
	net      *network
	settings *wire.EndpointSettings
	given    Given
}

// wishes resolves the networks of a request: the mode's first, then the others
// by name. Without any it is the mode's; that one alone can be left, too. The
// lock is held.
func (b *state) wishes(r AttachRequest) ([]wish, error) {
	mode := r.Mode
	if mode == "" || mode == "default" {
		mode = Bridge
	}
	refs := slices.Sorted(maps.Keys(r.Endpoints))
	first, err := b.find(mode)
	switch {
	case len(refs) == 0 && err != nil:
		return nil, err
	case len(refs) == 0 && first.rec.ConfigOnly:
		return nil, errConfigOnly(&first.rec)
	case len(refs) == 0:
		return []wish{{first, &wire.EndpointSettings{}, r.Given[first.rec.ID]}}, nil
	}
	var out []wish
	for _, ref := range refs {
		set := r.Endpoints[ref]
		if set == nil {
			set = &wire.EndpointSettings{}
		}
		if ref == "default" {
			ref = Bridge
		}
		w, err := b.find(ref)
		if err != nil && set.NetworkID != "" { // renamed or made anew under its ID
			w, err = b.find(set.NetworkID)
		}
		switch {
		case err != nil:
			return nil, err
		case w.rec.ConfigOnly:
			return nil, errConfigOnly(&w.rec)
		case !w.rec.Linked():
			return nil, errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
		case w == first:
			out = slices.Insert(out, 0, wish{w, set, r.Given[w.rec.ID]})
		default:
			out = append(out, wish{w, set, r.Given[w.rec.ID]})
		}
	}
	return out, nil
}

func (b *state) decideLinks(s *Entry, r AttachRequest) error {
	ws, err := b.wishes(r)
	if err != nil {
		return err
	}
	for _, w := range ws {
		if err := b.decideLink(s, w); err != nil {
			return err
		}
	}
	for i := range s.Links {
		s.Links[i].Reaches = reaches(r)
	}
	_, err = b.elect(s, r)
	return err
}

// reaches are what the links of a request lead to. Pure.
func reaches(r AttachRequest) []driver.Reach {
	var out []driver.Reach
	for _, owner := range slices.Sorted(maps.Keys(r.Reaches)) {
		if ports, _ := publications(AttachRequest{Exposed: r.Reaches[owner]}); len(ports) > 0 {
			out = append(out, driver.Reach{Owner: owner, Ports: ports})
		}
	}
	return out
}

// LinkPrefix begins the host's end of every veth pair, BridgePrefix the bridges
// of networks that users made.
const (
	LinkPrefix   = "gt"
	BridgePrefix = "gb"
	// QueuePrefix begins the links in which waits what containers send.
	QueuePrefix = "gq"
	// ParentPrefix begins the parents of networks without one of the host's.
	ParentPrefix = "gd"
)

// IsPair reports whether a link is called like the host's end of a veth pair.
func IsPair(link string) bool { return hexAfter(link, LinkPrefix) }

// IsQueue reports whether a link is called like one in which packets wait.
func IsQueue(link string) bool { return hexAfter(link, QueuePrefix) }

// QueueOf returns what the link is called in which waits what comes from the
// host's end of a veth pair. Pure.
func QueueOf(hostLink string) string { return QueuePrefix + strings.TrimPrefix(hostLink, LinkPrefix) }

// PairOf is the reverse of QueueOf. Pure.
func PairOf(queue string) string { return LinkPrefix + strings.TrimPrefix(queue, QueuePrefix) }

// IsOurs reports whether a link is called like one that Gantry makes.
func IsOurs(link string) bool {
	return IsPair(link) || hexAfter(link, BridgePrefix) || IsQueue(link) || hexAfter(link, ParentPrefix) || strings.HasPrefix(link, "gantry")
}

func hexAfter(link, prefix string) bool {
	rest, ok := strings.CutPrefix(link, prefix)
	return ok && len(rest) == 12 && id.ValidPrefix(rest[:11])
}

// hostLink names the host's end of a container's n-th interface, in the 15
// bytes that a name has.
func hostLink(owner string, n int) string {
	return fmt.Sprintf("%s%.11s%s", LinkPrefix, owner, strconv.FormatInt(int64(n), 36))
}
