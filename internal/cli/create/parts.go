package create

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"gantry/internal/cli/opt"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

func osLookup(name string) (string, bool) { return os.LookupEnv(name) }

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func addrs(list []string) []netip.Addr {
	out := []netip.Addr{}
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// ParseRestart parses no, always, unless-stopped, on-failure[:count]. The daemon
// decides whether the name is one it knows.
func ParseRestart(s string) (wire.RestartPolicy, error) {
	if s == "" {
		return wire.RestartPolicy{}, nil
	}
	name, count, has := strings.Cut(s, ":")
	if has && name == "" {
		return wire.RestartPolicy{}, errs.New(errs.Invalid, "invalid restart policy format: no policy provided before colon")
	}
	p := wire.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errs.New(errs.Invalid, "invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

// setVolumes sorts -v: a lone path is an anonymous volume of the config, anything
// with a source is a bind of the host config. Relative sources (./x) are resolved
// here, as only this side knows its working directory.
func (f *Flags) setVolumes(_ *pflag.FlagSet, c *wire.ContainerConfig, h *wire.HostConfig) error {
	c.Volumes, h.Tmpfs = map[string]struct{}{}, map[string]string{}
	for _, v := range f.volumes.Values {
		if v == "" {
			return errs.New(errs.Invalid, "invalid empty volume spec")
		}
		src, rest, has := strings.Cut(v, ":")
		if !has {
			c.Volumes[v] = struct{}{}
			continue
		}
		if src == "" {
			return errs.New(errs.Invalid, "invalid spec: %s: empty section between colons", v)
		}
		if strings.Count(v, ":") > 2 && !strings.HasPrefix(v, "[") {
			return errs.New(errs.Invalid, "invalid spec: %s: too many colons", v)
		}
		if strings.HasSuffix(v, ":") || strings.Contains(v, "::") {
			return errs.New(errs.Invalid, "invalid spec: %s: empty section between colons", v)
		}
		if strings.HasPrefix(src, ".") {
			if abs, err := filepath.Abs(src); err == nil {
				v = abs + ":" + rest
			}
		} else if src == "~" || strings.HasPrefix(src, "~/") {
			if home, err := os.UserHomeDir(); err == nil {
				v = path.Join(home, src[1:]) + ":" + rest
			}
		}
		h.Binds = append(h.Binds, v)
	}
	for _, t := range f.tmpfs.Values {
		k, v, _ := strings.Cut(t, ":")
		h.Tmpfs[k] = v
	}
	return nil
}

func (f *Flags) setPorts(_ *pflag.FlagSet, c *wire.ContainerConfig, h *wire.HostConfig) error {
	var err error
	if c.ExposedPorts, h.PortBindings, err = Ports(f.publish.Values); err != nil {
		return err
	}
	for _, e := range f.expose.Values {
		if strings.Contains(e, ":") {
			return errs.New(errs.Invalid, "invalid port format for --expose: %s", e)
		}
		r, err := network.ParsePortRange(e)
		if err != nil {
			return errs.New(errs.Invalid, "invalid range format for --expose: %s, error: %w", e, err)
		}
		for p := range r.All() {
			c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

// Ports reads the values of --publish: what is exposed by them, and what is to
// be published. A port in no binding may be published anywhere.
func Ports(list []string) (wire.PortSet, wire.PortMap, error) {
	specs := make([]string, 0, len(list))
	for _, p := range list {
		s, err := shortPort(p)
		if err != nil {
			return nil, nil, err
		}
		specs = append(specs, s)
	}
	exposed, bindings, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return nil, nil, err
	}
	set, ports := wire.PortSet{}, wire.PortMap{}
	for p := range exposed {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return nil, nil, err
		}
		set[port] = struct{}{}
		ports[port] = []wire.PortBinding{}
		for _, b := range bindings[p] {
			pb := wire.PortBinding{HostPort: b.HostPort}
			if b.HostIP != "" {
				if pb.HostIP, err = netip.ParseAddr(b.HostIP); err != nil {
					return nil, nil, err
				}
			}
			ports[port] = append(ports[port], pb)
		}
	}
	return set, ports, nil
}

// shortPort turns published=8080,target=80,protocol=tcp into 8080:80/tcp.
func shortPort(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	m := map[string]string{"protocol": "tcp"}
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok || k == "" {
			return "", errs.New(errs.Invalid, "invalid publish opts format (should be name=value but got '%s')", field)
		}
		m[k] = v
	}
	return m["published"] + ":" + m["target"] + "/" + m["protocol"], nil
}

func (f *Flags) setDevices(_ *pflag.FlagSet, _ *wire.ContainerConfig, h *wire.HostConfig) error {
	h.Devices = []container.DeviceMapping{}
	h.DeviceRequests = f.gpus
	var cdi []string
	for _, d := range f.devices.Values {
		if opt.IsCDI(d) {
			cdi = append(cdi, d)
			continue
		}
		m, err := opt.Device(d)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, m)
	}
	if cdi != nil {
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

// setSecurity checks --security-opt, sends a seccomp profile's text instead of its
// file name, and turns systempaths=unconfined into empty path lists.
func (f *Flags) setSecurity(h *wire.HostConfig) error {
	for _, o := range f.securityOpt.Values {
		if o == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(o, "=")
		if !ok && k != "no-new-privileges" {
			k, v, ok = strings.Cut(o, ":")
		}
		if k != "no-new-privileges" && (!ok || v == "") {
			return errs.New(errs.Invalid, "Invalid --security-opt: %q", o)
		}
		if k == "seccomp" && v != "unconfined" && v != "builtin" {
			b, err := os.ReadFile(v)
			if err != nil {
				return errs.New(errs.Invalid, "opening seccomp profile (%s) failed: %w", v, err)
			}
			var text bytes.Buffer
			if err := json.Compact(&text, b); err != nil {
				return errs.New(errs.Invalid, "compacting json for seccomp profile (%s) failed: %w", v, err)
			}
			o = "seccomp=" + text.String()
		}
		h.SecurityOpt = append(h.SecurityOpt, o)
	}
	return nil
}

// endpoints returns the settings of each network. The single-network flags
// (--ip, --network-alias, …) belong to the first.
func (f *Flags) endpoints() (map[string]*wire.EndpointSettings, error) {
	nets := f.networks
	if len(nets) == 0 {
		nets = opt.Networks{{Target: "default"}}
	}
	out := map[string]*wire.EndpointSettings{}
	user, builtin := false, false
	for i, n := range nets {
		if container.NetworkMode(n.Target).IsUserDefined() {
			user = true
		} else {
			builtin = true
		}
		if i == 0 {
			if err := f.applyTo(&n); err != nil {
				return nil, err
			}
		}
		ep, empty, err := endpoint(n)
		if err != nil {
			return nil, err
		}
		if _, ok := out[n.Target]; ok {
			return nil, errs.New(errs.Invalid, "network %q is specified multiple times", n.Target)
		}
		// A lone network without settings is said by NetworkMode alone.
		if len(f.networks) == 1 && empty {
			continue
		}
		out[n.Target] = ep
	}
	if user && builtin && len(nets) > 1 {
		return nil, errs.New(errs.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return out, nil
}

func (f *Flags) applyTo(n *opt.Attachment) error {
	for _, c := range []struct {
		both bool
		text string
	}{
		{len(n.Aliases) > 0 && len(f.aliases.Values) > 0, "--network-alias and per-network alias"},
		{n.IPv4.IsValid() && f.ip != nil, "--ip and per-network IPv4 address"},
		{n.IPv6.IsValid() && f.ip6 != nil, "--ip6 and per-network IPv6 address"},
		{n.MAC != "" && f.macAddress != "", "--mac-address and per-network MAC address"},
		{len(n.LinkLocalIPs) > 0 && len(f.linkLocal.Values) > 0, "--link-local-ip and per-network link-local IP addresses"},
	} {
		if c.both {
			return errs.New(errs.Invalid, "conflicting options: cannot specify both %s", c.text)
		}
	}
	n.Aliases = append(n.Aliases, f.aliases.Values...)
	// On a network of the user's own a link is an alias there; on the default
	// bridge it is the container's, and goes into the host config alone.
	if container.NetworkMode(n.Target).IsUserDefined() {
		n.Links = f.links.Values
	}
	if a, ok := netip.AddrFromSlice(f.ip.To4()); ok {
		n.IPv4 = a
	}
	if a, ok := netip.AddrFromSlice(f.ip6.To16()); ok {
		n.IPv6 = a
	}
	if f.macAddress != "" {
		n.MAC = f.macAddress
	}
	n.LinkLocalIPs = append(n.LinkLocalIPs, addrs(f.linkLocal.Values)...)
	return nil
}

func endpoint(n opt.Attachment) (ep *wire.EndpointSettings, empty bool, err error) {
	if strings.TrimSpace(n.Target) == "" {
		return nil, false, errs.New(errs.Invalid, "no name set for network")
	}
	if !container.NetworkMode(n.Target).IsUserDefined() && len(n.Aliases) > 0 {
		return nil, false, errs.New(errs.Invalid, "network-scoped aliases are only supported for user-defined networks")
	}
	ep = &wire.EndpointSettings{Aliases: n.Aliases, Links: n.Links, DriverOpts: n.DriverOpts, GwPriority: n.GwPriority}
	ipam := n.IPv4.IsValid() || n.IPv6.IsValid() || len(n.LinkLocalIPs) > 0
	if ipam {
		ep.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: n.IPv4, IPv6Address: n.IPv6, LinkLocalIPs: n.LinkLocalIPs}
	}
	if n.MAC != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(n.MAC))
		if err != nil {
			return nil, false, errs.New(errs.Invalid, "%s is not a valid mac address", n.MAC)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	empty = !ipam && n.MAC == "" && len(n.Aliases) == 0 && len(n.Links) == 0 && len(n.DriverOpts) == 0 && n.GwPriority == 0
	return ep, empty, nil
}
