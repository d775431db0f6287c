package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/opt"
	"gantry/internal/errs"
)

type networkOptions struct {
	driver, scope, configFrom, ipamDriver     string
	attachable, configOnly, ingress, internal bool
	ipv4, ipv6                                bool
	opts, ipamOpts, aux                       opt.Map
	labels                                    opt.List
	subnets, gateways, ranges                 []string
}

// ipamConfig is one pool, as text: the daemon judges addresses, so that its
// errors and the client's are one.
type ipamConfig struct {
	Subnet     string            `json:",omitempty"`
	IPRange    string            `json:",omitempty"`
	Gateway    string            `json:",omitempty"`
	AuxAddress map[string]string `json:"AuxiliaryAddresses,omitempty"`
}

// networkRequest is the body of POST /networks/create, with addresses as text.
type networkRequest struct {
	Name                                      string
	Driver, Scope                             string `json:",omitempty"`
	EnableIPv4                                *bool  `json:",omitempty"`
	EnableIPv6                                *bool  `json:",omitempty"`
	IPAM                                      *ipamRequest
	Internal, Attachable, Ingress, ConfigOnly bool
	ConfigFrom                                *configFrom `json:",omitempty"`
	Options, Labels                           map[string]string
}

type ipamRequest struct {
	Driver  string
	Options map[string]string `json:",omitempty"`
	Config  []ipamConfig      `json:",omitempty"`
}

type configFrom struct{ Network string }

