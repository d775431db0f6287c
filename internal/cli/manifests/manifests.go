// Package manifests is what the manifest commands work on: manifest lists that are
// put together in the configuration directory, in the files of the docker command
// line, and a client of registries that is as large as they need.
//
// Package cli calls it. It writes below <configuration directory>/manifests, and to
// registries. It must not know the daemon. Formats: OCI distribution-spec 1.1,
// Docker's manifest list of schema 2, Docker's token authentication.
package manifests

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/errs"
)

// Media types.
const (
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// A Platform is what a manifest is for.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// A Descriptor names a manifest.
type Descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *Platform `json:"platform,omitempty"`
}

// A Manifest is one of a list: what a file of the docker command line has.
type Manifest struct {
	Ref              string
	Descriptor       Descriptor
	Raw              []byte          `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// Make returns the entry of a manifest.
func Make(ref string, d Descriptor, raw []byte) Manifest {
	m := Manifest{Ref: ref, Descriptor: d, Raw: raw}
	if d.MediaType == OCIManifest {
		m.OCIManifest = raw
	} else {
		m.SchemaV2Manifest = raw
	}
	return m
}

// IsList reports whether a media type is that of a list or index.
func IsList(mediaType string) bool { return mediaType == OCIIndex || mediaType == DockerList }

// listed is a descriptor in the order of fields that lists have.
type listed struct {
	MediaType string    `json:"mediaType"`
	Size      int64     `json:"size"`
	Digest    string    `json:"digest"`
	Platform  *Platform `json:"platform,omitempty"`
}

// List returns the text of a list, and its media type: an OCI index if the first
// is an OCI manifest.
func List(of []Manifest) (data []byte, mediaType string, err error) {
	l := struct {
		SchemaVersion int      `json:"schemaVersion"`
		MediaType     string   `json:"mediaType"`
		Manifests     []listed `json:"manifests"`
	}{2, DockerList, []listed{}}
	if len(of) > 0 && of[0].Descriptor.MediaType == OCIManifest {
		l.MediaType = OCIIndex
	}
	for _, m := range of {
		d := m.Descriptor
		if d.Platform == nil || d.Platform.OS == "" || d.Platform.Architecture == "" {
			return nil, "", errs.New(errs.Invalid, "manifest %s must have an OS and Architecture to be pushed to a registry", m.Ref)
		}
		l.Manifests = append(l.Manifests, listed{d.MediaType, d.Size, d.Digest, d.Platform})
	}
	data, err = json.MarshalIndent(l, "", "   ")
	return data, l.MediaType, err
}

// A Store is the lists that are being put together. Names are full ones.
type Store struct{ Dir string }

func file(name string) string { return strings.NewReplacer(":", "-", "/", "_").Replace(name) }

func (s Store) dir(list string) string { return filepath.Join(s.Dir, file(list)) }

// Has reports whether there is a list.
func (s Store) Has(list string) bool {
	fi, err := os.Stat(s.dir(list))
	return err == nil && fi.IsDir()
}

// Get returns one manifest of a list. errs.NotFound without it.
func (s Store) Get(list, name string) (Manifest, error) {
	return read(filepath.Join(s.dir(list), file(name)), name)
}

func read(path, name string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, errs.New(errs.NotFound, "No such manifest: %s", name)
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// All returns the manifests of a list, in the order of their names. errs.NotFound
// without the list.
func (s Store) All(list string) ([]Manifest, error) {
	entries, err := os.ReadDir(s.dir(list))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "No such manifest: %s", list)
	} else if err != nil {
		return nil, err
	}
	var out []Manifest
	for _, e := range entries {
		m, err := read(filepath.Join(s.dir(list), e.Name()), e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b Manifest) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}

// Put adds a manifest to a list, or replaces it.
func (s Store) Put(list, name string, m Manifest) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir(list), 0o755); err != nil {
		return err
	}
	path := filepath.Join(s.dir(list), file(name))
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Remove removes a list.
func (s Store) Remove(list string) error { return os.RemoveAll(s.dir(list)) }
