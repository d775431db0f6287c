package ledger

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/wire"
)

// Options of one endpoint, by Docker's names.
const (
	optIfName  = "com.docker.network.endpoint.ifname"
	optSysctls = "com.docker.network.endpoint.sysctls"
)

// decideLink chooses names and addresses of one more endpoint of a sandbox. If it
// fails the addresses are free again.
func (b *state) decideLink(s *Entry, w wish) (err error) {
	rec := &w.net.rec
	e := Endpoint{NetworkID: rec.ID, NetworkName: rec.Name, ID: id.New(), Priority: w.settings.GwPriority}
	l := driver.Endpoint{ID: e.ID, Owner: s.ID, Network: rec.ID, Driver: rec.Driver}
	if rec.Remote() {
		l.Options = w.settings.DriverOpts
	}
	if rec.Driver == driverBridge {
		l.HostLink = freeHostLink(s)
	}
	if rec.Driver == driverIPvlan && len(w.settings.MacAddress) > 0 {
		return errs.New(errs.Invalid, "ipvlan interfaces do not support custom mac address assignment")
	}
	if err := nameInterface(s, rec, w.settings, &e, &l); err != nil {
		return err
	}
	if l.LinkLocal, err = linkLocal(w.settings); err != nil {
		return err
	}
	w.net.users++
	defer func() {
		if err != nil {
			b.drop([]driver.Endpoint{l})
		}
	}()
	for family, pool := range w.net.pools {
		if pool == nil {
			continue
		}
		c, _ := rec.subnet(family)
		addr, err := address(s.ID, w, family)
		if err != nil {
			return err
		}
		if p := netip.PrefixFrom(addr, c.Subnet.Bits()); family == v4 {
			l.Addr = p
		} else {
			l.Addr6 = p
		}
	}
	if w.given.IPv4.IsValid() || w.given.IPv6.IsValid() {
		l.Addr, l.Addr6 = w.given.IPv4, w.given.IPv6
	}
	e.IPv4, e.IPv6 = l.Addr, l.Addr6
	if len(w.given.MAC) > 0 {
		l.MAC, e.MAC = w.given.MAC, w.given.MAC.String()
	} else if !rec.sharesMAC() && !rec.Remote() || len(w.settings.MacAddress) > 0 {
		l.MAC = mac(w.settings, l, e.ID)
		e.MAC = net.HardwareAddr(l.MAC).String()
	}
	if !rec.Internal {
		e.Gateway4, e.Gateway6 = rec.router(v4), rec.router(v6)
	}
	s.Endpoints, s.Links = append(s.Endpoints, e), append(s.Links, l)
	s.Naming = s.Naming.on(rec.ID, w.settings)
	return nil
}

// linkLocal are the addresses that a user gives besides those of the network, as
// --link-local-ip does, with the length that such subnets have. Pure.
func linkLocal(set *wire.EndpointSettings) ([]netip.Prefix, error) {
	if set.IPAMConfig == nil {
		return nil, nil
	}
	var out []netip.Prefix
	for _, a := range set.IPAMConfig.LinkLocalIPs {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return nil, errs.New(errs.Invalid, "invalid endpoint settings:\ninvalid link-local IP address: %s", a)
		}
		bits := 16 // RFC 3927 2.1
		if a = a.Unmap(); a.Is6() {
			bits = 64 // RFC 4291 2.5.6
		}
		out = append(out, netip.PrefixFrom(a.WithZone(""), bits))
	}
	return out, nil
}

// router is the default gateway that containers of the network have: another
// machine's, if the configuration names one, or this host's address.
func (r *Record) router(family int) netip.Addr {
	c, ok := r.subnet(family)
	if !ok {
		return netip.Addr{}
	}
	if a, ok := c.AuxAddress[auxGateway[family]]; ok {
		return a
	}
	p := r.Plan()
	if r.Driver == driverIPvlan && r.Options[optIPvlanMode] != "" && r.Options[optIPvlanMode] != "l2" {
		if family == v4 { // the parent routes by addresses: no neighbour is asked
			return netip.IPv4Unspecified()
		}
		return netip.IPv6Unspecified()
	}
	if family == v4 {
		return p.Gateway
	}
	return p.Gateway6
}

