package wire

import "time"

// Attributes, and the key of the answer, of the frontend that looks after cache
// mounts: builds are asked for it as for a Dockerfile, by its name.
const (
	CacheMountsFrontend = "gantry.cachemounts.v0"
	CacheMountsAction   = "action" // list, export, import
	CacheMountsImage    = "image"  // to or from which
	CacheMountsIDs      = "ids"    // a JSON list; empty for all
	CacheMountsAnswer   = "gantry.cachemounts"
)

// CacheMountLabel is, on a layer of an image, the key of the cache mount whose
// files the layer has; on an image, the version of this form: "1".
const CacheMountLabel = "org.gantry.cachemount"

// CacheMount is a directory that builds keep between steps.
type CacheMount struct {
	ID         string     `json:"id"`   // as the Dockerfile says it
	Size       int64      `json:"size"` // bytes: of the files, or of the layer that was exported or imported
	InUse      bool       `json:"inUse"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"`
	// Stays: it begins with other files (from=, uid=, gid= or mode=), which only
	// this daemon knows, and is not exported.
	Stays bool `json:"stays,omitempty"`
}
