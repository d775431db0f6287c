package wire

import (
	"time"

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

// DiskBudget is how a daemon's disk budget stands, in bytes. Beyond Docker:
// /gantry/disk. Without a budget all is zero.
type DiskBudget struct {
	High, Low           int64
	Used                int64 // Images + Cache + Logs
	Images, Cache, Logs int64
	Over                bool   // Used is above High
	Why                 string `json:",omitempty"` // it stays so
}

// BudgetReport is what the job that keeps the budget has done.
type BudgetReport struct {
	Before, After int64 // bytes
	Removed       []BudgetRemoval
}

// BudgetRemoval is something that went.
type BudgetRemoval struct {
	Kind, ID, Name string
	LastUsed       time.Time
}
