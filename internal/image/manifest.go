package image

import (
	"encoding/json"
	"mime"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// Media types of Docker's own, as old archives and registries have them.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Limits of what describes an image.
const (
	maxManifest  = 4 << 20 // bytes
	maxConfig    = 8 << 20 // bytes
	maxLayers    = 500     // OVL_MAX_STACK, fs/overlayfs/params.h
	maxManifests = 1000    // of an index
)

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

// body is what both an index and a manifest are read as, so that one that could
// be taken for either is noticed.
type body struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	FSLayers      json.RawMessage      `json:"fsLayers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
}

// parseBody reads an index or manifest whose descriptor says mediaType. One
// digest must have one meaning: a body that says another type, or is shaped
// like both, is errs.Invalid.
func parseBody(data []byte, mediaType string) (body, error) {
	var b body
	if err := json.Unmarshal(data, &b); err != nil {
		return body{}, errs.New(errs.Invalid, "manifest: %w", err)
	}
	switch {
	case b.SchemaVersion == 1 || len(b.FSLayers) > 0:
		return body{}, errs.New(errs.Invalid, "manifest of schema 1: its tools must make it anew")
	case b.MediaType != "" && b.MediaType != mediaType:
		return body{}, errs.New(errs.Invalid, "manifest says it is %q, its descriptor says %q", b.MediaType, mediaType)
	case isManifest(mediaType) && b.Manifests != nil, isIndex(mediaType) && (b.Layers != nil || b.Config != nil):
		return body{}, errs.New(errs.Invalid, "manifest could be read in two ways")
	case isManifest(mediaType) && b.Config == nil:
		return body{}, errs.New(errs.Invalid, "manifest without a configuration")
	case isIndex(mediaType) && b.Manifests == nil:
		return body{}, errs.New(errs.Invalid, "index without manifests")
	case !isManifest(mediaType) && !isIndex(mediaType):
		return body{}, errs.New(errs.Invalid, "media type %q is not that of an image", mediaType)
	case len(b.Layers) > maxLayers:
		return body{}, errs.New(errs.Invalid, "image has %d layers, more than %d", len(b.Layers), maxLayers)
	case len(b.Manifests) > maxManifests:
		return body{}, errs.New(errs.Invalid, "index has %d manifests, more than %d", len(b.Manifests), maxManifests)
	}
	for _, d := range append(append([]ocispec.Descriptor{}, b.Layers...), b.Manifests...) {
		if err := checkDescriptor(d); err != nil {
			return body{}, err
		}
	}
	if b.Config != nil {
		return b, checkDescriptor(*b.Config)
	}
	return b, nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return errs.New(errs.Invalid, "digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return errs.New(errs.Invalid, "%s has a negative size", d.Digest)
	}
	return nil
}

// isAttestation reports whether a manifest in an index tells of another one
// instead of being an image.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// isImageConfig reports whether a configuration is that of an image, not of
// something else that is distributed like one.
func isImageConfig(mediaType string) bool {
	t, _, err := mime.ParseMediaType(mediaType)
	return err == nil && (t == ocispec.MediaTypeImageConfig || t == dockerConfig || mediaType == "application/octet-stream")
}

// parseConfig reads an image's configuration and checks it against the number
// of layers of its manifest.
func parseConfig(data []byte, layers int) (dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	if err := json.Unmarshal(data, &c); err != nil {
		return c, errs.New(errs.Invalid, "image configuration: %w", err)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return c, errs.New(errs.Invalid, "image configuration names %d layers, its manifest %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return c, errs.New(errs.Invalid, "image configuration: layer %q: %w", d, err)
		}
	}
	if c.OS == "" {
		c.OS = "linux"
	}
	return c, nil
}

// layerType returns the media type of a layer packed so.
func layerType(compression string) string {
	return strings.TrimSuffix(ocispec.MediaTypeImageLayer+"+"+compression, "+")
}
