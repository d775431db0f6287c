package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"gantry/internal/errs"
	"gantry/internal/network/hostfiles"
)

const (
	hostsPath       = "/etc/hosts"
	resolvPath      = "/etc/resolv.conf"
	resolvedPath    = "/run/systemd/resolve/resolv.conf"
	errNoSuchFormat = "no sandbox of container %s"
)

// Files returns the content of /etc/hosts and /etc/resolv.conf for the
// container of sandbox s, which Attach has returned. A container that joins
// another's sandbox shares that one's files: for it the error is
// errs.Unsupported.
func (n *Networks) Files(s *Sandbox, h HostFiles) (hosts, resolv []byte, err error) {
	n.mu.RLock()
	rec := n.sandboxes[s.ID]
	mode := ""
	if rec != nil {
		mode = rec.Mode
	}
	n.mu.RUnlock()
	switch mode {
	case "":
		return nil, nil, errs.New(errs.NotFound, errNoSuchFormat, s.ID)
	case modeContainer:
		return nil, nil, errs.New(errs.Unsupported, "container %s shares the files of container %s", s.ID, rec.SharedWith)
	}
	extra, err := hostfiles.Extra(h.ExtraHosts, n.hostGateway())
	if err != nil {
		return nil, nil, err
	}
	r := hostfiles.Resolv{DNS: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions, HostNetwork: mode == modeHost}
	if r.HostPath, r.HostFile, err = hostResolv(r.HostNetwork); err != nil {
		return nil, nil, err
	}
	if mode == modeHost {
		own, err := readOptional(hostsPath)
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
	return hostfiles.Hosts(extra, hostfiles.Own(h.Hostname, h.Domainname, addrs)), r.Render(), nil
}

// hostGateway is what host-gateway stands for: this host as containers see it.
func (n *Networks) hostGateway() []netip.Addr {
	if n.opts.HostGateway.IsValid() {
		return []netip.Addr{n.opts.HostGateway}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if w := n.named(defaultNetwork); w != nil {
		if gw := w.rec.plan().Gateway; gw.IsValid() {
			return []netip.Addr{gw}
		}
	}
	return nil
}

// hostResolv reads the file that says where the host's resolvers are.
func hostResolv(hostNetwork bool) (string, []byte, error) {
	data, err := readOptional(resolvPath)
	if err != nil || hostNetwork || !hostfiles.OnlySystemdStub(data) {
		return resolvPath, data, err
	}
	real, err := readOptional(resolvedPath)
	if err != nil || len(real) == 0 {
		return resolvPath, data, err
	}
	return resolvedPath, real, nil
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