// mac is the hardware address of an endpoint: the wished one, or one that follows
// from its address, or from its ID.
func mac(s *wire.EndpointSettings, l driver.Endpoint, endpointID string) net.HardwareAddr {
	switch {
	case len(s.MacAddress) > 0:
		return net.HardwareAddr(s.MacAddress)
	case l.Addr.IsValid():
		return ipam.MAC(l.Addr.Addr())
	case l.Addr6.IsValid():
		return ipam.MAC(l.Addr6.Addr())
	}
	sum := sha256.Sum256([]byte(endpointID))
	return net.HardwareAddr{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
}

// nameInterface gives the endpoint the name that its settings want, or the next
// free one, and reads the settings of the interface.
func nameInterface(s *Entry, rec *Record, set *wire.EndpointSettings, e *Endpoint, l *driver.Endpoint) error {
	name := set.DriverOpts[optIfName]
	switch {
	case name == "":
		name = freeInterface(s, ifPrefix(rec))
	case !validLink(name):
		return errs.New(errs.Invalid, "invalid interface name %q in %s", name, optIfName)
	case slices.ContainsFunc(s.Links, func(o driver.Endpoint) bool { return o.Interface == name }):
		return errs.New(errs.Conflict, "the container has an interface %q already", name)
	}
	e.Interface, l.Interface = name, name
	var err error
	l.Sysctls, err = interfaceSysctls(set.DriverOpts[optSysctls], name)
	return err
}

// interfaceSysctls reads "net.ipv4.conf.IFNAME.log_martians=1,…", in which IFNAME
// stands for the interface. The keys that it returns are paths below /proc/sys.
// Pure.
func interfaceSysctls(value, link string) (map[string]string, error) {
	if value == "" {
		return nil, nil
	}
	out := map[string]string{}
	for _, kv := range strings.Split(value, ",") {
		k, v, ok := strings.Cut(kv, "=")
		parts := strings.Split(k, ".")
		if !ok || len(parts) != 5 || parts[0] != "net" || parts[3] != "IFNAME" || slices.Contains(parts, "") || strings.ContainsAny(k, "/\x00") {
			return nil, errs.New(errs.Invalid, "invalid %s %q: want net.<protocol>.<group>.IFNAME.<name>=<value>", optSysctls, kv)
		}
		parts[3] = link
		out[strings.Join(parts, "/")] = v
	}
	return out, nil
}

// validLink reports whether the kernel takes a name for a link.
func validLink(s string) bool {
	return s != "" && len(s) <= 15 && !strings.ContainsAny(s, "/: \t\n\"%") && s != "." && s != ".." && s != "lo"
}

// freeInterface returns the first name after prefix that no interface of the
// sandbox has. Pure.
func freeInterface(s *Entry, prefix string) string {
	for n := 0; ; n++ {
		name := prefix + strconv.Itoa(n)
		if !slices.ContainsFunc(s.Links, func(l driver.Endpoint) bool { return l.Interface == name }) {
			return name
		}
	}
}

// freeHostLink returns the first name of a host's end that the sandbox does not
// have. Pure.
func freeHostLink(s *Entry) string {
	for n := 0; ; n++ {
		name := hostLink(s.ID, n)
		if !slices.ContainsFunc(s.Links, func(l driver.Endpoint) bool { return l.HostLink == name }) {
			return name
		}
	}
}

func ifPrefix(r *Record) string {
	if p := r.Options[optIfPrefix]; p != "" {
		return p
	}
	return "eth"
}

// address takes the wished address of a family, or any.
func address(owner string, w wish, family int) (netip.Addr, error) {
	pool, want, version := w.net.pools[family], netip.Addr{}, "IPv4"
	if family == v6 {
		version = "IPv6"
	}
	if c := w.settings.IPAMConfig; c != nil {
		want = c.IPv4Address
		if family == v6 {
			want = c.IPv6Address
		}
	}
	if want.IsValid() {
		if w.net.rec.Name == Bridge {
			return netip.Addr{}, errOwnAddress
		}
		if w.net.rec.Chosen && family == v4 {
			return netip.Addr{}, errs.New(errs.Invalid, "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets")
		}
		return want, pool.Claim(want, owner)
	}
	a, err := pool.Allocate(owner)
	if err != nil {
		return a, errs.New(errs.Denied, "no available %s addresses on this network's address pools: %s (%s)", version, w.net.rec.Name, w.net.rec.ID)
	}
	return a, nil
}

var errOwnAddress = errs.New(errs.Invalid, "invalid config for network bridge: invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only")
