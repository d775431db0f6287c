// Package ipam decides which address belongs to whom: pools of addresses within
// a subnet, and the choice of a subnet for a network that names none.
//
// It is called by package network, which writes the outcome down and puts it
// back with Claim after a restart. It knows nothing of the kernel, of files and
// of containers: owners are opaque strings.
package ipam

import (
	"math"
	"math/big"
	"net"
	"net/netip"

	"gantry/internal/errs"
)

// Config is what a pool hands out.
type Config struct {
	Subnet  netip.Prefix
	Range   netip.Prefix // part of Subnet to choose from; invalid means all of it
	Gateway netip.Addr   // never handed out; invalid means none
	Aux     []netip.Addr // likewise
}

// Reserved marks the addresses that belong to the network itself.
const Reserved = "network"

// A Pool is the addresses of one subnet. It is not safe for concurrent use: the
// caller's lock guards it together with the record of what was handed out.
type Pool struct {
	cfg  Config
	used map[netip.Addr]string // owner
	next netip.Addr            // no address below it is free
}

// New returns a pool with the network's own addresses taken: gateway, auxiliary
// ones and, with IPv4, the subnet's first and last address.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg, used: map[netip.Addr]string{}}
	if !cfg.Range.IsValid() {
		p.cfg.Range = cfg.Subnet
	}
	p.next = p.cfg.Range.Masked().Addr()
	if cfg.Subnet.Addr().Is4() && cfg.Subnet.Bits() < 31 {
		p.used[cfg.Subnet.Masked().Addr()] = Reserved
		p.used[Last(cfg.Subnet)] = Reserved
	}
	if cfg.Subnet.Addr().Is6() {
		p.used[cfg.Subnet.Masked().Addr()] = Reserved // the subnet-router anycast address, RFC 4291 2.6.1
	}
	for _, a := range append([]netip.Addr{cfg.Gateway}, cfg.Aux...) {
		if a.IsValid() {
			p.used[a] = Reserved
		}
	}
	return p
}

// Allocate returns the lowest free address of the range, now owner's, or
// errs.Denied if there is none left.
func (p *Pool) Allocate(owner string) (netip.Addr, error) {
	for a := p.next; a.IsValid() && p.cfg.Range.Contains(a); a = a.Next() {
		if _, taken := p.used[a]; !taken {
			p.used[a] = owner
			p.next = a.Next()
			return a, nil
		}
	}
	return netip.Addr{}, errs.New(errs.Denied, "no available addresses in %s", p.cfg.Range)
}

// Claim gives owner the address a. One that someone else has is errs.Denied, one
// outside the subnet errs.Invalid. To claim what one has is no error.
func (p *Pool) Claim(a netip.Addr, owner string) error {
	if !p.cfg.Subnet.Contains(a) {
		return errs.New(errs.Invalid, "invalid endpoint settings:\nno configured subnet contains IP address %s", a)
	}
	if has, taken := p.used[a]; taken && has != owner {
		return errs.New(errs.Denied, "Address already in use")
	}
	p.used[a] = owner
	return nil
}

// Release frees a if owner has it, and does nothing otherwise.
func (p *Pool) Release(a netip.Addr, owner string) {
	if has, taken := p.used[a]; !taken || has != owner {
		return
	}
	delete(p.used, a)
	if p.cfg.Range.Contains(a) && (!p.next.IsValid() || a.Less(p.next)) {
		p.next = a
	}
}

// Leases returns who has which address, the network's own left out.
func (p *Pool) Leases() map[netip.Addr]string {
	m := map[netip.Addr]string{}
	for a, o := range p.used {
		if o != Reserved {
			m[a] = o
		}
	}
	return m
}

// Usage returns how many addresses are taken and how many Allocate could still
// give, each at most math.MaxUint64.
func (p *Pool) Usage() (used, available uint64) {
	taken := 0
	for a := range p.used {
		if p.cfg.Range.Contains(a) {
			taken++
		}
	}
	host := p.cfg.Range.Addr().BitLen() - p.cfg.Range.Bits()
	free := new(big.Int).Lsh(big.NewInt(1), uint(host))
	free.Sub(free, big.NewInt(int64(taken)))
	if !free.IsUint64() {
		return uint64(len(p.used)), math.MaxUint64
	}
	return uint64(len(p.used)), free.Uint64()
}

// Last returns the highest address of p.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// First returns the address after the subnet's own, where its gateway lives
// unless the user says otherwise.
func First(p netip.Prefix) netip.Addr {
	if n := p.Masked().Addr().Next(); p.Contains(n) {
		return n
	}
	return p.Masked().Addr()
}

// MAC returns the hardware address that goes with an IPv4 address, 02:42 and
// its four bytes: nobody's neighbour table is wrong when an address is given
// to the next container.
func MAC(a netip.Addr) net.HardwareAddr {
	if a.Is6() {
		b := a.As16()
		return net.HardwareAddr{0x02, 0x42, b[12], b[13], b[14], b[15]}
	}
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}
