package wire

import (
	"encoding/json"
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

// ImageDiff is how one image differs from another. Beyond Docker:
// GET /gantry/images/diff?from=&to=.
type ImageDiff struct {
	From, To string // ids
	// Layers are those of both, lowest first: those that are the same, and then
	// what each has alone.
	Shared     int
	FromLayers []ImageDiffLayer
	ToLayers   []ImageDiffLayer
	Files      []FileDiff
	Config     []ConfigDiff
}

// ImageDiffLayer is a layer that only one of two images has.
type ImageDiffLayer struct {
	DiffID    string
	Size      int64  // unpacked, in bytes
	CreatedBy string `json:",omitempty"`
}

// FileDiff is a file that two images have differently. A change of the time alone
// is none.
type FileDiff struct {
	Path     string
	Kind     FilesystemChangeKind
	Old, New int64 // sizes in bytes
}

// ConfigDiff is a field of the configuration that two images have differently, as
// JSON; nil where an image does not have it.
type ConfigDiff struct {
	Field    string
	Old, New json.RawMessage `json:",omitempty"`
}

// ImageConverted is an image that was made of another one. Beyond Docker:
// POST /gantry/images/convert?from=&to=&form=estargz&platform=&platform=. It is the
// aux of the last message of the answer, a stream of progress.
type ImageConverted struct {
	ID, Name  string
	Platforms []string
	Layers    int   // all
	Converted int   // those that were not in that form before
	Size      int64 // of all layers, packed, in bytes
}

// ImageCheck is what a verification has found. Beyond Docker:
// POST /gantry/images/verify?name=&repair=.
type ImageCheck struct {
	Images, Blobs, Layers int   // looked at
	Bytes                 int64 // read, of blobs
	Faults                []ImageFault
}

// ImageFault is something wrong with an image.
type ImageFault struct {
	Image    string // a name, or the id
	Kind     string // "blob", "layer" or "missing"
	Digest   string // of the blob, or the chain of the layer
	Problem  string
	Paths    []string `json:",omitempty"` // that differ, of a layer; a few of them
	Repaired bool
	Why      string `json:",omitempty"` // it is not repaired
}
