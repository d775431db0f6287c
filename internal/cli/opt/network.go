package opt

import (
	"encoding/csv"
	"net/netip"
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// Attachment is one --network.
type Attachment struct {
	Target       string
	Aliases      []string
	DriverOpts   map[string]string
	IPv4, IPv6   netip.Addr
	LinkLocalIPs []netip.Addr
	MAC          string
	GwPriority   int
	Links        []string // from --link; the long form has none
}

// Networks collects --network NAME or --network name=NAME,alias=…,ip=….
type Networks []Attachment

// String shows nothing: there is no default.
func (n *Networks) String() string { return "" }

// Type is the word in the usage text.
func (n *Networks) Type() string { return "network" }

// Set parses one network.
func (n *Networks) Set(v string) error {
	if !strings.Contains(v, "=") {
		*n = append(*n, Attachment{Target: v})
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return err
	}
	a := Attachment{}
	for _, f := range fields {
		key, val, ok := strings.Cut(f, "=")
		if key = strings.ToLower(key); key != "driver-opt" { // whose values may name things of the kernel
			val = strings.ToLower(val)
		}
		if !ok || key == "" {
			return errs.New(errs.Invalid, "invalid field %s", f)
		}
		if err := a.set(strings.TrimSpace(key), strings.TrimSpace(val)); err != nil {
			return err
		}
	}
	if a.Target == "" {
		return errs.New(errs.Invalid, "network name/id is not specified")
	}
	*n = append(*n, a)
	return nil
}

func (a *Attachment) set(key, val string) (err error) {
	switch key {
	case "name":
		a.Target = val
	case "alias":
		a.Aliases = append(a.Aliases, val)
	case "ip":
		a.IPv4, err = netip.ParseAddr(val)
	case "ip6":
		a.IPv6, err = netip.ParseAddr(val)
	case "mac-address":
		a.MAC = val
	case "link-local-ip":
		var ip netip.Addr
		if ip, err = netip.ParseAddr(val); err == nil {
			a.LinkLocalIPs = append(a.LinkLocalIPs, ip)
		}
	case "driver-opt":
		k, v, ok := strings.Cut(val, "=")
		if !ok || k == "" {
			return errs.New(errs.Invalid, "invalid key value pair format in driver options")
		}
		if a.DriverOpts == nil {
			a.DriverOpts = map[string]string{}
		}
		a.DriverOpts[strings.TrimSpace(k)] = strings.TrimSpace(v)
	case "gw-priority":
		if a.GwPriority, err = strconv.Atoi(val); err != nil {
			return errs.New(errs.Invalid, "invalid gw-priority (%s): invalid syntax", val)
		}
	default:
		return errs.New(errs.Invalid, "invalid field key %s", key)
	}
	return err
}
