package formatter

import (
	"strconv"

	"github.com/docker/go-units"

	"gantry/internal/wire"
)

// NetworkContext is a row of network ls.
type NetworkContext struct {
	n     *wire.NetworkSummary
	trunc bool
}

// Networks makes rows of list.
func Networks(list []wire.NetworkSummary, o RowOptions) []*NetworkContext {
	out := make([]*NetworkContext, len(list))
	for i := range list {
		out[i] = &NetworkContext{n: &list[i], trunc: o.Trunc}
	}
	return out
}

// NetworkTable describes network ls.
func NetworkTable() Table[*NetworkContext] {
	return Table[*NetworkContext]{
		Columns: []Column[*NetworkContext]{
			{"NETWORK ID", (*NetworkContext).ID}, {"NAME", (*NetworkContext).Name}, {"DRIVER", (*NetworkContext).Driver}, {"SCOPE", (*NetworkContext).Scope},
		},
		Headers: map[string]string{
			"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
		},
	}
}

// ID of the network.
func (n *NetworkContext) ID() string {
	if n.trunc {
		return ShortID(n.n.ID)
	}
	return n.n.ID
}

// Name of the network.
func (n *NetworkContext) Name() string { return n.n.Name }

// Driver that makes it.
func (n *NetworkContext) Driver() string { return n.n.Driver }

// Scope: local, global or swarm.
func (n *NetworkContext) Scope() string { return n.n.Scope }

// IPv4 says whether it has IPv4.
func (n *NetworkContext) IPv4() string { return strconv.FormatBool(n.n.EnableIPv4) }

// IPv6 says whether it has IPv6.
func (n *NetworkContext) IPv6() string { return strconv.FormatBool(n.n.EnableIPv6) }

// Internal says whether it has no way out.
func (n *NetworkContext) Internal() string { return strconv.FormatBool(n.n.Internal) }

// Labels as key=value, sorted.
func (n *NetworkContext) Labels() string { return joinLabels(n.n.Labels) }

// Label returns one label's value.
func (n *NetworkContext) Label(name string) string { return n.n.Labels[name] }

// CreatedAt is the time of creation.
func (n *NetworkContext) CreatedAt() string { return n.n.Created.String() }

// VolumeContext is a row of volume ls.
type VolumeContext struct{ v *wire.Volume }

// Volumes makes rows of list.
func Volumes(list []*wire.Volume) []*VolumeContext {
	out := make([]*VolumeContext, len(list))
	for i, v := range list {
		out[i] = &VolumeContext{v: v}
	}
	return out
}

// VolumeTable describes volume ls.
func VolumeTable() Table[*VolumeContext] {
	return Table[*VolumeContext]{
		Columns: []Column[*VolumeContext]{{"DRIVER", (*VolumeContext).Driver}, {"VOLUME NAME", (*VolumeContext).Name}},
		Headers: map[string]string{
			"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Links": "LINKS", "Size": "SIZE",
			"Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS",
		},
	}
}

// Name of the volume.
func (v *VolumeContext) Name() string { return v.v.Name }

// Driver that keeps it.
func (v *VolumeContext) Driver() string { return v.v.Driver }

// Scope: local or global.
func (v *VolumeContext) Scope() string { return v.v.Scope }

// Mountpoint on the daemon's host.
func (v *VolumeContext) Mountpoint() string { return v.v.Mountpoint }

// Labels as key=value, sorted.
func (v *VolumeContext) Labels() string { return joinLabels(v.v.Labels) }

// Label returns one label's value.
func (v *VolumeContext) Label(name string) string { return v.v.Labels[name] }

// Links counts the containers that use it; only system df knows.
func (v *VolumeContext) Links() string {
	if v.v.UsageData == nil {
		return "N/A"
	}
	return strconv.FormatInt(v.v.UsageData.RefCount, 10)
}

// Size on disk; only system df knows.
func (v *VolumeContext) Size() string {
	if v.v.UsageData == nil || v.v.UsageData.Size < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(v.v.UsageData.Size))
}

// Availability of a cluster volume.
func (v *VolumeContext) Availability() string { return "N/A" }

// Group of a cluster volume.
func (v *VolumeContext) Group() string { return "N/A" }

// Status of a cluster volume.
func (v *VolumeContext) Status() string { return "N/A" }

// DiffContext is a line of diff.
type DiffContext struct{ kind, path string }

// ChangeKinds of the API, in order of their numbers.
const changeKinds = "CAD"

// NewDiff makes a row. kind is the API's number: 0 changed, 1 added, 2 deleted.
func NewDiff(kind uint8, path string) *DiffContext {
	k := "?"
	if int(kind) < len(changeKinds) {
		k = changeKinds[kind : kind+1]
	}
	return &DiffContext{kind: k, path: path}
}

// DiffTable describes diff in a table.
func DiffTable() Table[*DiffContext] {
	return Table[*DiffContext]{
		Columns: []Column[*DiffContext]{{"CHANGE TYPE", (*DiffContext).Type}, {"PATH", (*DiffContext).Path}},
		Headers: map[string]string{"Type": "CHANGE TYPE", "Path": "PATH"},
	}
}

// Type of the change: C, A or D.
func (d *DiffContext) Type() string { return d.kind }

// Path in the container.
func (d *DiffContext) Path() string { return d.path }

// ContextContext is a row of context ls.
type ContextContext struct {
	C ContextRow
}

// ContextRow is what context ls knows of a context.
type ContextRow struct {
	Name, Description, Host, Err string
	Current                      bool
}

// ContextTable describes context ls.
func ContextTable() Table[*ContextContext] {
	return Table[*ContextContext]{
		Columns: []Column[*ContextContext]{
			{"NAME", func(c *ContextContext) string {
				if c.C.Current {
					return c.C.Name + " *"
				}
				return c.C.Name
			}},
			{"DESCRIPTION", func(c *ContextContext) string { return Ellipsis(c.C.Description, 60) }},
			{"DOCKER ENDPOINT", (*ContextContext).DockerEndpoint}, {"ERROR", (*ContextContext).Error},
		},
		Headers: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR", "Current": "CURRENT"},
	}
}

// Name of the context.
func (c *ContextContext) Name() string { return c.C.Name }

// Description by its maker.
func (c *ContextContext) Description() string { return c.C.Description }

// DockerEndpoint is where it leads.
func (c *ContextContext) DockerEndpoint() string { return c.C.Host }

// Current says whether it is the one in use.
func (c *ContextContext) Current() bool { return c.C.Current }

// Error found while reading it.
func (c *ContextContext) Error() string { return Ellipsis(c.C.Err, 45) }
