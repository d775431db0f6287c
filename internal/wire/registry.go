package wire

import (
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
)

// Registries.
type (
	RegistryAuth        = registry.AuthConfig
	RegistryAuthReply   = registry.AuthResponse
	RegistrySearch      = registry.SearchResult
	DistributionInspect = registry.DistributionInspect
	// ProgressDetail is how far a step of a stream's work is.
	ProgressDetail = jsonstream.Progress
	// PushedInstead tells that only one platform of an image was pushed.
	PushedInstead = auxprogress.ManifestPushedInsteadOfIndex
)
