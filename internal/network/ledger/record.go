package ledger

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
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
)

const defaultMTU = 1500

// Plan is the record as the driver sees it. Pure.
func (r *Record) Plan() driver.Network {
	p := driver.Network{
		ID: r.ID, Name: r.Name, Link: r.Link, Internal: r.Internal,
		Isolated: isFalse(r.Options[optICC]), NAT: !isFalse(r.Options[optMasq]),
	}
	if v, err := strconv.Atoi(r.Options[optMTU]); err == nil {
		p.MTU = v
	}
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is4() {
			p.Subnet, p.Gateway = c.Subnet, c.Gateway
			break
		}
	}
	return p
}

// Linked reports whether containers have a link of their own in the network.
func (r *Record) Linked() bool { return r.Driver != "host" && r.Driver != "null" }

func isFalse(s string) bool { b, err := strconv.ParseBool(s); return err == nil && !b }

// pool returns the addresses of the record's IPv4 subnet, or nil.
func (r *Record) pool() *ipam.Pool {
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is4() {
			return ipam.New(poolConfig(c))
		}
	}
	return nil
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
	MTU      int
	Isolated bool
	NoNAT    bool
	HostIP   netip.Addr
}

// record is the default network as the user wants it, with the identity and the
// chosen subnet that it has already, unless foreign routes have taken that.
// Pure but for the identity of a new one.
func (d Default) record(old *Record, pools []ipam.Source, taken []netip.Prefix) (Record, error) {
	r := newRecord(Bridge, "bridge")
	if old != nil {
		r.ID, r.Created = old.ID, old.Created
	}
	r.Link = d.Link
	mtu := d.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(!d.Isolated), optMasq: strconv.FormatBool(!d.NoNAT),
		optHostIP: d.HostIP.String(), optName: d.Link, optMTU: strconv.Itoa(mtu),
	}
	c := wire.IPAMConfig{Subnet: d.Subnet.Masked(), IPRange: d.Range}
	switch {
	case d.Subnet.IsValid():
		c.Gateway = d.Subnet.Addr()
		if d.Subnet == d.Subnet.Masked() {
			c.Gateway = ipam.First(d.Subnet)
		}
	case old != nil && old.Chosen && !ipam.Overlaps(old.Plan().Subnet, taken):
		r.Chosen, c = true, old.IPAM.Config[0]
	default:
		var err error
		if c.Subnet, err = ipam.Choose(pools, taken); err != nil {
			return r, err
		}
		r.Chosen, c.Gateway = true, ipam.First(c.Subnet)
	}
	r.IPAM.Config = []wire.IPAMConfig{c}
	return r, ipam.Check([]ipam.Config{poolConfig(c)})
}