func (o *networkOptions) register(fs *pflag.FlagSet) {
	o.labels.Check = opt.Label
	fs.StringVarP(&o.driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.VarP(&o.opts, "opt", "o", "Set driver specific options")
	fs.Var(&o.labels, "label", "Set metadata on a network")
	fs.BoolVar(&o.internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&o.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&o.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&o.attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&o.ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&o.scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&o.configOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&o.configFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&o.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	fs.StringSliceVar(&o.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&o.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringSliceVar(&o.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.Var(&o.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.Var(&o.ipamOpts, "ipam-opt", "Set IPAM driver specific options")
}

func networkCreateCommand(a *App) *cobra.Command {
	var o networkOptions
	cmd := leaf("create [OPTIONS] NETWORK", "Create a network", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		pools, err := o.pools()
		if err != nil {
			return err
		}
		req := networkRequest{
			Name: args[0], Driver: o.driver, Scope: o.scope, Internal: o.internal, Attachable: o.attachable, Ingress: o.ingress, ConfigOnly: o.configOnly,
			Options: o.opts.Values, Labels: opt.ToMap(o.labels.Values),
			IPAM: &ipamRequest{Driver: o.ipamDriver, Options: o.ipamOpts.Values, Config: pools},
		}
		if cmd.Flags().Changed("ipv4") {
			req.EnableIPv4 = &o.ipv4
		}
		if cmd.Flags().Changed("ipv6") {
			req.EnableIPv6 = &o.ipv6
		}
		if o.configFrom != "" {
			req.ConfigFrom = &configFrom{o.configFrom}
		}
		var res struct{ ID, Warning string }
		if err := c.Post(cmd.Context(), "/networks/create", nil, req, &res); err != nil {
			return err
		}
		if res.Warning != "" {
			fmt.Fprintln(a.Err, "WARNING:", res.Warning)
		}
		fmt.Fprintln(a.Out, res.ID)
		return nil
	})
	o.register(cmd.Flags())
	return cmd
}

// pools puts each range, gateway and auxiliary address with its subnet.
func (o *networkOptions) pools() ([]ipamConfig, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errs.New(errs.Invalid, "every ip-range or gateway must have a corresponding subnet")
	}
	pools := make([]ipamConfig, len(o.subnets))
	nets := make([]*net.IPNet, len(o.subnets))
	for i, s := range o.subnets {
		pools[i].Subnet = s
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			continue // the daemon says what is wrong
		}
		for _, other := range nets[:i] {
			if other != nil && (other.Contains(n.IP) || n.Contains(other.IP)) {
				return nil, errs.New(errs.Invalid, "multiple overlapping subnet configuration is not supported")
			}
		}
		nets[i] = n
	}
	place := func(what, addr string, set func(*ipamConfig) bool) error {
		ip := net.ParseIP(addr)
		if first, _, err := net.ParseCIDR(addr); err == nil {
			ip = first
		}
		for i, n := range nets {
			if n != nil && ip != nil && n.Contains(ip) {
				if !set(&pools[i]) {
					return errs.New(errs.Invalid, "cannot configure multiple %ss (%s) on the same subnet (%s)", what, addr, pools[i].Subnet)
				}
				return nil
			}
		}
		return errs.New(errs.Invalid, "no matching subnet for %s %s", what, addr)
	}
	for _, r := range o.ranges {
		if err := place("range", r, func(p *ipamConfig) bool { ok := p.IPRange == ""; p.IPRange = r; return ok }); err != nil {
			return nil, err
		}
	}
	for _, g := range o.gateways {
		if err := place("gateway", g, func(p *ipamConfig) bool { ok := p.Gateway == ""; p.Gateway = g; return ok }); err != nil {
			return nil, err
		}
	}
	for name, addr := range o.aux.Values {
		if err := place("aux-address", addr, func(p *ipamConfig) bool {
			if p.AuxAddress == nil {
				p.AuxAddress = map[string]string{}
			}
			p.AuxAddress[name] = addr
			return true
		}); err != nil {
			return nil, err
		}
	}
	return pools, nil
}

type connectOptions struct {
	ip, ip6          net.IP
	links            opt.List
	aliases, drvOpts []string
	linkLocal        []string
	gwPriority       int
}

func networkConnectCommand(a *App) *cobra.Command {
	var o connectOptions
	cmd := leaf("connect [OPTIONS] NETWORK CONTAINER", "Connect a container to a network", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		ep := map[string]any{"Aliases": o.aliases, "Links": o.links.Values, "GwPriority": o.gwPriority}
		ipam := map[string]any{}
		if o.ip != nil {
			ipam["IPv4Address"] = o.ip.String()
		}
		if o.ip6 != nil {
			ipam["IPv6Address"] = o.ip6.String()
		}
		if len(o.linkLocal) > 0 {
			ipam["LinkLocalIPs"] = o.linkLocal
		}
		if len(ipam) > 0 {
			ep["IPAMConfig"] = ipam
		}
		if len(o.drvOpts) > 0 {
			for _, d := range o.drvOpts {
				if k, _, ok := strings.Cut(d, "="); !ok || k == "" {
					return errors.New("invalid key/value pair format in driver options")
				}
			}
			ep["DriverOpts"] = opt.ToMap(o.drvOpts)
		}
		req := map[string]any{"Container": args[1], "EndpointConfig": ep}
		return c.Post(cmd.Context(), objectPath("/networks/", args[0], "connect"), nil, req, nil)
	})
	o.links.Check = opt.Link
	fs := cmd.Flags()
	fs.IPVar(&o.ip, "ip", nil, `IPv4 address (e.g., "172.30.100.104")`)
	fs.IPVar(&o.ip6, "ip6", nil, `IPv6 address (e.g., "2001:db8::33")`)
	fs.Var(&o.links, "link", "Add link to another container")
	fs.StringSliceVar(&o.aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringSliceVar(&o.linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	fs.StringSliceVar(&o.drvOpts, "driver-opt", nil, "driver options for the network")
	fs.IntVar(&o.gwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

func networkDisconnectCommand(a *App) *cobra.Command {
	var force bool
	cmd := leaf("disconnect [OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		req, err := json.Marshal(map[string]any{"Container": args[1], "Force": force})
		if err != nil {
			return err
		}
		return c.Post(cmd.Context(), objectPath("/networks/", args[0], "disconnect"), nil, json.RawMessage(req), nil)
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}
