package container

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/plan"
	"gantry/internal/store"
)

// recordVersion is the layout of a stored record.
const recordVersion = 1

// A Record is what is decided about a container, kept durably. What can be
// observed is not in it.
type Record struct {
	Version   int
	ID        string
	Name      string // without the slash
	CreatedAt time.Time
	Plan      *plan.Plan
	Image     Image
	// Images are those of its mounts of type image, by target.
	Images map[string]Mounted `json:",omitempty"`
	// Before is what the container was like before a change that is being
	// made to it: a crash in between is mended by whoever finds it.
	Before *plan.Plan `json:",omitempty"`
	// StopAsked says that the user wants it down.
	StopAsked bool `json:",omitempty"`
}

// Mounted is an image that a container has mounted.
type Mounted struct {
	ID    string
	Lower []string // as of Image
}

// Image is what a container keeps of the image it was made of.
type Image struct {
	ID       string // digest by which the API names the image; empty for none
	Platform string // "linux"
	Manifest *ocispec.Descriptor
	// Lower are the directories of its layers, topmost first. They stay
	// while the image is pinned for the container.
	Lower []string
	// Driver is the storage driver that has them; empty for overlayfs. Whole
	// says that there is one, and that it is the image's whole tree.
	Driver string `json:",omitempty"`
	Whole  bool   `json:",omitempty"`
}

// driver is the name of the storage driver.
func (i *Image) driver() string {
	if i.Driver == "" {
		return "overlayfs"
	}
	return i.Driver
}

// The buckets: records by ID, and IDs by name. Both change in one transaction,
// so that a name has at most one owner at any moment.
var (
	records = store.NewBucket[Record]("containers")
	names   = store.NewBucket[string]("container.names")
)
