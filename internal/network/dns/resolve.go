package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// resolve answers a question from the names of the view's networks. If they
// don't know, known is false and it is for others to answer. Pure but for the
// order of several addresses.
func (v *View) resolve(q *query) (a answers, known bool) {
	if q.class != classIN && q.class != classANY {
		return a, false
	}
	if q.qtype == typePTR {
		if addr, ok := parseReverse(q.name); ok {
			for _, s := range v.Scopes {
				if name, ok := s.Zone.of(addr); ok {
					return answers{ptr: name}, true
				}
			}
		}
		return a, false
	}
	addrs := v.lookup(q.name)
	if addrs == nil {
		return a, false
	}
	// Whatever else is asked about the name: there is none of it, and nobody
	// elsewhere would know better.
	addrs = slices.DeleteFunc(addrs, func(x netip.Addr) bool {
		return q.qtype != typeANY && (q.qtype != typeA || !x.Is4()) && (q.qtype != typeAAAA || x.Is4())
	})
	if len(addrs) > 1 {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	return answers{addrs: addrs}, true
}

// lookup finds a name in the networks: as it is in all of them, then what is
// before a network's name in that one. Names and networks' names may have dots.
func (v *View) lookup(name string) []netip.Addr {
	if name == "" {
		return nil
	}
	var out []netip.Addr
	for _, s := range v.Scopes {
		if out = s.lookup(out, name); len(out) > 0 {
			return out
		}
	}
	if !strings.Contains(name, ".") {
		return nil
	}
	for _, s := range v.Scopes {
		if host, ok := strings.CutSuffix(name, s.Zone.name); ok && len(host) > 1 && host[len(host)-1] == '.' {
			if out = s.lookup(out, host[:len(host)-1]); len(out) > 0 {
				return out
			}
		}
	}
	return nil
}

func (s Scope) lookup(dst []netip.Addr, name string) []netip.Addr {
	if to, ok := s.Links[name]; ok {
		if out := s.Zone.lookup(dst, to); len(out) > len(dst) {
			return out
		}
	}
	return s.Zone.lookup(dst, name)
}

// unknown is the answer to a question that nobody elsewhere is asked, if it is
// one of those.
func (v *View) unknown(q *query) (answers, bool) {
	single := !strings.Contains(q.name, ".") && (q.qtype == typeA || q.qtype == typeAAAA) && q.name != ""
	switch {
	case single && (v.Dotted || v.Upstreams == nil):
		return answers{rcode: rcodeNoName}, true
	case v.Upstreams == nil:
		return answers{rcode: rcodeServer}, true
	}
	return answers{}, false
}
