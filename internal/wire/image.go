package wire

import "github.com/moby/moby/api/types/image"

// ImageInspect is what an inspection of an image says: the official type, and
// what the daemon says beyond it, as recorded.
type ImageInspect struct {
	image.InspectResponse
	Parent string `json:",omitempty"` // image that it was made of here
}
