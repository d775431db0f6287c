package pull

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const layers = 8

// makeImage writes an OCI layout with the image "big" of size megabytes: files of
// one to some hundred kilobytes, a third of them incompressible, the others text.
// The layers, packed with gzip or zstd, are there once more as l0.tar.packed and
// so on. It returns their size.
func makeImage(dir string, size int, packing string) (int64, error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return 0, err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: make([]ocispec.Descriptor, layers)}
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: make([]digest.Digest, layers)}}
	var g errgroup.Group
	for i := range layers {
		g.Go(func() (err error) {
			m.Layers[i], c.RootFS.DiffIDs[i], err = makeLayer(dir, i, size<<20/layers, packing)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	put := func(mediaType string, v any) (ocispec.Descriptor, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d := digest.FromBytes(data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, os.WriteFile(filepath.Join(blobs, d.Encoded()), data, 0o600)
	}
	var err error
	if m.Config, err = put(ocispec.MediaTypeImageConfig, c); err != nil {
		return 0, err
	}
	d, err := put(m.MediaType, m)
	if err != nil {
		return 0, err
	}
	d.Annotations = map[string]string{ocispec.AnnotationRefName: "big"}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600); err != nil {
		return 0, err
	}
	var packed int64
	for _, l := range m.Layers {
		packed += l.Size
	}
	return packed, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)
}

// makeLayer writes one layer.
func makeLayer(dir string, n, size int, packing string) (ocispec.Descriptor, digest.Digest, error) {
	path := filepath.Join(dir, fmt.Sprintf("l%d.tar.packed", n))
	f, err := os.Create(path)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	mediaType, to := ocispec.MediaTypeImageLayerGzip, io.MultiWriter(f, packed)
	var z io.WriteCloser = gzip.NewWriter(to)
	if packing == "zstd" {
		mediaType = ocispec.MediaTypeImageLayerZstd
		if z, err = zstd.NewWriter(to); err != nil {
			return ocispec.Descriptor{}, "", err
		}
	}
	if err := writeTar(io.MultiWriter(z, plain), n, size); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	fi, err := f.Stat()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, packed), Size: fi.Size()}
	return d, digest.NewDigest(digest.SHA256, plain), os.Link(path, filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded()))
}

func writeTar(w io.Writer, n, left int) error {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	noise := rand.NewChaCha8([32]byte{byte(n)})
	t := tar.NewWriter(w)
	for i := 0; left > 0; i++ {
		size := min(1<<10+r.IntN(200<<10), left)
		if r.IntN(20) == 0 {
			size = min(r.IntN(4<<20), left)
		}
		data := make([]byte, size)
		if r.IntN(3) == 0 {
			_, _ = noise.Read(data)
		} else {
			for at := 0; at < size; {
				at += copy(data[at:], fmt.Sprintf("word%d ", r.IntN(4096)))
			}
		}
		h := &tar.Header{Name: fmt.Sprintf("d%d/s%d/f%d", n, i%50, i), Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
		left -= size
	}
	return t.Close()
}
