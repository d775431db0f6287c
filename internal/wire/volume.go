package wire

import "github.com/moby/moby/api/types/volume"

// Volumes, the parts.
type (
	VolumeUsage = volume.UsageData
)
