package ledger

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Record is what is decided about a network.
type Record struct {
	wire.Network
	// Link is the bridge's name; empty for host and none.
	Link string
	// Chosen is true if the subnet was not the user's wish, so that another
	// one would do.
	Chosen bool
	// Foreign is true if the link was there before the network: it is used and
	// left.
	Foreign bool `json:",omitempty"`
	// PoolIDs are an address plugin's names for the subnets of IPAM.Config.
	PoolIDs []string `json:",omitempty"`
}

var bucket = store.NewBucket[Record]("networks")

// The names of the three networks that always exist.
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// Options of a network, by Docker's names.
const (
	optDefault  = "com.docker.network.bridge.default_bridge"
	optICC      = "com.docker.network.bridge.enable_icc"
	optMasq     = "com.docker.network.bridge.enable_ip_masquerade"
	optHostIP   = "com.docker.network.bridge.host_binding_ipv4"
	optName     = "com.docker.network.bridge.name"
	optMTU      = "com.docker.network.driver.mtu"
	optIfPrefix = "com.docker.network.container_iface_prefix"
	optTrusted  = "com.docker.network.bridge.trusted_host_interfaces"
	optInhibit  = "com.docker.network.bridge.inhibit_ipv4"
)

const defaultMTU = 1500

// Plan is the record as the driver sees it. Pure.
func (r *Record) Plan() driver.Network {
	p := driver.Network{
		ID: r.ID, Name: r.Name, Link: r.Link, Internal: r.Internal, Foreign: r.Foreign,
		Isolated: isFalse(r.Options[optICC]), NAT: !isFalse(r.Options[optMasq]),
		Mode4: driver.GatewayMode(r.Options[optMode4]), Mode6: driver.GatewayMode(r.Options[optMode6]),
		Trusted: split(r.Options[optTrusted], ":"), Kind: r.kind(),
		Parentless: (r.Driver == driverMacvlan || r.Driver == driverIPvlan) && r.Options[optParent] == "",
		Options:    r.Options, Bare: isTrue(r.Options[optInhibit]),
	}
	if v, err := strconv.Atoi(r.Options[optMTU]); err == nil {
		p.MTU = v
	}
	if c, ok := r.subnet(v4); ok {
		p.Subnet = c.Subnet
		if p.Mode4 != driver.ModeIsolated {
			p.Gateway = c.Gateway
		}
	}
	if c, ok := r.subnet(v6); ok {
		p.Subnet6 = c.Subnet
		if p.Mode6 != driver.ModeIsolated {
			p.Gateway6 = c.Gateway
		}
	}
	return p
}

// split is strings.Split that makes nothing of nothing.
func split(s, sep string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, sep)
}

// subnet returns the first subnet of a family that the network uses.
func (r *Record) subnet(family int) (wire.IPAMConfig, bool) {
	if family == v4 && !r.EnableIPv4 || family == v6 && !r.EnableIPv6 {
		return wire.IPAMConfig{}, false
	}
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is6() == (family == v6) {
			return c, true
		}
	}
	return wire.IPAMConfig{}, false
}

// Linked reports whether containers have a link of their own in the network.
func (r *Record) Linked() bool { return r.Driver != "host" && r.Driver != "null" }

func isTrue(s string) bool { b, err := strconv.ParseBool(s); return err == nil && b }

func isFalse(s string) bool { b, err := strconv.ParseBool(s); return err == nil && !b }

// pools returns the addresses of the record's subnets.
func (r *Record) pools() (out [2]*ipam.Pool) {
	for family := range out {
		if c, ok := r.subnet(family); ok && r.IPAM.Driver != "null" && !r.RemoteIPAM() && !r.ConfigOnly {
			out[family] = ipam.New(poolConfig(c))
		}
	}
	return out
}

func poolConfig(c wire.IPAMConfig) ipam.Config {
	p := ipam.Config{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway}
	for _, a := range c.AuxAddress {
		p.Aux = append(p.Aux, a)
	}
	return p
}

// InstanceName returns base, or for a named instance a name of at most 15
// bytes, the kernel's limit, that differs for each instance.
func InstanceName(base, instance string) string {
	if instance == "" {
		return base
	}
	if s := base + "-" + instance; len(s) <= 15 {
		return s
	}
	h := fnv.New32a()
	h.Write([]byte(instance))
	return fmt.Sprintf("%.6s-%08x", base, h.Sum32())
}

