package wire

import "github.com/moby/moby/api/types/network"

// Networks, the parts.
type (
	Network           = network.Network
	IPAM              = network.IPAM
	IPAMConfig        = network.IPAMConfig
	EndpointIPAM      = network.EndpointIPAMConfig
	EndpointResource  = network.EndpointResource
	NetworkStatus     = network.Status
	IPAMStatus        = network.IPAMStatus
	SubnetStatus      = network.SubnetStatus
	SubnetStatuses    = network.SubnetStatuses
	ConfigReference   = network.ConfigReference
	NetworkConnect    = network.ConnectRequest
	NetworkDisconnect = network.DisconnectRequest
)
