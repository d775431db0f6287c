package ipam

import (
	"crypto/sha256"
	"net/netip"

	"gantry/internal/errs"
)

// A Source is a block that subnets are cut from.
type Source struct {
	Base netip.Prefix
	Bits int // length of the subnets
}

// Defaults returns the blocks to cut networks from when the user configured
// none: those of RFC 1918 that few sites use. Docker starts at 172.17.0.0/16, so
// this starts above: both can run on one host without meeting early.
func Defaults() []Source {
	var s []Source
	for b := byte(20); b < 32; b++ {
		s = append(s, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b, 0, 0}), 16), 16})
	}
	for b := byte(17); b < 20; b++ {
		s = append(s, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b, 0, 0}), 16), 16})
	}
	return append(s, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 0, 0}), 16), 20})
}

// Family is a version of IP.
type Family int

// The two families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Of returns those of the sources that are of a family.
func Of(f Family, sources []Source) []Source {
	var out []Source
	for _, s := range sources {
		if s.Base.Addr().Is6() == (f == IPv6) {
			out = append(out, s)
		}
	}
	return out
}

// Local returns the block of unique local IPv6 addresses, a /48 (RFC 4193), of
// what seed identifies: the same for equal seeds, and else another one.
func Local(seed []byte) netip.Prefix {
	sum := sha256.Sum256(append([]byte("gantry unique local prefix "), seed...))
	a := [16]byte{0xfd}
	copy(a[1:6], sum[:5])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// Choose returns the first subnet of the sources that overlaps none of taken,
// or errs.Denied if there is none.
func Choose(sources []Source, taken []netip.Prefix) (netip.Prefix, error) {
	for _, s := range sources {
		for p := netip.PrefixFrom(s.Base.Masked().Addr(), s.Bits); p.IsValid() && s.Base.Contains(p.Addr()); {
			hit, ok := overlapping(p, taken)
			if !ok {
				return p, nil
			}
			// Continue after the larger of the two, so that a short taken
			// prefix does not cost a step for each subnet inside it.
			end := Last(p)
			if l := Last(hit); end.Less(l) {
				end = l
			}
			next := end.Next()
			if !next.IsValid() {
				break
			}
			p = netip.PrefixFrom(next, s.Bits).Masked()
			if p.Addr().Less(next) { // next was not on a boundary: round up
				up := Last(p).Next()
				if !up.IsValid() {
					break
				}
				p = netip.PrefixFrom(up, s.Bits)
			}
		}
	}
	return netip.Prefix{}, errs.New(errs.Denied, "all predefined address pools have been fully subnetted")
}

// Overlaps reports whether p shares an address with one of taken.
func Overlaps(p netip.Prefix, taken []netip.Prefix) bool {
	_, hit := overlapping(p, taken)
	return hit
}

func overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if t.Overlaps(p) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

// Check returns why a network's configuration can't be, in the words that
// clients know, or nil.
func Check(cfgs []Config) error {
	const prefix = "invalid network config:\n"
	for i, c := range cfgs {
		switch {
		case c.Subnet.IsValid() && c.Subnet.Masked() != c.Subnet:
			return errs.New(errs.Invalid, prefix+"invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		case c.Range.IsValid() && c.Range.Masked() != c.Range:
			return errs.New(errs.Invalid, prefix+"invalid ip-range %s: it should be %s", c.Range, c.Range.Masked())
		case c.Range.IsValid() && (!c.Subnet.Contains(c.Range.Addr()) || c.Range.Bits() < c.Subnet.Bits()):
			return errs.New(errs.Invalid, prefix+"invalid ip-range %s: parent subnet %s doesn't contain ip-range", c.Range, c.Subnet)
		case c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway):
			return errs.New(errs.Invalid, prefix+"invalid gateway %s: parent subnet %s doesn't contain this address", c.Gateway, c.Subnet)
		}
		for _, a := range c.Aux {
			if !c.Subnet.Contains(a) {
				return errs.New(errs.Invalid, prefix+"invalid auxiliary address %s: parent subnet %s doesn't contain this address", a, c.Subnet)
			}
		}
		for _, d := range cfgs[:i] {
			if c.Subnet.IsValid() && d.Subnet.IsValid() && d.Subnet.Overlaps(c.Subnet) {
				return ErrOverlap
			}
		}
	}
	return nil
}

// ErrOverlap says that a subnet is, in part, another network's.
var ErrOverlap = errs.New(errs.Denied, "invalid pool request: Pool overlaps with other one on this address space")
