package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/testkit"
	"gantry/internal/wire"
)

func (f *fixture) importTar(data []byte, o ImportOptions) (string, error) {
	var id string
	err := f.Import(f.t.Context(), bytes.NewReader(data), o, func(p wire.Progress) { id = p.Status })
	return id, err
}

func TestImport(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	data := testkit.Layer(testkit.File{Name: "etc/"}, testkit.File{Name: "etc/f", Data: []byte("text")})
	for _, pack := range []string{"cat", "gzip", "zstd", "xz", "bzip2"} {
		packed, err := compress(pack, data)
		if err != nil {
			t.Log(pack, "is not on this machine")
			continue
		}
		id, err := f.importTar(packed, ImportOptions{Repo: "imp", Tag: pack, Message: "msg", Changes: []string{`CMD ["x"]`}})
		if err != nil {
			t.Errorf("%s: %v", pack, err)
			continue
		}
		i, err := f.Inspect(ctx, "imp:"+pack, InspectOptions{})
		if err != nil || i.ID != id || i.Comment != "msg" || !slices.Equal(i.Config.Cmd, []string{"x"}) || i.Os != "linux" ||
			!slices.Equal(i.RootFS.Layers, []string{digest.FromBytes(data).String()}) {
			t.Errorf("%s: %+v, %v", pack, i, err)
		}
		img, err := f.Resolve(ctx, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		dirs, err := f.Lower(ctx, img)
		if err != nil || len(dirs) != 1 {
			t.Fatal(dirs, err)
		}
		if got, err := os.ReadFile(dirs[0] + "/etc/f"); string(got) != "text" {
			t.Errorf("%s: %q, %v", pack, got, err)
		}
	}
	id, err := f.importTar(data, ImportOptions{Platform: "linux/arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if i, err := f.Inspect(ctx, id, InspectOptions{}); err != nil || len(i.RepoTags) != 0 || i.Architecture != "arm64" || i.Variant != "" && i.Variant != "v8" {
		t.Errorf("%+v, %v", i, err)
	}
	for _, tc := range []struct {
		o    ImportOptions
		text string
	}{
		{ImportOptions{Repo: "BAD"}, "invalid reference format: repository name (library/BAD) must be lowercase"},
		{ImportOptions{Repo: "imp2", Changes: []string{"BOGUS"}}, "BOGUS is not a valid change command"},
		{ImportOptions{Platform: "bogus"}, `"bogus": unknown operating system or architecture: invalid argument`},
	} {
		_, err := f.importTar(data, tc.o)
		wantErr(t, err, errs.Invalid, tc.text)
	}
	_, err = f.importTar([]byte("garbage"), ImportOptions{Repo: "imp3"})
	if !errs.Is(err, errs.Invalid) || !strings.HasPrefix(err.Error(), "failed to unpack image: ") || !strings.HasSuffix(err.Error(), "unexpected EOF") {
		t.Errorf("garbage: %v", err)
	}
	if _, ok := f.Find(ctx, "imp3"); ok {
		t.Error("a failed import has a name")
	}
}

// TestSaveIsReproducible also looks at the form that clients see.
func TestSaveIsReproducible(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	f.load(small("a:1", "one", "two"))
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := f.Save(ctx, w, []string{"a:1", "docker.io/library/a:1"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same image differ")
	}
	var names []string
	var docker []dockerEntry
	tr := tar.NewReader(&first)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := h.Name
		if strings.HasPrefix(name, "blobs/sha256/") && h.Typeflag == tar.TypeReg {
			name = "blob"
		}
		names = append(names, name)
		if name == "manifest.json" {
			if err := json.NewDecoder(tr).Decode(&docker); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []string{"blobs/", "blobs/sha256/", "blob", "blob", "blob", "blob", "index.json", "manifest.json", "oci-layout"}; !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	if len(docker) != 1 || !slices.Equal(docker[0].RepoTags, []string{"a:1", "a:1"}) || len(docker[0].Layers) != 2 {
		t.Errorf("%+v", docker)
	}
	var empty bytes.Buffer
	if err := f.Save(ctx, &empty, nil, nil); err != nil || empty.Len() != 3072 {
		t.Errorf("nothing saved: %d bytes, %v", empty.Len(), err)
	}
}

// layout packs blobs and an index into an OCI layout.
func layout(top ocispec.Descriptor, blobs ...[]byte) []byte {
	var files []testkit.File
	for _, b := range blobs {
		files = append(files, testkit.File{Name: "blobs/sha256/" + digest.FromBytes(b).Encoded(), Data: b})
	}
	index, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}})
	files = append(files, testkit.File{Name: "index.json", Data: index}, testkit.File{Name: "oci-layout", Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	return testkit.Layer(files...)
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// TestAmbiguousManifests is row S16: a digest means one thing.
func TestAmbiguousManifests(t *testing.T) {
	f := newFixture(t)
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	conf, _ := json.Marshal(describe(ocispec.MediaTypeImageConfig, config))
	const manifest, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	for name, tc := range map[string]struct{ mediaType, body string }{
		"both":                {manifest, `{"schemaVersion":2,"config":` + string(conf) + `,"layers":[],"manifests":[]}`},
		"both, as an index":   {index, `{"schemaVersion":2,"config":` + string(conf) + `,"layers":[],"manifests":[]}`},
		"other type":          {manifest, `{"schemaVersion":2,"mediaType":"` + index + `","config":` + string(conf) + `,"layers":[]}`},
		"other type of index": {index, `{"schemaVersion":2,"mediaType":"` + manifest + `","manifests":[]}`},
		"schema 1":            {manifest, `{"schemaVersion":1,"fsLayers":[]}`},
		"no config":           {manifest, `{"schemaVersion":2,"layers":[]}`},
		"artifact":            {manifest, `{"schemaVersion":2,"config":` + strings.Replace(string(conf), ocispec.MediaTypeImageConfig, "application/vnd.oci.empty.v1+json", 1) + `,"layers":[]}`},
		"negative size":       {manifest, `{"schemaVersion":2,"config":` + string(conf) + `,"layers":[{"digest":"` + digest.FromString("x").String() + `","size":-1}]}`},
		"bad digest":          {manifest, `{"schemaVersion":2,"config":` + string(conf) + `,"layers":[{"digest":"sha256:../../x"}]}`},
		"unknown type":        {"text/plain", `{}`},
		"no json":             {manifest, `x`},
	} {
		data := layout(describe(tc.mediaType, []byte(tc.body)), config, []byte(tc.body))
		err := f.Load(t.Context(), bytes.NewReader(data), LoadOptions{}, func(wire.Progress) { t.Errorf("%s: loaded", name) })
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A blob that is not what its name says.
	bad := testkit.Layer(testkit.File{Name: "blobs/sha256/" + digest.FromString("a").Encoded(), Data: []byte("b")})
	if err := f.Load(t.Context(), bytes.NewReader(bad), LoadOptions{}, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("wrong blob: %v", err)
	}
	// An index that leads to itself can't be made; one that leads to very
	// many can.
	body := []byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat(string(conf)+",", maxManifests) + string(conf) + `]}`)
	if err := f.Load(t.Context(), bytes.NewReader(layout(describe(index, body), body)), LoadOptions{}, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("large index: %v", err)
	}
	good := []byte(`{"schemaVersion":2,"config":` + string(conf) + `,"layers":[]}`)
	if told := f.loadBytes(layout(describe(manifest, good), config, good)); len(told) != 1 {
		t.Errorf("told %q", told)
	}
}

// TestSeveralPlatforms loads an index of two platforms, with an attestation.
func TestSeveralPlatforms(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	var blobs [][]byte
	var list []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		layer := testkit.Layer(testkit.File{Name: "arch", Data: []byte(arch)})
		config := []byte(`{"os":"linux","architecture":"` + arch + `","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layer).String() + `"]}}`)
		m, _ := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: describe(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{describe(ocispec.MediaTypeImageLayer, layer)}})
		d := describe(ocispec.MediaTypeImageManifest, m)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		list, blobs = append(list, d), append(blobs, layer, config, m)
	}
	missing := describe(ocispec.MediaTypeImageManifest, []byte("not here"))
	missing.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	attested := describe(ocispec.MediaTypeImageManifest, []byte("nor this"))
	attested.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append(list, missing, attested)})
	top := describe(ocispec.MediaTypeImageIndex, index)
	top.Annotations = map[string]string{nameAnnotation: "docker.io/library/multi:1"}
	f.loadBytes(layout(top, append(blobs, index)...))
	for _, arch := range []string{"amd64", "arm64"} {
		p, _ := ParsePlatform("linux/" + arch)
		i, err := f.Resolve(ctx, "multi:1", p)
		if err != nil || i.Platform.Architecture != arch || i.ID != top.Digest {
			t.Fatalf("%s: %+v, %v", arch, i, err)
		}
		dirs, err := f.Lower(ctx, i) // the foreign one is unpacked now
		if err != nil || len(dirs) != 1 {
			t.Fatal(dirs, err)
		}
		if got, err := os.ReadFile(dirs[0] + "/arch"); string(got) != arch {
			t.Errorf("%q, %v", got, err)
		}
	}
	p, _ := ParsePlatform("linux/s390x")
	_, err := f.Resolve(ctx, "multi:1", p)
	wantErr(t, err, errs.NotFound, "image with reference multi:1 was found but does not provide the specified platform (linux/s390x)")
	var saved bytes.Buffer
	if err := f.Save(ctx, &saved, []string{"multi:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Remove(ctx, "multi:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := f.stored(ctx); n != 0 || err != nil {
		t.Errorf("%d bytes stay, %v", n, err)
	}
	f.loadBytes(saved.Bytes())
	list2, err := f.List(ctx, ListOptions{Manifests: true})
	if err != nil || len(list2) != 1 || len(list2[0].Manifests) != 4 || list2[0].ID != top.Digest.String() {
		t.Errorf("%+v, %v", list2, err)
	}
}

// TestManyAtOnce loads, tags and removes the same things at the same time.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t)
	var archives [][]byte
	for _, i := range []testkit.Image{small("a:1", "shared", "a"), small("b:1", "shared", "b")} {
		var buf bytes.Buffer
		if err := i.DockerArchive(&buf); err != nil {
			t.Fatal(err)
		}
		archives = append(archives, buf.Bytes())
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for range 5 {
				if err := f.Load(t.Context(), bytes.NewReader(archives[n%2]), LoadOptions{}, func(wire.Progress) {}); err != nil {
					t.Error("load:", err)
				}
				name := []string{"a:1", "b:1"}[n%2]
				if n > 1 {
					if _, err := f.Remove(t.Context(), name, RemoveOptions{}); err != nil && !errs.Is(err, errs.NotFound) {
						t.Error("remove:", err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, a := range archives {
		f.loadBytes(a)
	}
	for _, name := range []string{"a:1", "b:1"} {
		i, err := f.Resolve(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		dirs, err := f.Lower(t.Context(), i)
		if err != nil || len(dirs) != 2 {
			t.Fatal(dirs, err)
		}
		for n, d := range dirs {
			if _, err := os.Stat(filepath.Join(d, []string{"file1", "file0"}[n])); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestOthersCanNotRead is row S22: nothing of the store opens for others.
func TestOthersCanNotRead(t *testing.T) {
	f := newFixture(t)
	f.load(small("a:1", "a"))
	if err := os.Chmod(filepath.Dir(f.root), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"content", "snapshots"} {
		err := filepath.WalkDir(filepath.Join(f.root, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if p == filepath.Join(f.root, dir) {
				if fi.Mode().Perm()&0o077 != 0 || fi.Sys().(*syscall.Stat_t).Uid != 0 {
					t.Errorf("%s: %v", p, fi.Mode())
				}
			} else if strings.HasSuffix(p, ".db") && fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v", p, fi.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
