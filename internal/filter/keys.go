package filter

// Keys is the set of keys that an endpoint understands.
type Keys []string

// The key sets of the endpoints (Docker Engine API 1.56). Events take any key.
var (
	Containers      = Keys{"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume"}
	ContainersPrune = Keys{"label", "label!", "until"}
	Images          = Keys{"before", "dangling", "label", "label!", "reference", "since", "until"}
	ImagesPrune     = Keys{"dangling", "label", "label!", "until"}
	Networks        = Keys{"dangling", "driver", "id", "label", "name", "scope", "type"}
	NetworksPrune   = Keys{"label", "label!", "until"}
	Volumes         = Keys{"dangling", "driver", "label", "name"}
	VolumesPrune    = Keys{"all", "label", "label!"}
	Search          = Keys{"is-automated", "is-official", "stars"}
	Plugins         = Keys{"capability", "enabled"}
	BuildPrune      = Keys{"description", "id", "inuse", "parent", "private", "shared", "type", "until"}
)