func newRecord(name, driver string) Record {
	return Record{Network: wire.Network{
		Name: name, ID: id.New(), Created: time.Now().UTC(), Scope: "local", Driver: driver, EnableIPv4: true,
		IPAM: wire.IPAM{Driver: "default"}, Options: map[string]string{}, Labels: map[string]string{},
	}}
}

func sameRecord(a, b Record) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// Default is how the user wants the default network.
type Default struct {
	Off      bool
	Link     string
	Subnet   netip.Prefix // with the gateway in its host bits, unless those are zero
	Range    netip.Prefix
	IPv6     bool
	Subnet6  netip.Prefix // as Subnet
	Range6   netip.Prefix
	Gateway  netip.Addr // of containers; by default the bridge's own address
	Gateway6 netip.Addr
	MTU      int
	Isolated bool
	NoNAT    bool
	HostIP   netip.Addr
	Options  map[string]string // besides those above
	// Foreign is true if the bridge is not ours.
	Foreign bool
}

// record is the default network as the user wants it, with the identity and the
// chosen subnet that it has already, unless foreign routes have taken that.
// Pure but for the identity of a new one.
func (d Default) record(old *Record, pools []ipam.Source, taken []netip.Prefix) (Record, error) {
	r := newRecord(Bridge, "bridge")
	if old != nil {
		r.ID, r.Created = old.ID, old.Created
	}
	r.Link, r.EnableIPv6 = d.Link, d.IPv6
	mtu := d.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(!d.Isolated), optMasq: strconv.FormatBool(!d.NoNAT),
		optHostIP: d.HostIP.String(), optName: d.Link, optMTU: strconv.Itoa(mtu),
	}
	for k, v := range d.Options {
		if _, own := r.Options[k]; !own {
			r.Options[k] = v
		}
	}
	r.Foreign = d.Foreign
	c, chosen, err := d.subnet(v4, old, pools, taken)
	if err != nil {
		return r, err
	}
	r.Chosen, r.IPAM.Config = chosen, []wire.IPAMConfig{c}
	if d.IPv6 {
		if c, _, err = d.subnet(v6, old, pools, append(taken, c.Subnet)); err != nil {
			return r, err
		}
		r.IPAM.Config = append(r.IPAM.Config, c)
	}
	var all []ipam.Config
	for _, c := range r.IPAM.Config {
		all = append(all, poolConfig(c))
	}
	return r, ipam.Check(all)
}

// subnet is the default network's of one family, and whether it was chosen here.
func (d Default) subnet(family int, old *Record, pools []ipam.Source, taken []netip.Prefix) (wire.IPAMConfig, bool, error) {
	want, within, gw, f := d.Subnet, d.Range, d.Gateway, ipam.IPv4
	if family == v6 {
		want, within, gw, f = d.Subnet6, d.Range6, d.Gateway6, ipam.IPv6
	}
	if !want.IsValid() && family == v6 && within.IsValid() {
		want = within // the range alone says where the subnet is
	}
	c := wire.IPAMConfig{Subnet: want.Masked(), IPRange: within}
	if family == v6 && within == want {
		c.IPRange = netip.Prefix{}
	}
	chosen := false
	if want.IsValid() {
		c.Gateway = want.Addr()
		if want == want.Masked() {
			c.Gateway = ipam.First(want)
		}
	} else if has, ok := chosenBefore(old, family); ok && !ipam.Overlaps(has.Subnet, taken) {
		c, chosen = has, true
	} else {
		var err error
		if c.Subnet, err = ipam.Choose(ipam.Of(f, pools), taken); err != nil {
			return c, false, err
		}
		c.Gateway, chosen = ipam.First(c.Subnet), true
	}
	if gw.IsValid() {
		c.AuxAddress = map[string]netip.Addr{auxGateway[family]: gw}
	} else {
		c.AuxAddress = nil
	}
	return c, chosen, nil
}

// auxGateway are the names under which the default network keeps the router of
// its containers, where that is not the bridge: Docker's.
var auxGateway = [2]string{"DefaultGatewayIPv4", "DefaultGatewayIPv6"}

func chosenBefore(old *Record, family int) (wire.IPAMConfig, bool) {
	if old == nil || !old.Chosen && family == v4 {
		return wire.IPAMConfig{}, false
	}
	return old.subnet(family)
}
