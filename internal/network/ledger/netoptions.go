package ledger

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
)

// The drivers of networks that users make.
const (
	driverBridge  = "bridge"
	driverMacvlan = "macvlan"
	driverIPvlan  = "ipvlan"
)

// Options of macvlan and ipvlan networks, by Docker's names.
const (
	optParent      = "parent"
	optMacvlanMode = "macvlan_mode"
	optIPvlanMode  = "ipvlan_mode"
	optIPvlanFlag  = "ipvlan_flag"
)

// checkOptions returns why a network's options can't be, or nil. Unknown ones
// are kept, as Docker does.
func checkOptions(r *Record) error {
	if v, ok := r.Options[optMTU]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errs.New(errs.Invalid, "failed to parse %s value: %s (%w)", optMTU, v, err)
		}
		if n < 0 || n > 65535 || n > 0 && n < 68 {
			return errs.New(errs.Invalid, "invalid MTU number: %d", n)
		}
	}
	if p := r.Options[optIfPrefix]; p != "" && !validLink(p+"0") {
		return errs.New(errs.Invalid, "invalid interface prefix %q", p)
	}
	switch r.Driver {
	case driverBridge:
		return checkBridge(r)
	case driverMacvlan:
		return oneOf(r, optMacvlanMode, "requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", "", "bridge", "private", "vepa", "passthru")
	case driverIPvlan:
		if err := oneOf(r, optIPvlanMode, "requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default", "", "l2", "l3", "l3s"); err != nil {
			return err
		}
		return oneOf(r, optIPvlanFlag, "requested ipvlan flag '%s' is not valid, 'bridge' flag is the ipvlan driver default", "", "bridge", "private", "vepa")
	}
	return nil
}

func oneOf(r *Record, opt, text string, values ...string) error {
	if v := r.Options[opt]; !slices.Contains(values, v) {
		return errs.New(errs.Invalid, text, v)
	}
	return nil
}

func checkBridge(r *Record) error {
	for _, opt := range []string{optICC, optMasq, optInhibit} {
		if v, ok := r.Options[opt]; ok {
			if _, err := strconv.ParseBool(v); err != nil {
				return errs.New(errs.Invalid, "failed to parse %s value: %s (%w)", opt, v, err)
			}
		}
	}
	for family, opt := range []string{optHostIP, optHostIP6} {
		v := r.Options[opt]
		if v == "" {
			continue
		}
		if a, err := netip.ParseAddr(v); err != nil || family == v4 && !a.Unmap().Is4() {
			return errs.New(errs.Invalid, "failed to parse %s value: %s (invalid IP address)", opt, v)
		}
	}
	for _, opt := range []string{optMode4, optMode6} {
		switch v := r.Options[opt]; driver.GatewayMode(v) {
		case "", driver.ModeNAT, driver.ModeUnprotected, driver.ModeRouted:
		case driver.ModeIsolated:
			if !r.Internal {
				return errs.New(errs.Invalid, "gateway mode 'isolated' can only be used for an internal network")
			}
		default:
			return errs.New(errs.Invalid, "unknown gateway mode %s", v)
		}
	}
	for _, l := range split(r.Options[optTrusted], ":") {
		if !validLink(l) {
			return errs.New(errs.Invalid, "invalid interface name %q in %s", l, optTrusted)
		}
	}
	return nil
}

// nameLink gives the record the name of its link: the bridge, or the parent of
// its containers' links.
func (r *Record) nameLink() error {
	if r.Remote() {
		return nil // the driver's affair
	}
	if r.Driver != driverBridge {
		r.Link = r.Options[optParent]
		if r.Link == "" {
			r.Internal = r.Internal || r.Driver == driverMacvlan || r.Driver == driverIPvlan
			r.Link = ParentPrefix + r.ID[:12]
			return nil
		}
	} else if r.Link = r.Options[optName]; r.Link == "" {
		r.Link = BridgePrefix + r.ID[:12]
	}
	if r.Link == "lo" && r.Driver != driverBridge {
		return errs.New(errs.Invalid, "loopback interface is not a valid %s parent link", r.Driver)
	}
	if !validLink(r.Link) {
		if r.Driver != driverBridge {
			return errs.New(errs.Invalid, "invalid parent interface name %q", r.Link)
		}
		return errs.New(errs.Invalid, "invalid bridge name %q", r.Link)
	}
	return nil
}

// kind is what is particular to the driver, as it wants it.
func (r *Record) kind() string {
	switch r.Driver {
	case driverMacvlan:
		return r.Options[optMacvlanMode]
	case driverIPvlan:
		return strings.TrimSuffix(r.Options[optIPvlanMode]+"/"+r.Options[optIPvlanFlag], "/")
	}
	return ""
}

// sharesMAC reports whether containers have the hardware address of the parent.
func (r *Record) sharesMAC() bool {
	return r.Driver == driverIPvlan || r.Driver == driverMacvlan && r.Options[optMacvlanMode] == "passthru"
}

// ownsGateway reports whether the first address of a subnet is the network's own
// gateway where the user names none. A LAN has its router where it has it.
func (r *Record) ownsGateway() bool { return r.Driver != driverMacvlan && r.Driver != driverIPvlan }

// admitParent checks the use of a parent interface against the other networks:
// one that hands its whole link to a container shares it with none. The lock is
// held.
func (b *state) admitParent(r *Record) error {
	for _, w := range b.networks {
		if r.Link == "" || w.rec.Link != r.Link || w.rec.Driver == driverBridge || !w.rec.Linked() {
			continue
		}
		if w.rec.Driver != r.Driver {
			return errs.New(errs.Denied, "network %s is already using parent interface %s with the driver %s", w.rec.ID, r.Link, w.rec.Driver)
		}
		if r.Driver != driverMacvlan {
			continue
		}
		if r.Options[optMacvlanMode] == "passthru" {
			return errs.New(errs.Denied, "cannot use mode passthru, macvlan network %s is already using parent interface %s", w.rec.ID, r.Link)
		}
		if w.rec.Options[optMacvlanMode] == "passthru" {
			return errs.New(errs.Denied, "macvlan network %s is already using parent interface %s in mode passthru", w.rec.ID, r.Link)
		}
	}
	return nil
}

// several reports whether a family has more than one subnet.
func (r *Record) several() bool {
	var n [2]int
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is6() {
			n[v6]++
		} else if c.Subnet.IsValid() {
			n[v4]++
		}
	}
	return n[v4] > 1 || n[v6] > 1
}
