package testkit

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stamp is the time of everything in the images made here, so that the same
// call gives the same bytes.
var Stamp = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// File is an entry of a layer. A name that ends in a slash is a directory, a
// File with Link a symbolic link; Mode 0 means 0755 for directories, else 0644.
type File struct {
	Name, Link string
	Data       []byte
	Mode       int64
	UID, GID   int
}

// Layer returns the tar of files, in their order.
func Layer(files ...File) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, ModTime: Stamp, Typeflag: tar.TypeReg, Size: int64(len(f.Data)), Format: tar.FormatPAX}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size, h.Mode = tar.TypeSymlink, f.Link, 0, 0o777
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag, h.Size = tar.TypeDir, 0
			if h.Mode == 0 {
				h.Mode = 0o755
			}
		case h.Mode == 0:
			h.Mode = 0o644
		}
		must(w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write(f.Data)
			must(err)
		}
	}
	must(w.Close())
	return buf.Bytes()
}

// must is for errors that a bytes.Buffer can't give.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Image is an image before it is packed. The zero Config is completed with the
// machine's platform and the layers' digests.
type Image struct {
	Ref    string   // name:tag; empty for none
	Layers [][]byte // uncompressed tars, lowest first
	Config dockerspec.DockerOCIImage
}

// config returns the JSON of the image's configuration.
func (i Image) config() []byte {
	c := i.Config
	if c.OS == "" {
		c.OS = "linux"
	}
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	if c.Created == nil {
		c.Created = &Stamp
	}
	c.RootFS = ocispec.RootFS{Type: "layers"}
	for _, l := range i.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	if c.History == nil {
		for range i.Layers {
			c.History = append(c.History, ocispec.History{Created: &Stamp, Comment: "made by testkit"})
		}
	}
	return toJSON(c)
}

func toJSON(v any) []byte {
	data, err := json.Marshal(v)
	must(err)
	return data
}

// DockerArchive writes the image as `docker save` did before version 25: a
// manifest.json, the configuration, and a folder for each layer.
func (i Image) DockerArchive(w io.Writer) error {
	config := i.config()
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	e := entry{Config: hexSum(config) + ".json"}
	if i.Ref != "" {
		e.RepoTags = []string{i.Ref}
	}
	files := []File{{Name: e.Config, Data: config}}
	for n, l := range i.Layers {
		dir := fmt.Sprintf("%s%02d", hexSum(l)[:62], n)
		e.Layers = append(e.Layers, dir+"/layer.tar")
		files = append(files, File{Name: dir + "/"}, File{Name: dir + "/VERSION", Data: []byte("1.0")}, File{Name: dir + "/layer.tar", Data: l})
	}
	files = append(files, File{Name: "manifest.json", Data: toJSON([]entry{e})})
	_, err := w.Write(Layer(files...))
	return err
}

// OCILayout writes the image as a tar of an OCI image layout.
func (i Image) OCILayout(w io.Writer) error {
	files := []File{{Name: "blobs/"}, {Name: "blobs/sha256/"}}
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		files = append(files, File{Name: "blobs/sha256/" + hexSum(data), Data: data, Mode: 0o444})
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: blob(ocispec.MediaTypeImageConfig, i.config())}
	for _, l := range i.Layers {
		m.Layers = append(m.Layers, blob(ocispec.MediaTypeImageLayer, l))
	}
	top := blob(ocispec.MediaTypeImageManifest, toJSON(m))
	if i.Ref != "" {
		top.Annotations = map[string]string{"io.containerd.image.name": "docker.io/library/" + i.Ref, ocispec.AnnotationRefName: i.Ref[strings.LastIndex(i.Ref, ":")+1:]}
	}
	files = append(files,
		File{Name: "index.json", Data: toJSON(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top}})},
		File{Name: "oci-layout", Data: []byte(`{"imageLayoutVersion":"1.0.0"}`), Mode: 0o444})
	_, err := w.Write(Layer(files...))
	return err
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// BusyboxRootfs returns the tar of a root file system: Debian's busybox with
// links for its applets, and the files that programs expect in /etc.
func BusyboxRootfs() ([]byte, error) {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("install the Debian package busybox-static: %w", err)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	files := []File{
		{Name: "bin/"}, {Name: "dev/"}, {Name: "etc/"}, {Name: "home/"}, {Name: "proc/"}, {Name: "root/", Mode: 0o700}, {Name: "sys/"},
		{Name: "tmp/", Mode: 0o1777}, {Name: "usr/"}, {Name: "usr/bin/"}, {Name: "usr/sbin/"}, {Name: "var/"}, {Name: "var/spool/"}, {Name: "var/www/"},
		{Name: "usr/bin/env", Link: "../../bin/busybox"},
		{Name: "sbin", Link: "bin"},
		{Name: "etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Name: "etc/group", Data: []byte("root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:www-data\nnogroup:x:65534:\n")},
		{Name: "etc/shadow", Data: []byte("root:*:::::::\nnobody:*:::::::\n"), Mode: 0o600},
		{Name: "bin/busybox", Data: data, Mode: 0o755},
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name = path.Base(name); name != "busybox" {
			files = append(files, File{Name: "bin/" + name, Link: "busybox"})
		}
	}
	return Layer(files...), nil
}

// BusyboxImage is the busybox image called ref, to be packed or changed.
func BusyboxImage(ref string) (Image, error) {
	layer, err := BusyboxRootfs()
	if err != nil {
		return Image{}, err
	}
	i := Image{Ref: ref, Layers: [][]byte{layer}}
	i.Config.Config.Cmd = []string{"sh"}
	i.Config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return i, nil
}

// Busybox writes the busybox image called ref as a docker archive.
func Busybox(w io.Writer, ref string) error {
	i, err := BusyboxImage(ref)
	if err != nil {
		return err
	}
	return i.DockerArchive(w)
}

// ScratchImage is an image called ref that holds one program and runs it.
func ScratchImage(ref, name string, program []byte, args ...string) Image {
	i := Image{Ref: ref, Layers: [][]byte{Layer(File{Name: strings.TrimPrefix(name, "/"), Data: program, Mode: 0o755})}}
	i.Config.Config.Cmd = append([]string{path.Join("/", name)}, args...)
	return i
}
