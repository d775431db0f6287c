package registry

import (
	"bytes"
	"io"
	"runtime"

	"github.com/containerd/stargz-snapshotter/estargz"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PutEstargz adds an image whose layers, given as uncompressed tars, lowest first,
// are in eStargz form.
func (s *Server) PutEstargz(name, tag string, layers ...[]byte) ocispec.Manifest {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	c := ocispec.Image{}
	c.OS, c.Architecture, c.RootFS.Type = "linux", runtime.GOARCH, "layers"
	c.Config.Cmd = []string{"sh"}
	for _, l := range layers {
		blob, err := estargz.Build(io.NewSectionReader(bytes.NewReader(l), 0, int64(len(l))), estargz.WithChunkSize(1<<20), estargz.WithCompressionLevel(1))
		if err != nil {
			panic(err)
		}
		data, err := io.ReadAll(blob)
		if err != nil {
			panic(err)
		}
		blob.Close()
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, blob.DiffID())
		d := s.PutBlob(name, data)
		d.MediaType = ocispec.MediaTypeImageLayerGzip
		d.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: blob.TOCDigest().String()}
		m.Layers = append(m.Layers, d)
	}
	m.Config = s.PutBlob(name, toJSON(c))
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	s.PutManifest(name, tag, m.MediaType, toJSON(m))
	return m
}
