package registry

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
)

// Docker's own media types.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// An Image says what to put into a repository.
type Image struct {
	Layers   [][]byte          // uncompressed tars, lowest first
	Packing  string            // gzip (also if empty), zstd or none
	Docker   bool              // in Docker's media types
	Platform *ocispec.Platform // nil: this machine's
	Cmd      []string
}

// Put adds an image to a repository; under a tag if that is not empty.
func (s *Server) Put(name, tag string, i Image) ocispec.Descriptor {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	c := ocispec.Image{}
	c.OS, c.Architecture = "linux", runtime.GOARCH
	if i.Platform != nil {
		c.Platform = *i.Platform
	}
	c.Config.Cmd = i.Cmd
	c.RootFS.Type = "layers"
	for _, l := range i.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
		data, suffix := pack(l, i.Packing)
		d := s.PutBlob(name, data)
		d.MediaType = ocispec.MediaTypeImageLayer + suffix
		if i.Docker {
			d.MediaType = DockerLayer
		}
		m.Layers = append(m.Layers, d)
	}
	m.Config = s.PutBlob(name, toJSON(c))
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	if i.Docker {
		m.MediaType, m.Config.MediaType = DockerManifest, DockerConfig
	}
	d := s.PutManifest(name, tag, m.MediaType, toJSON(m))
	d.Platform = &c.Platform
	return d
}

// PutIndex adds an index of manifests to a repository.
func (s *Server) PutIndex(name, tag string, list ...ocispec.Descriptor) ocispec.Descriptor {
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	return s.PutManifest(name, tag, x.MediaType, toJSON(x))
}

func toJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func pack(data []byte, how string) (packed []byte, suffix string) {
	var b bytes.Buffer
	switch how {
	case "none":
		return data, ""
	case "zstd":
		w, err := zstd.NewWriter(&b)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil || w.Close() != nil {
			panic("zstd")
		}
		return b.Bytes(), "+zstd"
	}
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil || w.Close() != nil {
		panic("gzip")
	}
	return b.Bytes(), "+gzip"
}

// Noise returns n bytes that no compression makes smaller, the same for the same
// seed.
func Noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// NoiseLayer is a layer with one file of n bytes of noise.
func NoiseLayer(name string, seed uint64, n int) []byte {
	return testkit.Layer(testkit.File{Name: name, Data: Noise(seed, n), Mode: 0o644})
}
