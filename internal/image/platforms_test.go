package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/filter"
)

// multi makes app:1 of an image for this machine and one for another.
func multi(f *fixture) (here, other ocispec.Descriptor) {
	f.t.Helper()
	ctx := f.t.Context()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	one, two := small("here:1", "here"), small("other:1", "other")
	two.Config.Architecture = "s390x"
	f.load(one)
	f.load(two)
	for _, ref := range []string{"here:1", "other:1"} {
		i, err := f.Resolve(ctx, ref, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		m := i.Manifest
		m.Platform = &i.Platform
		index.Manifests = append(index.Manifests, m)
	}
	data, err := json.Marshal(index)
	if err != nil {
		f.t.Fatal(err)
	}
	held, release, err := f.store.Hold(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	defer release()
	d, err := f.store.Write(held, bytes.NewReader(data), "")
	d.MediaType = index.MediaType
	if err = errors.Join(err, f.complete(held, d, nil)); err != nil {
		f.t.Fatal(err)
	}
	if err := f.setName(held, "docker.io/library/app:1", d); err != nil {
		f.t.Fatal(err)
	}
	return index.Manifests[0], index.Manifests[1]
}

func TestRemovePlatforms(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	here, other := multi(f)
	s390x, err := ParsePlatform("linux/s390x")
	if err != nil {
		t.Fatal(err)
	}
	only := RemoveOptions{Only: []ocispec.Platform{*s390x}}
	_, err = f.Remove(ctx, "app:1", only)
	wantErr(t, err, errs.Conflict, "conflict: unable to delete app:1 (cannot be forced) - image other:1 has the same for this platform")
	for _, ref := range []string{"here:1", "other:1"} {
		if _, err := f.Remove(ctx, ref, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	i, err := f.Resolve(ctx, "app:1", s390x)
	if err != nil || i.Manifest.Digest != other.Digest {
		t.Fatal(i, err)
	}
	f.uses[i.ID.String()] = []Use{{ID: "0123456789abcdef", Running: true}}
	if _, err := f.Remove(ctx, "app:1", only); !errs.Is(err, errs.Conflict) {
		t.Errorf("a used image loses a platform: %v", err)
	}
	clear(f.uses)
	before, _ := f.stored(ctx)
	done, err := f.Remove(ctx, "app:1", only)
	if err != nil || len(done) != 1 || done[0].Deleted != other.Digest.String() {
		t.Fatalf("%+v %v", done, err)
	}
	if after, _ := f.stored(ctx); after >= before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	_, err = f.Resolve(ctx, "app:1", s390x)
	wantErr(t, err, errs.NotFound, "image with reference app:1 was found but does not provide the specified platform (linux/s390x)")
	_, err = f.Remove(ctx, "app:1", only)
	wantErr(t, err, errs.NotFound, "image with reference app:1 was found but does not provide the specified platform (linux/s390x)")
	if i, err := f.Resolve(ctx, "app:1", nil); err != nil || i.Manifest.Digest != here.Digest {
		t.Errorf("%v %v", i, err)
	} else if _, err := f.Lower(ctx, i); err != nil {
		t.Error(err)
	}
	// With the last platform goes the image.
	done, err = f.Remove(ctx, "app:1", RemoveOptions{Only: []ocispec.Platform{host()}})
	if err != nil || len(done) != 2 || done[0].Untagged != "app:1" {
		t.Errorf("%+v %v", done, err)
	}
	if n, err := f.stored(ctx); n != 0 || err != nil {
		t.Errorf("%d bytes stay, %v", n, err)
	}
}

func TestPinAndEvict(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	id := f.load(small("app:1", "one"))
	if err := f.PinName(ctx, "app:1"); err != nil {
		t.Fatal(err)
	}
	labelled := small("by:label", "two")
	labelled.Config.Config.Labels = map[string]string{"gantry.pin": "true"}
	f.load(labelled)
	free := f.load(small("free:1", "three"))
	list, err := f.Holdings(ctx)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	var sum int64
	for _, h := range list {
		if h.Pinned != (h.ID != free) || h.Used || h.Added.IsZero() {
			t.Errorf("%+v", h)
		}
		for _, n := range h.Pieces {
			sum += n
		}
	}
	if n, err := f.Occupied(ctx); err != nil || n != sum {
		t.Errorf("pieces have %d bytes, the stores %d, %v", sum, n, err)
	}
	if _, err := f.Evict(ctx, id); !errs.Is(err, errs.Conflict) {
		t.Errorf("a pinned image went: %v", err)
	}
	if r, err := f.Prune(ctx, filter.Args{}.With("dangling", "false")); err != nil || len(r.ImagesDeleted) != 2 || r.ImagesDeleted[0].Untagged != "free:1" {
		t.Errorf("%+v %v", r, err)
	}
	// The pin is the name's: another image that gets it is pinned too.
	id = f.load(small("app:1", "four"))
	if _, err := f.Evict(ctx, id); !errs.Is(err, errs.Conflict) {
		t.Errorf("a pinned name went: %v", err)
	}
	if err := f.UnpinName(ctx, "app:1"); err != nil {
		t.Fatal(err)
	}
	f.uses[id] = []Use{{ID: "c"}}
	if _, err := f.Evict(ctx, id); !errs.Is(err, errs.Conflict) {
		t.Errorf("a used image went: %v", err)
	}
	clear(f.uses)
	if done, err := f.Evict(ctx, id); err != nil || len(done) != 2 {
		t.Errorf("%+v %v", done, err)
	}
}
