// Package wire names the messages of the Docker Engine API: aliases of the
// official types, so that one import gives the rest of the project the words
// that a client and a daemon exchange. It holds no behaviour.
//
// Source: github.com/moby/moby/api (swagger.yaml, version 1.56).
package wire

import (
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// Containers.
type (
	ContainerConfig  = container.Config
	HostConfig       = container.HostConfig
	Resources        = container.Resources
	RestartPolicy    = container.RestartPolicy
	CreateRequest    = container.CreateRequest
	CreateResponse   = container.CreateResponse
	InspectResponse  = container.InspectResponse
	ContainerState   = container.State
	ContainerSummary = container.Summary
	Healthcheck      = container.HealthConfig
	Health           = container.Health
	MountPoint       = container.MountPoint
	NetworkSettings  = container.NetworkSettings
	PortSummary      = container.PortSummary
	WaitResponse     = container.WaitResponse
	WaitCondition    = container.WaitCondition
	Stats            = container.StatsResponse
	TopResponse      = container.TopResponse
	UpdateConfig     = container.UpdateConfig
	DeviceRequest    = container.DeviceRequest
	DeviceMapping    = container.DeviceMapping
	Ulimit           = container.Ulimit
	IpcMode          = container.IpcMode
	CgroupnsMode     = container.CgroupnsMode
	NetworkMode      = container.NetworkMode
	ThrottleDevice   = blkiodev.ThrottleDevice
	LogConfig        = container.LogConfig
	UpdateResponse   = container.UpdateResponse
	ExecCreate       = container.ExecCreateRequest
	ExecStart        = container.ExecStartRequest
	ExecInspect      = container.ExecInspectResponse
	ContainersPruned = container.PruneReport
	CommitResponse   = container.CommitResponse
	PathStat         = container.PathStat
	FilesystemChange = container.FilesystemChange
	// FilesystemChangeKind is 0 for modified, 1 for added, 2 for deleted.
	FilesystemChangeKind = container.ChangeType
	ErrorResponse        = common.ErrorResponse
	// Progress is one message of a stream about work that takes time.
	Progress      = jsonstream.Message
	ProgressError = jsonstream.Error
)

// Mounts.
type (
	Mount     = mount.Mount
	MountType = mount.Type
)

// Networks.
type (
	NetworkingConfig = network.NetworkingConfig
	EndpointSettings = network.EndpointSettings
	Port             = network.Port
	PortMap          = network.PortMap
	PortBinding      = network.PortBinding
	PortSet          = network.PortSet
	NetworkInspect   = network.Inspect
	NetworkSummary   = network.Summary
	NetworkCreate    = network.CreateRequest
	NetworkCreated   = network.CreateResponse
	NetworksPruned   = network.PruneReport
)

// Images.
type (
	ImageSummary   = image.Summary
	ImageHistory   = image.HistoryResponseItem
	ImageDeleted   = image.DeleteResponse
	ImagesPruned   = image.PruneReport
	ImageDiskUsage = image.DiskUsage

	ImageManifest         = image.ManifestSummary
	ImageProperties       = image.ImageProperties
	AttestationProperties = image.AttestationProperties
	ImageIdentity         = image.Identity
	PullIdentity          = image.PullIdentity
	Attestation           = image.AttestationStatement
)

// The kinds of manifests: an image, what tells of one, and what can't be told.
const (
	ImageManifestKind       = image.ManifestKindImage
	AttestationManifestKind = image.ManifestKindAttestation
	UnknownManifestKind     = image.ManifestKindUnknown
)

// Volumes.
type (
	Volume        = volume.Volume
	VolumeCreate  = volume.CreateRequest
	VolumeList    = volume.ListResponse
	VolumesPruned = volume.PruneReport
)

// System.
type (
	Event      = events.Message
	EventActor = events.Actor
	Info       = system.Info
	Version    = system.VersionResponse
)

// ParsePort reads a port as images and users write it: "80", "53/udp".
func ParsePort(s string) (Port, error) { return network.ParsePort(s) }
