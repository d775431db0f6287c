package wire

import (
	"net"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// What inspections, lists and statistics of containers are made of.
type (
	ContainerStatus        = container.ContainerState
	PidMode                = container.PidMode
	RestartMode            = container.RestartPolicyMode
	HealthStatus           = container.HealthStatus
	HealthSummary          = container.HealthSummary
	HealthResult           = container.HealthcheckResult
	ExecProcess            = container.ExecProcessConfig
	WaitError              = container.WaitExitError
	NetworkSettingsSummary = container.NetworkSettingsSummary
	CPUStats               = container.CPUStats
	CPUUsage               = container.CPUUsage
	ThrottlingData         = container.ThrottlingData
	MemoryStats            = container.MemoryStats
	PidsStats              = container.PidsStats
	BlkioStats             = container.BlkioStats
	BlkioStatEntry         = container.BlkioStatEntry
	NetworkStats           = container.NetworkStats
	Propagation            = mount.Propagation
	EventAction            = events.Action
	Storage                = storage.Storage
	RootFSStorage          = storage.RootFSStorage
	RootFSStorageSnapshot  = storage.RootFSStorageSnapshot
	PortRange              = network.PortRange
)

// ParseMAC reads an Ethernet address such as 02:42:ac:11:00:02.
func ParseMAC(s string) (network.HardwareAddr, error) {
	hw, err := net.ParseMAC(s)
	return network.HardwareAddr(hw), err
}

// ParsePortRange reads ports as filters name them: "80", "80-90/udp".
func ParsePortRange(s string) (PortRange, error) { return network.ParsePortRange(s) }
