package shape

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/storage"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// Containers forms the answer of a container list.
func Containers(list []wire.ContainerSummary, v int) []wire.ContainerSummary {
	out := make([]wire.ContainerSummary, len(list)) // [] and never null
	copy(out, list)
	for i := range out {
		c := &out[i]
		if v < 1052 {
			c.Health = nil
		}
		if v < 1048 {
			c.ImageManifestDescriptor = nil
		}
		if v < 1046 {
			c.HostConfig.Annotations = nil
		}
	}
	return out
}

// legacyNetwork are the fields that NetworkSettings took from the default
// bridge before 1.52.
var legacyNetwork = object{
	"EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
	"IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
}

// Container forms the answer of a container inspect.
func Container(c wire.ContainerJSON, v int) (any, error) {
	if v < 1048 {
		c.ImageManifestDescriptor = nil
	}
	if v >= 1052 {
		c.GraphDriver = nil
		if c.Storage == nil {
			c.Storage = &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: c.Driver}}}
		}
		return c, nil
	}
	c.Storage = nil
	if v < 1045 {
		c.NetworkSettings = oldAliases(c)
	}
	if c.GraphDriver == nil {
		c.GraphDriver = &storage.DriverData{Name: c.Driver}
	}
	o, err := toObject(c)
	if err != nil {
		return nil, err
	}
	if ns := o.sub("NetworkSettings"); ns != nil {
		bridge := object(ns).sub("Networks").sub("bridge")
		for key, none := range legacyNetwork {
			ns[key] = none
			if got, ok := bridge[key]; ok {
				ns[key] = got
			}
		}
	}
	return o, nil
}

// oldAliases adds a container's short ID and host name to the aliases in user
// defined networks, where they stood before 1.45.
func oldAliases(c wire.ContainerJSON) *wire.NetworkSettings {
	if c.NetworkSettings == nil || c.Config == nil {
		return c.NetworkSettings
	}
	ns := *c.NetworkSettings
	ns.Networks = maps.Clone(ns.Networks)
	for name, ep := range ns.Networks {
		if ep == nil || name == "bridge" || name == "host" || name == "none" {
			continue
		}
		ep = ep.Copy()
		for _, alias := range []string{id.Short(c.ID), c.Config.Hostname} {
			if alias != "" && !slices.Contains(ep.Aliases, alias) {
				ep.Aliases = append(ep.Aliases, alias)
			}
		}
		ns.Networks[name] = ep
	}
	return &ns
}

// OldCreate changes a create request to what a client of version v meant by
// it. body is the request as it was sent, for fields that are no more.
func OldCreate(c *wire.CreateRequest, body []byte, v int) error {
	h := c.HostConfig
	if v < 1041 && h.CgroupnsMode == "" {
		h.CgroupnsMode = "host"
	}
	if v < 1042 {
		h.ConsoleSize = [2]uint{}
	} else if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if v < 1043 {
		h.Annotations = nil
	}
	if v < 1044 {
		if c.Healthcheck != nil {
			c.Healthcheck.StartInterval = 0
		}
		if n := c.NetworkingConfig; n != nil && len(n.EndpointsConfig) > 1 {
			return errs.New(errs.Invalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(slices.Sorted(maps.Keys(n.EndpointsConfig)), ", "))
		}
	}
	if v < 1045 {
		for i := range h.Mounts {
			if o := h.Mounts[i].VolumeOptions; o != nil {
				o.Subpath = ""
			}
		}
	}
	if v < 1052 {
		return oldMAC(c, body)
	}
	return nil
}

// oldMAC moves the hardware address, which was a field of the container, to
// the endpoint of its network.
func oldMAC(c *wire.CreateRequest, body []byte) error {
	var old struct{ MacAddress string }
	if json.Unmarshal(body, &old) != nil || old.MacAddress == "" {
		return nil
	}
	return setMAC(c, old.MacAddress)
}
