// Package hostfiles renders what a container reads of names: /etc/hosts and
// /etc/resolv.conf. Its functions are pure: texts in, texts out.
//
// Package network calls it with what it has read of the host's own files and
// decided of addresses; the engine writes the bytes. Sources of the formats:
// hosts(5), resolv.conf(5).
package hostfiles

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gantry/internal/errs"
)

// Record is one line of /etc/hosts.
type Record struct {
	Addr  string
	Names []string
}

var standard = []Record{
	{"127.0.0.1", []string{"localhost"}},
	{"::1", []string{"localhost ip6-localhost ip6-loopback"}},
	{"fe00::", []string{"ip6-localnet"}},
	{"ff00::", []string{"ip6-mcastprefix"}},
	{"ff02::1", []string{"ip6-allnodes"}},
	{"ff02::2", []string{"ip6-allrouters"}},
}

// Hosts renders /etc/hosts of a container that has a network of its own.
func Hosts(extra, own []Record) []byte {
	var b bytes.Buffer
	write(&b, standard)
	write(&b, extra)
	write(&b, own)
	return b.Bytes()
}

// HostsOfHost renders /etc/hosts of a container in the host's network: the
// host's own file and the wished records.
func HostsOfHost(host []byte, extra []Record) []byte {
	b := bytes.NewBuffer(bytes.Clone(host))
	if len(host) > 0 && len(extra) > 0 && host[len(host)-1] != '\n' {
		b.WriteByte('\n')
	}
	write(b, extra)
	return b.Bytes()
}

func write(b *bytes.Buffer, rs []Record) {
	for _, r := range rs {
		fmt.Fprintf(b, "%s\t%s\n", r.Addr, strings.Join(r.Names, " "))
	}
}

// Extra reads the values of --add-host, "name:address" or "name=address". The
// address may be in brackets, or "host-gateway", for which gateway stands.
func Extra(values []string, gateway []netip.Addr) ([]Record, error) {
	var out []Record
	for _, v := range values {
		i := strings.IndexAny(v, ":=")
		if i <= 0 || i == len(v)-1 {
			return nil, errs.New(errs.Invalid, "bad format for add-host: %q", v)
		}
		name, addr := v[:i], v[i+1:]
		if addr == "host-gateway" {
			if len(gateway) == 0 {
				return nil, errs.New(errs.Invalid, "unable to derive the IP value for host-gateway")
			}
			for _, g := range gateway {
				out = append(out, Record{g.String(), []string{name}})
			}
			continue
		}
		if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
			addr = addr[1 : len(addr)-1]
		}
		if _, err := netip.ParseAddr(addr); err != nil {
			return nil, errs.New(errs.Invalid, "invalid IP address in add-host: %q", addr)
		}
		out = append(out, Record{addr, []string{name}})
	}
	return out, nil
}

// Own returns the records of a container's own addresses.
func Own(hostname, domain string, addrs []netip.Addr) []Record {
	names := OwnNames(hostname, domain)
	var out []Record
	for _, a := range addrs {
		out = append(out, Record{a.String(), names})
	}
	return out
}

// OwnNames returns the names of a container's own addresses.
func OwnNames(hostname, domain string) []string {
	names := []string{hostname}
	if host, rest, ok := strings.Cut(hostname, "."); ok && rest != "" {
		names = []string{hostname, host}
	}
	if domain != "" {
		names = []string{hostname + "." + domain, hostname}
	}
	return names
}

// Resolv is a resolv.conf to be: what the user asked for goes before what the
// host has.
type Resolv struct {
	HostPath string // of HostFile, for the comment
	HostFile []byte
	DNS      []netip.Addr
	Search   []string
	Options  []string
	// HostNetwork keeps the host's loopback resolvers: they answer there.
	HostNetwork bool
	// IPv6 keeps resolvers that only IPv6 reaches.
	IPv6 bool
	// Internal is where names of networks are answered, and who asks the other
	// servers then; invalid if nowhere.
	Internal netip.Addr
}

// Fallback are the resolvers of a container on a host that has none that a
// container could reach.
var fallback = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}

