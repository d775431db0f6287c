package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"gantry/internal/errs"
	"gantry/internal/network/hostfiles"
	"gantry/internal/network/ledger"
	"gantry/internal/network/names"
)

const (
	resolvPath   = "/etc/resolv.conf"
	resolvedPath = "/run/systemd/resolve/resolv.conf"
)

// HostFiles is what a container reads of names: /etc/hosts and /etc/resolv.conf.
type HostFiles struct {
	Hostname, Domainname string
	ExtraHosts           []string // "name:address" or "name=address"; host-gateway allowed
	DNS                  []netip.Addr
	DNSSearch            []string
	DNSOptions           []string
}

// HostFiles returns the content of /etc/hosts and /etc/resolv.conf for the
// container of sandbox s, which Attach has returned. A container that joins
// another's sandbox shares that one's files: for it the error is
// errs.Unsupported.
func (n *Networks) HostFiles(_ context.Context, s *Sandbox, h HostFiles) (hosts, resolv []byte, err error) {
	e := n.book.Get(s.ID)
	switch {
	case e == nil:
		return nil, nil, errs.New(errs.NotFound, "no sandbox of container %s", s.ID)
	case e.Mode == ledger.ModeContainer:
		return nil, nil, errs.New(errs.Unsupported, "container %s shares the files of container %s", s.ID, e.SharedWith)
	}
	extra, err := hostfiles.Extra(h.ExtraHosts, hostGateway(n))
	if err != nil {
		return nil, nil, err
	}
	r := hostfiles.Resolv{DNS: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions, HostNetwork: e.Mode == ledger.ModeHost}
	if r.HostPath, r.HostFile, err = hostResolv(); err != nil {
		return nil, nil, err
	}
	if e.Mode == ledger.ModeHost { // where the stub resolver answers, too
		r.HostPath = resolvPath
		if r.HostFile, err = readOptional(resolvPath); err != nil {
			return nil, nil, err
		}
	}
	if e.Mode == ledger.ModeHost {
		own, err := readOptional("/etc/hosts")
		return hostfiles.HostsOfHost(own, extra), r.Render(), err
	}
	var addrs []netip.Addr
	for _, e := range s.Endpoints {
		if e.IPv4.IsValid() {
			addrs = append(addrs, e.IPv4.Addr())
		}
		if e.IPv6.IsValid() {
			addrs = append(addrs, e.IPv6.Addr())
			r.IPv6 = true
		}
	}
	if n.names.On(s.Endpoints) {
		r.Internal = names.Address()
	}
	return hostfiles.Hosts(extra, hostfiles.Own(h.Hostname, h.Domainname, addrs)), r.Render(), nil
}

// HostNames are the names that a container has for its own addresses.
func HostNames(hostname, domain string) []string { return hostfiles.OwnNames(hostname, domain) }

// HostGateway is what host-gateway stands for: this host as containers see it.
func HostGateway(n *Networks) []netip.Addr { return hostGateway(n) }

func hostGateway(n *Networks) []netip.Addr {
	if n.opts.HostGateway.IsValid() {
		return []netip.Addr{n.opts.HostGateway}
	}
	if w, err := n.book.Find(ledger.Bridge); err == nil {
		var out []netip.Addr
		for _, gw := range []netip.Addr{w.Plan().Gateway, w.Plan().Gateway6} {
			if gw.IsValid() {
				out = append(out, gw)
			}
		}
		return out
	}
	return nil
}

// hostResolv reads the file that says where the host's resolvers are, as others
// than the host itself reach them.
func hostResolv() (string, []byte, error) {
	data, err := readOptional(resolvPath)
	if err != nil || !hostfiles.OnlySystemdStub(data) {
		return resolvPath, data, err
	}
	real, err := readOptional(resolvedPath)
	if err != nil || len(real) == 0 {
		return resolvPath, data, err
	}
	return resolvedPath, real, nil
}

// nameServers are the host's, as containers reach them.
func nameServers() []netip.Addr {
	_, file, err := hostResolv()
	if err != nil {
		return nil // asked again soon
	}
	return hostfiles.Servers(file)
}

func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's %s: %w", path, err)
	}
	return data, nil
}
