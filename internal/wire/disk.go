package wire

import (
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// What things occupy on the disk.
type (
	DiskUsage          = system.DiskUsage
	DiskObject         = system.DiskUsageObject
	ContainerDiskUsage = container.DiskUsage
	VolumeDiskUsage    = volume.DiskUsage
	CacheDiskUsage     = build.DiskUsage
	CacheRecord        = build.CacheRecord
	CachePruned        = build.CachePruneReport
)

// The kinds of things that occupy the disk.
const (
	DiskContainers = system.ContainerObject
	DiskImages     = system.ImageObject
	DiskVolumes    = system.VolumeObject
	DiskCache      = system.BuildCacheObject
)
