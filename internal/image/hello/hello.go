// Package hello makes the embedded image: one program, the shim itself, which
// called by the name hello says hello. So a machine without a network has an
// image to run.
//
// The daemon asks for it when somebody wants an image by one of its names that
// does not exist. It goes through the same door as every other image (Load)
// and must not know how images are stored.
package hello

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/image"
	"gantry/internal/wire"
)

// Names reports whether ref is a name of the embedded image: hello or
// hello-world, with the tag latest or none.
func Names(ref string) bool { return fullName(ref) != "" }

// fullName returns the name under which the image that ref asks for is loaded.
func fullName(ref string) string {
	switch ref {
	case "hello", "hello:latest":
		return "hello:latest"
	case "hello-world", "hello-world:latest":
		return "hello-world:latest"
	}
	return ""
}

// Ensure loads the embedded image under the name that ref asks for, if no image
// has it. program is the shim: a static executable. Equal programs give images
// of equal ids.
func Ensure(ctx context.Context, images *image.Images, program []byte, ref string) error {
	name := fullName(ref)
	if name == "" {
		return nil
	}
	if _, ok := images.Find(ctx, name); ok {
		return nil
	}
	data, err := archive(program, name)
	if err != nil {
		return err
	}
	return images.Load(ctx, bytes.NewReader(data), image.LoadOptions{Quiet: true}, func(wire.Progress) {})
}

// file is a member of a tar.
type file struct {
	name string
	mode int64
	data []byte
}

// pack returns a tar of files whose times are the epoch.
func pack(files ...file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

// archive returns a docker archive of the image.
func archive(program []byte, name string) ([]byte, error) {
	layer, err := pack(file{"hello", 0o755, program})
	if err != nil {
		return nil, err
	}
	epoch := time.Unix(0, 0).UTC()
	var c dockerspec.DockerOCIImage
	c.Created, c.OS, c.Architecture = &epoch, "linux", runtime.GOARCH
	c.Config.Cmd = []string{"/hello"}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}
	c.History = []ocispec.History{{Created: &epoch, Comment: "embedded in gantryd"}}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	return pack(file{"config.json", 0o644, config}, file{"layer.tar", 0o644, layer}, file{"manifest.json", 0o644, manifest})
}
