package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/testkit"
	"gantry/internal/wire"
)

// fixture is a store with its images in a directory of the test.
type fixture struct {
	*Images
	t    *testing.T
	root string
	uses map[string][]Use
	bus  *event.Bus
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	f := &fixture{t: t, root: t.TempDir(), uses: map[string][]Use{}, bus: event.New()}
	f.open()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	st, err := content.Open(f.t.Context(), content.Options{Root: f.root})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { st.Close() })
	f.Images = New(Options{Content: st, Events: f.bus, Uses: func(id string) []Use { return f.uses[id] }})
}

// small is an image that needs nothing of the host. Its layers differ by text.
func small(ref string, texts ...string) testkit.Image {
	i := testkit.Image{Ref: ref}
	for n, text := range texts {
		i.Layers = append(i.Layers, testkit.Layer(testkit.File{Name: "file" + string(rune('0'+n)), Data: []byte(text)}))
	}
	return i
}

// load loads i as a docker archive and returns its id.
func (f *fixture) load(i testkit.Image) string {
	f.t.Helper()
	var buf bytes.Buffer
	if err := i.DockerArchive(&buf); err != nil {
		f.t.Fatal(err)
	}
	f.loadBytes(buf.Bytes())
	img, err := f.Resolve(f.t.Context(), i.Ref, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return img.ID.String()
}

func (f *fixture) loadBytes(data []byte) (told []string) {
	f.t.Helper()
	err := f.Load(f.t.Context(), bytes.NewReader(data), LoadOptions{}, func(p wire.Progress) { told = append(told, p.Stream) })
	if err != nil {
		f.t.Fatal(err)
	}
	return told
}

func (f *fixture) names() []string {
	f.t.Helper()
	list, err := f.List(f.t.Context(), ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, strings.Join(i.RepoTags, ","))
	}
	slices.Sort(names)
	return names
}

func wantErr(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if !errs.Is(err, kind) || err.Error() != text {
		t.Errorf("got %v %q, want %v %q", errs.KindOf(err), err, kind, text)
	}
}

func TestLoadAndResolve(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i, err := testkit.BusyboxImage("busybox:latest")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := i.DockerArchive(&buf); err != nil {
		t.Fatal(err)
	}
	if told := f.loadBytes(buf.Bytes()); !slices.Equal(told, []string{"Loaded image: busybox:latest\n"}) {
		t.Errorf("told %q", told)
	}
	img, err := f.Resolve(ctx, "busybox", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Config.Config.Cmd) != 1 || img.Platform.OS != "linux" || len(img.Layers) != 1 || img.Target.Digest != img.ID || !slices.Equal(img.Names, []string{"busybox:latest"}) {
		t.Errorf("%+v", img)
	}
	dirs, err := f.Lower(ctx, img)
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%q, %v", dirs, err)
	}
	if _, err := os.Stat(dirs[0] + "/bin/busybox"); err != nil {
		t.Error(err)
	}

	id := img.ID.String()
	hex := img.ID.Encoded()
	for _, ref := range []string{"busybox:latest", "library/busybox", "docker.io/library/busybox:latest", id, hex, hex[:12], hex[:4], "sha256:" + hex[:12], "busybox@" + id, "busybox:latest@" + id} {
		got, err := f.Resolve(ctx, ref, nil)
		if err != nil || got.ID != img.ID {
			t.Errorf("%s: %v", ref, err)
		}
		if got, ok := f.Find(ctx, ref); !ok || got != id {
			t.Errorf("find %s: %s, %v", ref, got, ok)
		}
	}
	other := strings.Repeat("ab", 32)
	for ref, want := range map[string]struct {
		kind errs.Kind
		text string
	}{
		hex[:2]:                     {errs.NotFound, "No such image: " + hex[:2] + ":latest"},
		"busybox:nosuch":            {errs.NotFound, "No such image: busybox:nosuch"},
		"nosuch":                    {errs.NotFound, "No such image: nosuch:latest"},
		"nosuch@" + id:              {errs.NotFound, "No such image: nosuch@" + id},
		"sha256:" + other:           {errs.NotFound, "No such image: sha256:" + other},
		"busybox@sha256:" + other:   {errs.NotFound, "No such image: busybox@sha256:" + other},
		"Bad":                       {errs.Invalid, "invalid reference format: repository name (library/Bad) must be lowercase"},
		"a b":                       {errs.Invalid, "invalid reference format"},
		"gantry-dangling@" + id:     {errs.NotFound, "No such image: gantry-dangling@" + id},
		"reg.example.com:5000/x/y:": {errs.Invalid, "invalid reference format"},
	} {
		_, err := f.Resolve(ctx, ref, nil)
		wantErr(t, err, want.kind, want.text)
		if _, ok := f.Find(ctx, ref); ok {
			t.Errorf("%s was found", ref)
		}
	}
	p, err := ParsePlatform("linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Resolve(ctx, "busybox", p)
	wantErr(t, err, errs.NotFound, "image with reference busybox:latest was found but does not provide the specified platform (linux/arm64)")
	_, err = f.Inspect(ctx, "busybox", InspectOptions{Platform: p})
	wantErr(t, err, errs.NotFound, "image with reference busybox was found but does not provide the specified platform (linux/arm64)")
	_, err = ParsePlatform("bogus")
	wantErr(t, err, errs.Invalid, `"bogus": unknown operating system or architecture: invalid argument`)
}

