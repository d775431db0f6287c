package network

import (
	"context"
	"maps"
	"net"
	"regexp"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// find returns the network with this ID, name or unique prefix of an ID, in
// this order. The lock is held.
func (n *Networks) find(ref string) (*network, error) {
	if w := n.networks[ref]; w != nil {
		return w, nil
	}
	if w := n.named(ref); w != nil {
		return w, nil
	}
	var hit *network
	if id.ValidPrefix(ref) {
		for _, w := range n.networks {
			if !strings.HasPrefix(w.rec.ID, ref) {
				continue
			}
			if hit != nil {
				return nil, errs.New(errs.Invalid, "network %s is ambiguous (2 matches found based on ID prefix)", ref)
			}
			hit = w
		}
	}
	if hit == nil {
		return nil, notFound(ref)
	}
	return hit, nil
}

// Inspect returns the network called ref, or with this ID or prefix of it, with
// its containers and address usage. An unknown one is errs.NotFound.
func (n *Networks) Inspect(_ context.Context, ref string) (wire.NetworkInspect, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	w, err := n.find(ref)
	if err != nil {
		return wire.NetworkInspect{}, err
	}
	return n.inspect(w), nil
}

func (n *Networks) inspect(w *network) wire.NetworkInspect {
	out := wire.NetworkInspect{Network: w.rec.Network, Containers: map[string]wire.EndpointResource{}, Status: &wire.NetworkStatus{}}
	out.Options, out.Labels = maps.Clone(w.rec.Options), maps.Clone(w.rec.Labels)
	for _, s := range n.sandboxes {
		for _, e := range s.Endpoints {
			if e.NetworkID != w.rec.ID || !s.complete {
				continue
			}
			mac, _ := net.ParseMAC(e.MAC)
			out.Containers[s.ID] = wire.EndpointResource{
				Name: s.Name, EndpointID: e.ID, MacAddress: []byte(mac), IPv4Address: e.IPv4, IPv6Address: e.IPv6,
			}
		}
	}
	if w.pool != nil {
		used, free := w.pool.Usage()
		out.Status.IPAM.Subnets = wire.SubnetStatuses{w.rec.plan().Subnet: {IPsInUse: used, DynamicIPsAvailable: free}}
	}
	return out
}

// List returns the networks that pass the filters, oldest first. Keys are
// driver, type, scope, id, name, label and dangling: values of one key are
// alternatives, except those of label; an unknown key is errs.Invalid. The
// entries have the containers in them, which the list of the API leaves out.
func (n *Networks) List(_ context.Context, filters map[string]map[string]bool) ([]wire.NetworkInspect, error) {
	if err := checkFilters(filters); err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := []wire.NetworkInspect{}
	for _, w := range n.sorted() {
		if matches(&w.rec, w.users == 0 && !predefined(w.rec.Name), filters) {
			out = append(out, n.inspect(w))
		}
	}
	return out, nil
}

func checkFilters(filters map[string]map[string]bool) error {
	for key, values := range filters {
		switch key {
		case "driver", "scope", "id", "name", "label":
		case "type":
			for v := range values {
				if v != "custom" && v != "builtin" {
					return errs.New(errs.Unknown, "invalid filter: 'type'='%s'", v) // 500, as recorded
				}
			}
		case "dangling":
			for v := range values {
				if v != "true" && v != "1" && v != "false" && v != "0" {
					return errs.New(errs.Invalid, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
				}
			}
		default:
			return errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// matches reports whether a network passes filters. Pure.
func matches(r *record, dangling bool, filters map[string]map[string]bool) bool {
	for key, values := range filters {
		var ok bool
		switch key {
		case "driver":
			ok = values[r.Driver]
		case "scope":
			ok = values[r.Scope]
		case "type":
			ok = values["builtin"] && predefined(r.Name) || values["custom"] && !predefined(r.Name)
		case "id":
			ok = anyMatch(values, r.ID)
		case "name":
			ok = anyMatch(values, r.Name)
		case "label":
			ok = allLabels(values, r.Labels)
		case "dangling":
			for v := range values {
				want, _ := strconv.ParseBool(v)
				ok = ok || want == dangling
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// anyMatch takes each value as a regular expression, as Docker does; a bad one
// matches nothing.
func anyMatch(values map[string]bool, s string) bool {
	for v := range values {
		if re, err := regexp.Compile(v); err == nil && re.MatchString(s) {
			return true
		}
	}
	return false
}

func allLabels(values map[string]bool, labels map[string]string) bool {
	for v := range values {
		key, want, exact := strings.Cut(v, "=")
		have, ok := labels[key]
		if !ok || exact && have != want {
			return false
		}
	}
	return true
}

func predefined(name string) bool {
	return name == defaultNetwork || name == hostNetwork || name == noneNetwork
}
