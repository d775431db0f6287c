package wire

import "github.com/moby/moby/api/types/volume"

// Volumes, the parts.
type (
	VolumeUsage = volume.UsageData
)

// VolumeClone is a copy to be made of a volume. Beyond Docker.
type VolumeClone struct {
	From string `json:",omitempty"` // of a request the path says it
	To   string `json:",omitempty"` // of a snapshot it may be empty: a name is chosen
	// Snapshot labels the copy as one of a moment: gantry.snapshot.of and .at.
	Snapshot bool `json:",omitempty"`
}

// VolumeCopied is what an import or a clone has made. Beyond Docker.
type VolumeCopied struct {
	Name   string
	Files  int
	Bytes  int64 // of content
	Shared int64 // those of Bytes that take no space: the original has them too
}

// VolumeProgress is a line of the answer to a clone: how far it is, and at the
// end what it has made, or why it failed.
type VolumeProgress struct {
	Bytes int64         // of content so far
	Done  *VolumeCopied `json:",omitempty"`
	Error string        `json:",omitempty"`
}
