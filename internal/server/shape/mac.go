package shape

import (
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// setMAC gives the endpoint of the container's network mode the address, if the
// request gives it none.
func setMAC(c *wire.CreateRequest, mac string) error {
	mode := string(c.HostConfig.NetworkMode)
	switch {
	case mode == "" || mode == "default":
		mode = "bridge"
	case mode == "host" || mode == "none" || c.HostConfig.NetworkMode.IsContainer():
		return errs.New(errs.Invalid, "conflicting options: mac-address and the network mode")
	}
	if c.NetworkingConfig == nil {
		c.NetworkingConfig = &wire.NetworkingConfig{}
	}
	if c.NetworkingConfig.EndpointsConfig == nil {
		c.NetworkingConfig.EndpointsConfig = map[string]*wire.EndpointSettings{}
	}
	ep := c.NetworkingConfig.EndpointsConfig[mode]
	if ep == nil {
		ep = &wire.EndpointSettings{}
		c.NetworkingConfig.EndpointsConfig[mode] = ep
	}
	if len(ep.MacAddress) > 0 {
		return nil
	}
	if err := ep.MacAddress.UnmarshalText([]byte(mac)); err != nil {
		return errs.New(errs.Invalid, "invalid MAC address %q: %w", mac, err)
	}
	return nil
}
