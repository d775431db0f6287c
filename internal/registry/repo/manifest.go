package repo

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// Docker's own media types of manifests.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// maxEntries bounds what one manifest may name.
const maxEntries = 10000

// A Manifest is what the registry reads of a manifest or index.
type Manifest struct {
	MediaType    string
	Config       *ocispec.Descriptor
	Layers       []ocispec.Descriptor
	Manifests    []ocispec.Descriptor
	Subject      *ocispec.Descriptor
	ArtifactType string // its own, or else the media type of its configuration
	Annotations  map[string]string
}

// Index reports whether the manifest is a list of others.
func (m *Manifest) Index() bool {
	return m.MediaType == ocispec.MediaTypeImageIndex || m.MediaType == DockerIndex
}

// Blobs returns what a repository must have before it has an image manifest.
func (m *Manifest) Blobs() []ocispec.Descriptor {
	var list []ocispec.Descriptor
	if m.Config != nil {
		list = append(list, *m.Config)
	}
	for _, l := range m.Layers {
		if !foreign(l) {
			list = append(list, l)
		}
	}
	return list
}

// foreign reports whether a layer may be kept elsewhere.
func foreign(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 && (strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign."))
}

func manifestInvalid(format string, args ...any) error {
	return NewFault(errs.Invalid, ManifestInvalid, "manifest invalid: "+format, args...)
}

// ParseManifest reads a manifest or index that a client calls contentType, or
// nothing. What could be read in two ways is refused.
// Format: OCI image-spec 1.1 manifest.md and image-index.md; Docker's image
// manifest version 2, schema 2.
func ParseManifest(data []byte, contentType string) (*Manifest, error) {
	var m struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		ArtifactType  string               `json:"artifactType"`
		Config        *ocispec.Descriptor  `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
		Subject       *ocispec.Descriptor  `json:"subject"`
		Annotations   map[string]string    `json:"annotations"`
		Signatures    json.RawMessage      `json:"signatures"`
		FSLayers      json.RawMessage      `json:"fsLayers"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&m); err != nil {
		return nil, manifestInvalid("%v", err)
	}
	if !json.Valid(data) {
		return nil, manifestInvalid("more than one JSON value")
	}
	if contentType != "" {
		t, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return nil, manifestInvalid("content type %q", contentType)
		}
		contentType = t
	}
	t := m.MediaType
	switch {
	case t == "" && contentType == "":
		if t = ocispec.MediaTypeImageManifest; m.Manifests != nil {
			t = ocispec.MediaTypeImageIndex
		}
	case t == "":
		t = contentType
	case contentType != "" && contentType != "application/json" && contentType != t:
		return nil, manifestInvalid("it says that it is %s and is sent as %s", t, contentType)
	}
	out := &Manifest{MediaType: t, Config: m.Config, Layers: m.Layers, Manifests: m.Manifests, Subject: m.Subject, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	if m.SchemaVersion != 2 || m.Signatures != nil || m.FSLayers != nil {
		return nil, manifestInvalid("schema version %d is not supported", m.SchemaVersion)
	}
	switch t {
	case ocispec.MediaTypeImageManifest, DockerManifest:
		if m.Config == nil || m.Manifests != nil {
			return nil, manifestInvalid("%s needs a config and has no manifests", t)
		}
		if out.ArtifactType == "" {
			out.ArtifactType = m.Config.MediaType
		}
	case ocispec.MediaTypeImageIndex, DockerIndex:
		if m.Config != nil || m.Layers != nil {
			return nil, manifestInvalid("%s has neither config nor layers", t)
		}
	default:
		return nil, manifestInvalid("media type %q is not supported", t)
	}
	return out, out.check()
}

// check looks at every descriptor.
func (m *Manifest) check() error {
	if len(m.Layers)+len(m.Manifests) > maxEntries {
		return manifestInvalid("more than %d entries", maxEntries)
	}
	all := append(append([]ocispec.Descriptor{}, m.Layers...), m.Manifests...)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return manifestInvalid("digest %q: %v", d.Digest, err)
		}
		if d.Size < 0 {
			return manifestInvalid("size %d of %s", d.Size, d.Digest)
		}
	}
	return nil
}

// refers lists the digests that a manifest names, its subject not included.
func (m *Manifest) refers() []digest.Digest {
	var list []digest.Digest
	if m.Config != nil {
		list = append(list, m.Config.Digest)
	}
	for _, d := range append(append([]ocispec.Descriptor{}, m.Layers...), m.Manifests...) {
		list = append(list, d.Digest)
	}
	return list
}
