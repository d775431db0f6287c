package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// entry is a file of an image.
type entry struct {
	kind     byte
	mode     int64
	uid, gid int
	link     string
	data     []byte
}

func (e entry) String() string {
	s := fmt.Sprintf("%04o %d:%d", e.mode&0o7777, e.uid, e.gid)
	switch e.kind {
	case tar.TypeDir:
		return "d " + s
	case tar.TypeSymlink:
		return "l " + e.link
	case tar.TypeFifo:
		return "p " + s
	case tar.TypeReg:
		if len(e.data) <= 120 && printable(e.data) {
			return fmt.Sprintf("f %s %q", s, e.data)
		}
		return fmt.Sprintf("f %s %d bytes %s", s, len(e.data), digest.FromBytes(e.data).Encoded()[:12])
	}
	return fmt.Sprintf("%c %s", e.kind, s)
}

func printable(b []byte) bool {
	for _, c := range b {
		if c != '\n' && c != '\t' && (c < 32 || c > 126) {
			return false
		}
	}
	return true
}

// picture describes an image from the archive that `docker save` makes: its
// configuration, its history, and how its tree differs from the base layer's.
func picture(archive io.Reader, base digest.Digest) (string, error) {
	files, err := readTar(archive)
	if err != nil {
		return "", err
	}
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &list); err != nil || len(list) != 1 {
		return "", fmt.Errorf("manifest.json: %w, %d images", err, len(list))
	}
	var img dockerspec.DockerOCIImage
	if err := json.Unmarshal(files[list[0].Config], &img); err != nil {
		return "", err
	}
	tree, under := map[string]entry{}, map[string]entry{}
	known := 0
	for i, name := range list[0].Layers {
		if err := apply(tree, files[name]); err != nil {
			return "", fmt.Errorf("layer %d: %w", i, err)
		}
		if i == 0 && img.RootFS.DiffIDs[0] == base {
			known, under = 1, maps.Clone(tree)
		}
	}
	var b strings.Builder
	writeConfig(&b, &img)
	for _, h := range img.History[min(known, len(img.History)):] {
		mark := "+"
		if h.EmptyLayer {
			mark = "-"
		}
		fmt.Fprintf(&b, "history %s %q\n", mark, h.CreatedBy)
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if now := tree[name].String(); now != under[name].String() {
			fmt.Fprintf(&b, "/%s %s\n", name, now)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(under)) {
		if _, ok := tree[name]; !ok {
			fmt.Fprintf(&b, "/%s is gone\n", name)
		}
	}
	return b.String(), nil
}

// writeConfig writes what is set, a line each.
func writeConfig(b *strings.Builder, img *dockerspec.DockerOCIImage) {
	put := func(key string, v any) {
		data, err := json.Marshal(v)
		if s := string(data); err == nil && s != "null" && s != `""` && s != "{}" && s != "[]" {
			fmt.Fprintf(b, "%s %s\n", key, s)
		}
	}
	c := img.Config
	if img.Architecture != "amd64" || img.OS != "linux" || img.Variant != "" {
		put("platform", path.Join(img.OS, img.Architecture, img.Variant))
	}
	put("author", img.Author)
	put("user", c.User)
	put("workdir", c.WorkingDir)
	put("entrypoint", c.Entrypoint)
	put("cmd", c.Cmd)
	for _, e := range c.Env {
		put("env", e)
	}
	put("expose", c.ExposedPorts)
	put("volumes", c.Volumes)
	put("labels", c.Labels)
	put("stopsignal", c.StopSignal)
	put("shell", c.Shell)
	put("onbuild", c.OnBuild)
	if c.Healthcheck != nil {
		put("health", c.Healthcheck)
	}
}

// readTar returns the files of a tar. Links in it lead to files before them.
func readTar(r io.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}

// apply puts a layer on a tree.
func apply(tree map[string]entry, layer []byte) error {
	var r io.Reader = bytes.NewReader(layer)
	if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		r = z
	}
	fresh := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		dir, file := path.Split(name)
		if file == ".wh..wh..opq" {
			drop(tree, dir, fresh)
			continue
		}
		if gone, ok := strings.CutPrefix(file, ".wh."); ok {
			delete(tree, dir+gone)
			drop(tree, dir+gone+"/", nil)
			continue
		}
		e := entry{kind: h.Typeflag, mode: h.Mode, uid: h.Uid, gid: h.Gid, link: h.Linkname}
		if e.data, err = io.ReadAll(tr); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			e = tree[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
		}
		if e.kind != tar.TypeDir {
			drop(tree, name+"/", nil)
		}
		if name != "" {
			tree[name] = e
			fresh[name] = true
		}
	}
}

// drop removes what is below a directory, but for what is fresh.
func drop(tree map[string]entry, below string, fresh map[string]bool) {
	for name := range tree {
		if strings.HasPrefix(name, below) && !fresh[name] {
			delete(tree, name)
		}
	}
}
