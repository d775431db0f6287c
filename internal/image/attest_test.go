package image

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/testkit"
	"gantry/internal/wire"
)

// TestAttestations: what tells of an image comes and goes with it.
func TestAttestations(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	var list []ocispec.Descriptor
	var blobs [][]byte
	put := func(m ocispec.Manifest, p *ocispec.Platform) ocispec.Descriptor {
		m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		d := describe(m.MediaType, data)
		d.Platform = p
		blobs = append(blobs, data)
		return d
	}
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		blobs = append(blobs, data)
		return describe(mediaType, data)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		layer := testkit.Layer(testkit.File{Name: "arch", Data: []byte(arch)})
		l := blob(ocispec.MediaTypeImageLayer, layer)
		config, err := json.Marshal(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}}})
		if err != nil {
			t.Fatal(err)
		}
		m := put(ocispec.Manifest{Config: blob(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{l}}, &ocispec.Platform{OS: "linux", Architecture: arch})
		statement := blob(statementType, []byte(`{"of":"`+arch+`"}`))
		statement.Annotations = map[string]string{predicateAnnotation: "https://spdx.dev/Document"}
		a := put(ocispec.Manifest{Config: blob(ocispec.MediaTypeImageConfig, []byte(`{"attests":"`+arch+`"}`)), Layers: []ocispec.Descriptor{statement}}, &ocispec.Platform{OS: "unknown", Architecture: "unknown"})
		a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", attestedAnnotation: m.Digest.String()}
		list = append(list, m, a)
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
	if err != nil {
		t.Fatal(err)
	}
	top := describe(ocispec.MediaTypeImageIndex, index)
	top.Annotations = map[string]string{nameAnnotation: "docker.io/library/told:1"}
	f.loadBytes(layout(top, append(blobs, index)...))
	told := func(ref, arch string) string {
		t.Helper()
		p, err := ParsePlatform("linux/" + arch)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Attestations(ctx, ref, AttestationOptions{Platform: p, Statement: true, Types: []string{"https://spdx.dev/Document"}})
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %v, %v", arch, got, err)
		}
		return string(*got[0].Statement)
	}
	// It is still there after what held it has ended.
	if got := told("told:1", "amd64") + told("told:1", "arm64"); got != `{"of":"amd64"}{"of":"arm64"}` {
		t.Errorf("statements %s", got)
	}
	if got, err := f.Attestations(ctx, "told:1", AttestationOptions{Types: []string{"other"}}); err != nil || len(got) != 0 {
		t.Errorf("of another type: %v, %v", got, err)
	}
	kinds := func(ref string) (s string) {
		t.Helper()
		i, err := f.Inspect(ctx, ref, InspectOptions{Manifests: true})
		if err != nil {
			t.Fatal(err)
		}
		for n, m := range i.Manifests {
			s += string(m.Kind)
			if m.Kind == wire.AttestationManifestKind && m.AttestationData.For != i.Manifests[n-1].Descriptor.Digest {
				t.Errorf("tells of %s", m.AttestationData.For)
			}
			if m.Available {
				s += "+"
			}
			s += " "
		}
		return s
	}
	if got := kinds("told:1"); got != "image+ attestation+ image+ attestation+ " {
		t.Errorf("manifests: %s", got)
	}

	// A platform is saved with what tells of it alone.
	amd, _ := ParsePlatform("linux/amd64")
	var all, one bytes.Buffer
	if err := f.Save(ctx, &all, []string{"told:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(ctx, &one, []string{"told:1"}, []ocispec.Platform{*amd}); err != nil {
		t.Fatal(err)
	}
	remove := func(o RemoveOptions) {
		t.Helper()
		if _, err := f.Remove(ctx, "told:1", o); err != nil {
			t.Fatal(err)
		}
	}
	empty := func() {
		t.Helper()
		if n, err := f.stored(ctx); n != 0 || err != nil {
			t.Errorf("%d bytes stay, %v", n, err)
		}
	}
	check, err := NewTools(f.Images).Verify(ctx, VerifyOptions{})
	if err != nil || check.Blobs != len(blobs)+1 || len(check.Faults) != 0 {
		t.Errorf("verified: %+v, %v; there are %d blobs", check, err, len(blobs)+1)
	}
	remove(RemoveOptions{})
	empty()
	f.loadBytes(one.Bytes())
	if got := kinds("told:1"); got != "image+ attestation+ image attestation " {
		t.Errorf("manifests of one platform: %s", got)
	}
	remove(RemoveOptions{})
	f.loadBytes(all.Bytes())
	if got := told("told:1", "arm64"); got != `{"of":"arm64"}` {
		t.Errorf("loaded again: %s", got)
	}
	arm, _ := ParsePlatform("linux/arm64")
	remove(RemoveOptions{Only: []ocispec.Platform{*arm}})
	if got := kinds("told:1"); got != "image+ attestation+ image attestation " {
		t.Errorf("manifests after one is removed: %s", got)
	}
	if _, err := f.Attestations(ctx, "told:1", AttestationOptions{Platform: arm}); !errs.Is(err, errs.NotFound) {
		t.Errorf("of a platform that is gone: %v", err)
	}
	remove(RemoveOptions{})
	empty()
}
