package remote_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/remote"
	"gantry/internal/testkit/registry"
	"gantry/internal/wire"
)

func TestPush(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	from := registry.New(t, registry.Options{})
	d := from.Put("a", "1", small("x"))
	h.mustPull(from.Host + "/a:1")
	tag := func(name, tag string) {
		t.Helper()
		if err := h.images.Tag(t.Context(), from.Host+"/a:1", name, tag); err != nil {
			t.Fatal(err)
		}
	}
	tag(r.Host+"/x/y", "1")
	out, err := h.push(r.Host+"/x/y:1", remote.PushOptions{})
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{"The push refers to repository [" + r.Host + "/x/y]\n", ": Waiting\n", ": Pushed\n", "1: digest: " + d.Digest.String() + " size: ", `{"Tag":"1","Digest":"` + d.Digest.String() + `","Size":`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, data, ok := r.Manifest("x/y", "1"); !ok {
		t.Error("the tag is not there")
	} else if _, same, _ := from.Manifest("a", "1"); string(data) != string(same) {
		t.Error("another manifest than was pulled")
	}
	if out, err := h.push(r.Host+"/x/y:1", remote.PushOptions{}); err != nil || strings.Count(out, "Layer already exists") != 2 {
		t.Error("again:", out, err)
	}
	// Another repository of the registry has them already.
	tag(r.Host+"/x/z", "1")
	r.Forget()
	if out, err = h.push(r.Host+"/x/z:1", remote.PushOptions{}); err != nil || strings.Count(out, "Mounted from x/y") != 2 {
		t.Error("mount:", out, err)
	}
	// Pulled by somebody else, it is the same.
	other := newHost(t)
	other.mustPull(r.Host + "/x/z:1")
	if got := other.file(r.Host+"/x/z:1", "text"); got != "x" {
		t.Errorf("text is %q", got)
	}
	tag(r.Host+"/many", "1")
	tag(r.Host+"/many", "2")
	if out, err := h.push(r.Host+"/many", remote.PushOptions{}); err != nil || strings.Count(out, ": digest: ") != 2 {
		t.Error("all tags:", out, err)
	}
}

func TestPushErrors(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	from := registry.New(t, registry.Options{})
	from.Put("a", "1", small("x"))
	h.mustPull(from.Host + "/a:1")
	_, err := h.push(r.Host+"/a:1", remote.PushOptions{})
	wantText(t, err, "tag does not exist: "+r.Host+"/a:1")
	_, err = h.push(r.Host+"/a", remote.PushOptions{})
	wantText(t, err, "An image does not exist locally with the tag: "+r.Host+"/a")
	if err := h.images.Tag(t.Context(), from.Host+"/a:1", r.Host+"/a", "1"); err != nil {
		t.Fatal(err)
	}
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("{\"errors\":[{\"code\":\"DENIED\",\"message\":\"requested access to \\u001b[31mthe resource is denied\"}]}"))
		return true
	}})
	_, err = h.push(r.Host+"/a:1", remote.PushOptions{})
	wantText(t, err, "denied: requested access to [31mthe resource is denied")
	if !errs.Is(err, errs.Denied) {
		t.Errorf("kind of %v", err)
	}
	// Some trouble on the way is overcome.
	var n atomic.Int32
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/blobs/") && n.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
		return false
	}})
	if out, err := h.push(r.Host+"/a:1", remote.PushOptions{}); err != nil {
		t.Error(err, out)
	}
}

func TestPushOfPlatforms(t *testing.T) {
	h, from, r := newHost(t), registry.New(t, registry.Options{}), registry.New(t, registry.Options{})
	var list []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		i := small(arch)
		i.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		list = append(list, from.Put("m", "", i))
	}
	x := from.PutIndex("m", "1", list...)
	pull := func(arch string) {
		t.Helper()
		if _, err := h.pullCtx(t.Context(), from.Host+"/m:1", remote.PullOptions{Platform: list[map[string]int{"amd64": 0, "arm64": 1}[arch]].Platform}); err != nil {
			t.Fatal(err)
		}
		if err := h.images.Tag(t.Context(), from.Host+"/m:1", r.Host+"/m", "1"); err != nil {
			t.Fatal(err)
		}
	}
	pull("arm64")
	out, err := h.push(r.Host+"/m:1", remote.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var instead wire.PushedInstead
	for line := range strings.Lines(out) {
		if strings.Contains(line, "manifestPushedInsteadOfIndex") {
			if err := json.Unmarshal([]byte(line), &instead); err != nil {
				t.Fatal(err)
			}
		}
	}
	if instead.OriginalIndex.Digest != x.Digest || instead.SelectedManifest.Digest != list[1].Digest {
		t.Errorf("%+v in\n%s", instead, out)
	}
	if _, _, ok := r.Manifest("m", list[1].Digest.String()); !ok {
		t.Error("the manifest is not there")
	}
	pull("amd64")
	if out, err = h.push(r.Host+"/m:1", remote.PushOptions{}); err != nil || !strings.Contains(out, "1: digest: "+x.Digest.String()) {
		t.Error("whole:", out, err)
	}
	if out, err = h.push(r.Host+"/m:1", remote.PushOptions{Platform: list[0].Platform}); err != nil || !strings.Contains(out, "1: digest: "+list[0].Digest.String()) {
		t.Error("one platform:", out, err)
	}
	_, err = h.push(r.Host+"/m:1", remote.PushOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	wantText(t, err, "was found but does not provide the specified platform (linux/s390x)")
}
