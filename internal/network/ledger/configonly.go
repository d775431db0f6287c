package ledger

import (
	"maps"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Inherit completes a request for a network that takes its configuration from
// another's record. Errors carry Docker's texts.
func Inherit(b *Book, c wire.NetworkCreate) (wire.NetworkCreate, error) {
	if c.ConfigFrom == nil || c.ConfigFrom.Network == "" {
		c.ConfigFrom = nil
		return c, nil
	}
	if c.ConfigOnly {
		return c, errs.New(errs.Denied, "a configuration network cannot depend on another configuration network")
	}
	if c.EnableIPv6 != nil && *c.EnableIPv6 || len(c.Labels) > 0 || c.IPAM != nil && (len(c.IPAM.Config) > 0 || len(c.IPAM.Options) > 0 || c.IPAM.Driver != "" && c.IPAM.Driver != "default") {
		return c, errs.New(errs.Denied, "user specified configurations are not supported if the network depends on a configuration network")
	}
	if len(c.Options) > 0 {
		return c, errs.New(errs.Denied, "network driver options are not supported if the network depends on a configuration network")
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	from := b.named(c.ConfigFrom.Network)
	if from == nil || !from.rec.ConfigOnly {
		return c, errs.New(errs.NotFound, "configuration network %q does not exist", c.ConfigFrom.Network)
	}
	r := from.rec
	c.EnableIPv4, c.EnableIPv6 = &r.EnableIPv4, &r.EnableIPv6
	c.Options, c.Labels = maps.Clone(r.Options), maps.Clone(r.Labels)
	c.IPAM = &wire.IPAM{Driver: r.IPAM.Driver, Options: r.IPAM.Options, Config: slices.Clone(r.IPAM.Config)}
	return c, nil
}

// checkConfigOnly returns why a request can't be one for a mere configuration.
func checkConfigOnly(c wire.NetworkCreate) error {
	if c.Ingress || c.Internal || c.Attachable || c.Scope != "" {
		return errs.New(errs.Denied, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	}
	return nil
}

// dependent returns the name of a network that has its configuration from r, or "".
// The lock is held.
func dependent(b *state, r *Record) string {
	for _, w := range b.sorted() {
		if r.ConfigOnly && w.rec.ConfigFrom.Network == r.Name {
			return w.rec.Name
		}
	}
	return ""
}

func errConfigOnly(r *Record) error {
	return errs.New(errs.Denied, "cannot create endpoint on configuration-only network %s", r.Name)
}