// Render returns the file.
func (r Resolv) Render() []byte {
	c := parse(r.HostFile)
	var overrides []string
	usedDefault := false
	var outside []string
	if r.Internal.IsValid() {
		outside, usedDefault = r.outside(c.servers)
		if len(r.DNS) > 0 {
			overrides = append(overrides, "nameservers")
		}
		c.servers = []netip.Addr{r.Internal}
	} else if len(r.DNS) > 0 {
		c.servers, overrides = r.DNS, append(overrides, "nameservers")
	} else if !r.HostNetwork {
		c.servers = reachable(c.servers, r.IPv6)
		if len(c.servers) == 0 {
			c.servers, usedDefault = fallback, true
		}
	}
	if len(r.Search) > 0 {
		c.search, overrides = r.Search, append(overrides, "search")
		if slices.Equal(r.Search, []string{"."}) { // none, please
			c.search = nil
		}
	}
	from := "host"
	if len(r.Options) > 0 {
		c.options, overrides, from = r.Options, append(overrides, "options"), "override"
	}
	if r.Internal.IsValid() && !slices.ContainsFunc(c.options, isDots) {
		// A name without a dot may be a container's: it is asked for as it is.
		c.options, from = append(slices.Clone(c.options), "ndots:0"), "internal"
	}
	var b bytes.Buffer
	b.WriteString("# Generated by Gantry.\n# This file can be edited; Gantry will not make further changes once it\n# has been modified.\n\n")
	for _, s := range c.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(c.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.options, " "))
	}
	for _, l := range c.other {
		fmt.Fprintln(&b, l)
	}
	kind := " (legacy)"
	switch {
	case r.HostNetwork:
		kind = ""
	case r.Internal.IsValid():
		kind = " (internal resolver)"
	}
	fmt.Fprintf(&b, "\n# Based on host file: '%s'%s\n", r.HostPath, kind)
	if usedDefault {
		b.WriteString("# Used default nameservers.\n")
	}
	if len(outside) > 0 {
		fmt.Fprintf(&b, "# ExtServers: [%s]\n", strings.Join(outside, " "))
	}
	fmt.Fprintf(&b, "# Overrides: [%s]\n", strings.Join(overrides, " "))
	if slices.ContainsFunc(c.options, isDots) {
		fmt.Fprintf(&b, "# Option ndots from: %s\n", from)
	}
	return b.Bytes()
}

func isDots(option string) bool { return strings.HasPrefix(option, "ndots:") }

// outside are the servers that are asked for what is in no network, as comments
// tell them: those of the host that are asked from there in "host()".
func (r Resolv) outside(host []netip.Addr) (out []string, usedDefault bool) {
	list := r.DNS
	if len(list) == 0 {
		list, usedDefault = host, len(host) == 0
	}
	if usedDefault {
		list = fallback
	}
	for _, a := range list {
		if len(r.DNS) == 0 && FromHost(a, r.IPv6) {
			out = append(out, "host("+a.String()+")")
		} else {
			out = append(out, a.String())
		}
	}
	return out, usedDefault
}

// FromHost reports whether one of the host's name servers can only be reached
// from the host's namespace, by a container with or without IPv6. Pure.
func FromHost(a netip.Addr, ipv6 bool) bool {
	return a.IsLoopback() || a.Zone() != "" || a.Is6() && !ipv6
}

// Servers are the name servers of a host with this resolv.conf: those of others
// if it has none.
func Servers(file []byte) []netip.Addr {
	if s := parse(file).servers; len(s) > 0 {
		return s
	}
	return slices.Clone(fallback)
}

func reachable(servers []netip.Addr, ipv6 bool) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if !s.IsLoopback() && (s.Is4() || ipv6 && s.Zone() == "") {
			out = append(out, s)
		}
	}
	return out
}

// conf is a parsed resolv.conf.
type conf struct {
	servers []netip.Addr
	search  []string
	options []string
	other   []string
}

func parse(file []byte) conf {
	var c conf
	for line := range strings.Lines(string(file)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(f) > 1 {
				if a, err := netip.ParseAddr(f[1]); err == nil {
					c.servers = append(c.servers, a)
				}
			}
		case "search", "domain": // the last one counts
			c.search = f[1:]
			if slices.Equal(c.search, []string{"."}) {
				c.search = nil
			}
		case "options":
			c.options = append(c.options, f[1:]...)
		default:
			c.other = append(c.other, strings.TrimSpace(line))
		}
	}
	return c
}

// OnlySystemdStub reports whether a resolv.conf names nothing but the stub
// resolver of systemd-resolved, 127.0.0.53, behind which the real ones are
// written in /run/systemd/resolve/resolv.conf.
func OnlySystemdStub(file []byte) bool {
	s := parse(file).servers
	return len(s) == 1 && s[0] == netip.AddrFrom4([4]byte{127, 0, 0, 53})
}