// TestFormats loads one image in every form and expects one image.
func TestFormats(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i := small("app:1", "one", "two")
	var docker, oci bytes.Buffer
	if err := i.DockerArchive(&docker); err != nil {
		t.Fatal(err)
	}
	if err := i.OCILayout(&oci); err != nil {
		t.Fatal(err)
	}
	f.loadBytes(docker.Bytes())
	first, err := f.Resolve(ctx, "app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if told := f.loadBytes(oci.Bytes()); !slices.Equal(told, []string{"Loaded image: app:1\n"}) {
		t.Errorf("told %q", told)
	}
	second, err := f.Resolve(ctx, "app:1", nil)
	if err != nil || second.ChainID != first.ChainID || second.ID != first.ID {
		t.Errorf("%v and %v, %v", first.ID, second.ID, err)
	}
	var saved bytes.Buffer
	if err := f.Save(ctx, &saved, []string{"app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, pack := range []string{"cat", "gzip", "xz", "bzip2", "zstd"} {
		data, err := compress(pack, saved.Bytes())
		if err != nil {
			t.Log(pack, "is not on this machine")
			continue
		}
		f.loadBytes(data)
		third, err := f.Resolve(ctx, "app:1", nil)
		if err != nil || third.ID != first.ID || third.Manifest.Digest != first.Manifest.Digest {
			t.Errorf("%s: %v", pack, err)
		}
	}
	// By its id, it is saved without a name.
	var nameless bytes.Buffer
	if err := f.Save(ctx, &nameless, []string{first.ID.String()}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Remove(ctx, "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if told := f.loadBytes(nameless.Bytes()); !slices.Equal(told, []string{"Loaded image ID: " + first.ID.String() + "\n"}) {
		t.Errorf("told %q", told)
	}
	if got := f.names(); !slices.Equal(got, []string{""}) {
		t.Errorf("names %q", got)
	}
	// A name takes the place of the dangling record.
	if err := f.Tag(ctx, first.ID.String(), "again", ""); err != nil {
		t.Fatal(err)
	}
	if got := f.names(); !slices.Equal(got, []string{"again:latest"}) {
		t.Errorf("names %q", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	f := newFixture(t)
	for name, tc := range map[string]struct {
		data []byte
		text string
	}{
		"garbage": {[]byte("garbage"), "unexpected EOF"},
		"empty":   {nil, "unrecognized image format"},
		"no image": {testkit.Layer(testkit.File{Name: "a"}),
			"unrecognized image format"},
		"no such layer": {testkit.Layer(testkit.File{Name: "c.json", Data: []byte("{}")}, testkit.File{Name: "manifest.json", Data: []byte(`[{"Config":"c.json","Layers":["../x"]}]`)}),
			`archive has no "../x"`},
		"too few diff ids": {testkit.Layer(testkit.File{Name: "c.json", Data: []byte("{}")}, testkit.File{Name: "l", Data: []byte("l")}, testkit.File{Name: "manifest.json", Data: []byte(`[{"Config":"c.json","Layers":["l"]}]`)}),
			"image configuration names 0 layers, its manifest 1"},
		"bad name": {testkit.Layer(testkit.File{Name: "c.json", Data: []byte("{}")}, testkit.File{Name: "manifest.json", Data: []byte(`[{"Config":"c.json","RepoTags":["A B"]}]`)}),
			`image name "A B": invalid reference format: repository name (library/A B) must be lowercase`},
		"link loop": {testkit.Layer(testkit.File{Name: "a", Link: "b"}, testkit.File{Name: "b", Link: "a"}, testkit.File{Name: "manifest.json", Data: []byte(`[{"Config":"a"}]`)}),
			`archive has no "a"`},
	} {
		err := f.Load(t.Context(), bytes.NewReader(tc.data), LoadOptions{}, func(p wire.Progress) { t.Errorf("%s: told %q", name, p.Stream) })
		if !errs.Is(err, errs.Invalid) || err.Error() != tc.text {
			t.Errorf("%s: got %v, want %s", name, err, tc.text)
		}
	}
	if got := f.names(); len(got) != 0 {
		t.Errorf("names %q", got)
	}
	if n, err := f.stored(t.Context()); n != 0 || err != nil {
		t.Errorf("%d bytes stay, %v", n, err)
	}
}

func TestTag(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	a, b := f.load(small("a:1", "a")), f.load(small("b:1", "b"))
	for _, tc := range [][2]string{{"bb", "1"}, {"bb", ""}, {"bb:2", ""}, {"bb", "1"}, {"reg.example.com:5000/x/y", "z"}, {"bb:2", "3"}} {
		if err := f.Tag(ctx, "a:1", tc[0], tc[1]); err != nil {
			t.Errorf("%v: %v", tc, err)
		}
	}
	if got := f.names(); !slices.Equal(got, []string{"a:1,bb:1,bb:2,bb:3,bb:latest,reg.example.com:5000/x/y:z", "b:1"}) {
		t.Errorf("names %q", got)
	}
	hex := strings.TrimPrefix(a, "sha256:")
	for _, tc := range []struct{ ref, repo, tag, text string }{
		{"a:1", "BAD", "", "invalid reference format: repository name (library/BAD) must be lowercase"},
		{"a:1", "bb", "a b", "invalid tag format"},
		{"a:1", "bb@" + a, "", "cannot import digest reference"},
		{"a:1", hex, "", "invalid repository name (" + hex + "), cannot specify 64-byte hexadecimal strings"},
		{"a:1", "sha256", "x", "refusing to create an ambiguous tag using digest algorithm as name"},
	} {
		wantErr(t, f.Tag(ctx, tc.ref, tc.repo, tc.tag), errs.Invalid, tc.text)
	}
	wantErr(t, f.Tag(ctx, "nosuch", "x", "1"), errs.NotFound, "No such image: nosuch:latest")
	// The only name of b goes to a: b is dangling.
	if err := f.Tag(ctx, "a:1", "b", "1"); err != nil {
		t.Fatal(err)
	}
	i, err := f.Inspect(ctx, b, InspectOptions{})
	if err != nil || len(i.RepoTags) != 0 || len(i.RepoDigests) != 0 {
		t.Errorf("%+v, %v", i, err)
	}
}

func use(id string, running bool) []Use {
	return []Use{{ID: strings.Repeat(id, 64), Name: "c" + id, Running: running}}
}

func TestRemove(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	id := f.load(small("busybox:latest", "x"))
	hex12 := strings.TrimPrefix(id, "sha256:")[:12]
	remove := func(ref string, force bool, want ...wire.ImageDeleted) {
		t.Helper()
		got, err := f.Remove(ctx, ref, RemoveOptions{Force: force, Prune: true})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", ref, got, err, want)
		}
	}
	refuse := func(ref string, force bool, kind errs.Kind, text string) {
		t.Helper()
		_, err := f.Remove(ctx, ref, RemoveOptions{Force: force})
		wantErr(t, err, kind, text)
	}
	tag := func(ref, repo, tag string) {
		t.Helper()
		if err := f.Tag(ctx, ref, repo, tag); err != nil {
			t.Fatal(err)
		}
	}
	untagged := func(n string) wire.ImageDeleted { return wire.ImageDeleted{Untagged: n} }
	deleted := wire.ImageDeleted{Deleted: id}

	tag("busybox", "bb", "1")
	remove("bb:1", false, untagged("bb:1"))
	refuse("nosuch", false, errs.NotFound, "No such image: nosuch:latest")
	refuse("Bad", false, errs.Invalid, "invalid reference format: repository name (library/Bad) must be lowercase")
	tag("busybox", "bb", "1")
	refuse(id, false, errs.Conflict, "conflict: unable to delete "+hex12+" (must be forced) - image is referenced in multiple repositories")

	f.uses[id] = use("c", true)
	c12 := strings.Repeat("c", 12)
	remove("busybox", false, untagged("busybox:latest"))
	tag("bb:1", "busybox", "latest")
	remove("bb:1", false, untagged("bb:1"))
	inUse := "conflict: unable to delete busybox:latest (must be forced) - container " + c12 + " is using its referenced image " + hex12
	running := "conflict: unable to delete " + hex12 + " (cannot be forced) - image is being used by running container " + c12
	refuse("busybox", false, errs.Conflict, inUse)
	refuse(hex12, false, errs.Conflict, running)
	refuse(id, true, errs.Conflict, running)
	f.uses[id] = use("c", false)
	refuse("busybox", false, errs.Conflict, inUse)
	refuse(id, false, errs.Conflict, "conflict: unable to delete "+hex12+" (must be forced) - image is being used by stopped container "+c12)
	remove("busybox", true, untagged("busybox:latest"))
	if got := f.names(); !slices.Equal(got, []string{""}) {
		t.Errorf("names %q", got)
	}
	i, err := f.Resolve(ctx, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if dirs, err := f.Lower(ctx, i); err != nil || len(dirs) != 1 {
		t.Errorf("%q, %v", dirs, err)
	}
	delete(f.uses, id)
	remove(id, false, deleted)

	f.load(small("busybox:latest", "x"))
	remove("busybox", false, untagged("busybox:latest"), deleted)
	f.load(small("busybox:latest", "x"))
	tag("busybox", "x1", "1")
	remove(id, true, untagged("busybox:latest"), untagged("x1:1"), deleted)
	if n, err := f.stored(ctx); n != 0 || err != nil {
		t.Errorf("%d bytes stay, %v", n, err)
	}
}

// TestPinOutlivesNames removes an image under a container.
func TestPinOutlivesNames(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	id := f.load(small("a:1", "a", "b"))
	i, err := f.Resolve(ctx, "a:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Pin(ctx, "c1", id); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	dirs, err := f.Lower(ctx, i)
	if err != nil || len(dirs) != 2 {
		t.Fatalf("%q, %v", dirs, err)
	}
	for _, d := range dirs {
		if _, err := os.Stat(d); err != nil {
			t.Error(err)
		}
	}
	if err := f.Unpin(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.store.Collect(ctx), f.store.Settle(ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dirs[0]); err == nil {
		t.Error("an unpinned image stays")
	}
	if err := f.Pin(ctx, "c1", id); !errs.Is(err, errs.NotFound) {
		t.Errorf("pin of what is gone: %v", err)
	}
}

func TestEvents(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	start := time.Now().Add(-time.Second)
	id := f.load(small("busybox:latest", "x"))
	if err := f.Tag(ctx, "busybox", "bb", "1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(ctx, new(bytes.Buffer), []string{"busybox"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"bb:1", "busybox"} {
		if _, err := f.Remove(ctx, ref, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	past, sub := f.bus.Subscribe(start)
	sub.Close()
	var got []string
	for _, e := range past {
		if e.Actor.ID != id || e.Type != "image" || e.Scope != "local" {
			t.Errorf("%+v", e)
		}
		got = append(got, string(e.Action)+" "+e.Actor.Attributes["name"])
	}
	want := []string{"load " + id, "tag bb:1", "save " + id, "untag bb:1", "untag busybox:latest", "delete " + id}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestListAndPrune(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	old, recent := testkit.Stamp, testkit.Stamp.Add(48*time.Hour)
	one, two := small("one:1", "shared", "a"), small("two:1", "shared", "b")
	one.Config.Created, two.Config.Created = &old, &recent
	two.Config.Config.Labels = map[string]string{"l": "1"}
	id1, id2 := f.load(one), f.load(two)
	f.uses[id2] = use("c", false)
	list, err := f.List(ctx, ListOptions{SharedSize: true, Manifests: true})
	if err != nil || len(list) != 2 || list[0].ID != id2 || list[1].ID != id1 {
		t.Fatalf("%+v, %v", list, err)
	}
	s := list[0]
	if s.Containers != 1 || s.Labels["l"] != "1" || s.Created != recent.Unix() || !slices.Equal(s.RepoDigests, []string{"two@" + id2}) || s.SharedSize <= 0 || s.SharedSize >= s.Size || len(s.Manifests) != 1 {
		t.Errorf("%+v", s)
	}
	if m := s.Manifests[0]; m.Size.Total != s.Size || m.Size.Content+m.ImageData.Size.Unpacked != m.Size.Total || len(m.ImageData.Containers) != 1 {
		t.Errorf("%+v", m)
	}
	if list[1].Labels == nil || list[1].SharedSize != s.SharedSize || list[0].Descriptor == nil {
		t.Errorf("%+v", list[1])
	}
	if err := f.Tag(ctx, "one:1", "bb", "1"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		key, value, want string
	}{
		{"dangling", "true", ""}, {"dangling", "false", "bb:1,one:1 two:1"}, {"label", "l=1", "two:1"}, {"label", "l", "two:1"}, {"label!", "l", "bb:1,one:1"},
		{"reference", "bb", "bb:1"}, {"reference", "bb:1", "bb:1"}, {"reference", "o*", "one:1"}, {"reference", "*:1", "bb:1,one:1 two:1"},
		{"reference", "docker.io/library/one", "one:1"}, {"reference", "[", ""},
		{"before", "two:1", "bb:1,one:1"}, {"since", "one:1", "two:1"}, {"until", "24h", "bb:1,one:1 two:1"}, {"until", "2024-03-01", "bb:1,one:1"},
	} {
		list, err := f.List(ctx, ListOptions{Filters: filter.Args{tc.key: {tc.value: true}}})
		var got []string
		for _, i := range list {
			got = append(got, strings.Join(i.RepoTags, ","))
		}
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s=%s: got %q, %v; want %q", tc.key, tc.value, got, err, tc.want)
		}
	}
	for _, tc := range []struct {
		key, value string
		kind       errs.Kind
		text       string
	}{
		{"dangling", "x", errs.Invalid, "invalid filter 'dangling=[x]'"},
		{"before", "nosuch", errs.NotFound, "No such image: nosuch:latest"},
		{"until", "x", errs.Invalid, `invalid value for 'until' filter: failed to parse value as time or duration: invalid seconds "x": invalid syntax`},
	} {
		_, err := f.List(ctx, ListOptions{Filters: filter.Args{tc.key: {tc.value: true}}})
		wantErr(t, err, tc.kind, tc.text)
	}
	pruned, err := f.Prune(ctx, nil)
	if err != nil || pruned.ImagesDeleted != nil || pruned.SpaceReclaimed != 0 {
		t.Errorf("%+v, %v", pruned, err)
	}
	usage, err := f.Usage(ctx)
	if err != nil || usage.TotalCount != 2 || usage.ActiveCount != 1 || usage.TotalSize <= 0 || usage.Reclaimable >= usage.TotalSize {
		t.Errorf("%+v, %v", usage, err)
	}
	pruned, err = f.Prune(ctx, filter.Args{"dangling": {"false": true}})
	want := []wire.ImageDeleted{{Untagged: "bb:1"}, {Untagged: "one:1"}, {Deleted: id1}}
	if err != nil || !slices.Equal(pruned.ImagesDeleted, want) || pruned.SpaceReclaimed == 0 {
		t.Errorf("%+v, %v", pruned, err)
	}
	f.uses = map[string][]Use{}
	if _, err := f.Tag(ctx, "two:1", "two", "1"), error(nil); err != nil {
		t.Fatal(err)
	}
	f.load(small("two:1", "other"))
	pruned, err = f.Prune(ctx, nil)
	want = []wire.ImageDeleted{{Untagged: id2}, {Deleted: id2}}
	if err != nil || !slices.Equal(pruned.ImagesDeleted, want) {
		t.Errorf("%+v, %v", pruned, err)
	}
}

func TestInspectAndHistory(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i := small("a:1", "a", "b")
	i.Config.Author = "me"
	at := testkit.Stamp
	i.Config.History = []ocispec.History{{Created: &at, CreatedBy: "first"}, {Created: &at, CreatedBy: "ENV x", EmptyLayer: true}, {Created: &at, CreatedBy: "second", Comment: "done"}}
	id := f.load(i)
	got, err := f.Inspect(ctx, "a:1", InspectOptions{Manifests: true})
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != id || got.Author != "me" || got.Comment != "done" || got.Created != "2024-02-29T12:00:00Z" || len(got.RootFS.Layers) != 2 || got.RootFS.Type != "layers" ||
		len(got.Manifests) != 1 || got.Manifests[0].Size.Total != got.Size || time.Since(got.Metadata.LastTagTime) > time.Minute || got.Descriptor.Digest.String() != id || got.Os != "linux" {
		t.Errorf("%+v", got)
	}
	hist, err := f.History(ctx, id, nil)
	if err != nil || len(hist) != 3 {
		t.Fatalf("%+v, %v", hist, err)
	}
	if h := hist[0]; h.ID != id || h.CreatedBy != "second" || h.Size == 0 || !slices.Equal(h.Tags, []string{"a:1"}) || h.Created != at.Unix() {
		t.Errorf("%+v", h)
	}
	if h := hist[1]; h.ID != "<missing>" || h.Size != 0 || h.Tags != nil {
		t.Errorf("%+v", h)
	}
	for _, err := range []error{
		second(f.Inspect(ctx, "nosuch", InspectOptions{})), second(f.History(ctx, "nosuch", nil)),
		f.Save(ctx, new(bytes.Buffer), []string{"a:1", "nosuch"}, nil),
	} {
		wantErr(t, err, errs.NotFound, "No such image: nosuch:latest")
	}
}

func second[T any](_ T, err error) error { return err }

// TestReopenedStore finds the same images after a restart.
func TestReopenedStore(t *testing.T) {
	f := newFixture(t)
	id := f.load(small("a:1", "a"))
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	i, err := f.Resolve(context.WithoutCancel(t.Context()), "a:1", nil)
	if err != nil || i.ID.String() != id {
		t.Fatal(i, err)
	}
	if dirs, err := f.Lower(t.Context(), i); err != nil || len(dirs) != 1 {
		t.Errorf("%q, %v", dirs, err)
	}
}
