package wire

import (
	"encoding/json"
	"time"
)

// JobState is how far a job is.
type JobState string

// The states of a job.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
	// JobInterrupted is one that an earlier daemon did not bring to its end.
	JobInterrupted JobState = "interrupted"
)

// A Job is work that the daemon does in the background: it goes on when the
// client that asked for it is gone. Beyond Docker: /gantry/jobs.
type Job struct {
	ID       string
	Kind     string // "prune", "budget"
	State    JobState
	Started  time.Time
	Ended    *time.Time  `json:",omitempty"`
	Progress JobProgress // the latest
	Error    string      `json:",omitempty"`
	// Report is the result, kept until it has been read; of a job that
	// failed or was cancelled, what was done before.
	Report json.RawMessage `json:",omitempty"`
}

// JobProgress is how far a job is, and what it has done so far.
type JobProgress struct {
	Step, Steps    int    // from 1
	Doing          string // such as "images"
	Last           string `json:",omitempty"` // what was done last
	Removed        int    // things
	SpaceReclaimed uint64 // bytes, of the steps that are over
}

// JobRequest starts a job.
type JobRequest struct {
	Kind  string
	Prune *PruneRequest `json:",omitempty"`
}

// PruneRequest is what a prune of several kinds removes.
type PruneRequest struct {
	// Kinds are container, network, volume, image and build-cache, pruned in
	// this order; empty for all but volume.
	Kinds        []string                   `json:",omitempty"`
	All          bool                       `json:",omitempty"` // images that have names too, and all build cache
	NamedVolumes bool                       `json:",omitempty"` // volumes that have names too
	Filters      map[string]map[string]bool `json:",omitempty"`
}

// PruneReport is what a prune has removed.
type PruneReport struct {
	ContainersDeleted []string       `json:",omitempty"`
	NetworksDeleted   []string       `json:",omitempty"`
	VolumesDeleted    []string       `json:",omitempty"`
	ImagesDeleted     []ImageDeleted `json:",omitempty"`
	CachesDeleted     []string       `json:",omitempty"`
	SpaceReclaimed    uint64
}
