package solve

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gantry/internal/cli/buildx/grammar"
)

func hostAddress() (string, error) { return "192.0.2.1", nil }

func TestAttributes(t *testing.T) {
	base := map[string]string{"image-resolve-mode": "local", "attest:provenance": "mode=min,inline-only=true"}
	for name, c := range map[string]struct {
		r    Request
		env  Env
		want map[string]string // over base; "-" takes away
	}{
		"nothing": {},
		"names":   {r: Request{Target: "t", CgroupParent: "/c", ShmSize: 64 << 20, Ulimits: []string{"nofile=1:2", "core=0:0"}, Pull: true}, want: map[string]string{"target": "t", "cgroup-parent": "/c", "shm-size": "67108864", "ulimit": "nofile=1:2,core=0:0", "image-resolve-mode": "pull"}},
		"args":    {r: Request{Args: map[string]string{"A": "b", "Http_Proxy": "mine"}, Labels: map[string]string{"l": "m"}}, env: Env{Proxy: map[string]string{"HTTP_PROXY": "p", "NO_PROXY": "n"}}, want: map[string]string{"build-arg:A": "b", "build-arg:Http_Proxy": "mine", "build-arg:NO_PROXY": "n", "label:l": "m"}},
		"epoch":   {env: Env{Lookup: func(k string) (string, bool) { return "7", k == "SOURCE_DATE_EPOCH" }}, want: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "7"}},
		"cache":   {r: Request{NoCache: true}, want: map[string]string{"no-cache": ""}},
		"stages":  {r: Request{NoCacheFilter: []string{"a", "b"}}, want: map[string]string{"no-cache": "a,b"}},
		"network": {r: Request{Network: "none", Hosts: []string{"h:host-gateway"}}, want: map[string]string{"force-network-mode": "none", "add-hosts": "h=192.0.2.1"}},
		"places":  {r: Request{Platforms: []string{"linux/amd64,linux/arm/v7", "arm64"}}, want: map[string]string{"platform": "linux/amd64,linux/arm/v7,linux/arm64"}},
		"attests": {r: Request{Attests: []string{"type=sbom,generator=x", "type=provenance,disabled=true"}}, want: map[string]string{"attest:sbom": "generator=x", "attest:provenance": "-"}},
		"none":    {env: Env{Lookup: func(k string) (string, bool) { return "1", k == "BUILDX_NO_DEFAULT_ATTESTATIONS" }}, want: map[string]string{"attest:provenance": "-"}},
		"syntax":  {r: Request{Args: map[string]string{"BUILDKIT_SYNTAX": "a/b:1 x"}}, want: map[string]string{"build-arg:BUILDKIT_SYNTAX": "a/b:1 x", "source": "a/b:1", "cmdline": "a/b:1 x"}},
		"call":    {r: Request{Call: grammar.Call{Name: "lint"}}, want: map[string]string{"attest:provenance": "-"}},
	} {
		want := maps.Clone(base)
		for k, v := range c.want {
			if want[k] = v; v == "-" {
				delete(want, k)
			}
		}
		if got, err := Attributes(c.r, c.env, hostAddress); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v %v, not %v", name, got, err, want)
		}
	}
	for _, r := range []Request{{NoCache: true, NoCacheFilter: []string{"a"}}, {Network: "mine"}, {Hosts: []string{"x"}}, {Platforms: []string{"a/b/c/d/e"}}, {Attests: []string{"x"}}, {Args: map[string]string{"BUILDKIT_SYNTAX": " "}}} {
		if _, err := Attributes(r, Env{}, hostAddress); err == nil {
			t.Errorf("%+v is refused", r)
		}
	}
}

func TestPlan(t *testing.T) {
	out := func(s string) grammar.Entry {
		e, err := grammar.Output(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, c := range map[string]struct {
		r    Request
		want []string
	}{
		"an image":     {Request{Tags: []string{"a", "b/c:2"}}, []string{`type=moby,"name=docker.io/library/a:latest,docker.io/b/c:2",prefer-image-digest=true`}},
		"a directory":  {Request{Outputs: []grammar.Entry{out("d")}, Tags: []string{"a"}}, []string{"type=local,dest=d"}},
		"pushed":       {Request{Push: true, Tags: []string{"r/x"}}, []string{"type=moby,name=docker.io/r/x:latest,prefer-image-digest=true,push=true,unpack=false"}},
		"registry":     {Request{Outputs: []grammar.Entry{out("type=registry,name=r/x")}}, []string{"type=moby,name=r/x,prefer-image-digest=true,push=true,unpack=false"}},
		"loaded":       {Request{Load: true, Outputs: []grammar.Entry{out("type=cacheonly")}}, []string{"type=moby,prefer-image-digest=true"}},
		"a docker tar": {Request{Outputs: []grammar.Entry{out("type=docker,dest=x.tar")}, Tags: []string{"a:1"}}, []string{"type=docker,dest=x.tar,name=docker.io/library/a:1"}},
		"annotated":    {Request{Annotations: []string{"index:k=v"}, Outputs: []grammar.Entry{out("type=oci,dest=x")}}, []string{"type=oci,annotation-index.k=v,dest=x"}},
		"a call":       {Request{Call: grammar.Call{Name: "lint"}}, nil},
	} {
		list, err := Plan(c.r)
		var got []string
		for _, e := range list {
			got = append(got, e.String())
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q %v, not %q", name, got, err, c.want)
		}
	}
	for want, r := range map[string]Request{"tag is needed": {Push: true}, "invalid tag": {Tags: []string{"A B"}}, "digest reference": {Tags: []string{"a@sha256:" + strings.Repeat("0", 64)}}} {
		if _, err := Plan(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestFilesOutsideOfAContextAreNotOpened(t *testing.T) {
	dir := t.TempDir()
	ctx := filepath.Join(dir, "ctx")
	err := errors.Join(os.MkdirAll(filepath.Join(ctx, "d"), 0o755), os.WriteFile(filepath.Join(dir, "secret"), []byte("s"), 0o600), os.WriteFile(filepath.Join(ctx, "d", "f"), []byte("inside"), 0o644),
		os.Symlink("../secret", filepath.Join(ctx, "out")), os.Symlink("..", filepath.Join(ctx, "up")), os.Symlink("d", filepath.Join(ctx, "in")))
	if err != nil {
		t.Fatal(err)
	}
	w := &seen{sent: map[string]int{}}
	f, end, err := openDir(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for _, p := range []string{"out", "up/secret", "../secret", "d/../../secret"} {
		if r, err := f.Open(p); err == nil {
			r.Close()
			t.Errorf("%s is opened", p)
		}
	}
	for _, p := range []string{"d/f", "in/f"} {
		r, err := f.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "inside" || r.Close() != nil {
			t.Error(p, string(b), err)
		}
	}
	if err := f.Walk(t.Context(), "", func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(w.seen)
	if !reflect.DeepEqual(w.seen, []string{"d/f", "in", "out", "up"}) || w.sent["d/f"] != 6 {
		t.Error(w.seen, w.sent)
	}
}

// seen is a watcher that keeps a list.
type seen struct {
	seen []string
	sent map[string]int
}

func (s *seen) Seen(p string, _ fs.FileInfo) { s.seen = append(s.seen, p) }

func (s *seen) Sent(p string) io.WriteCloser { return counter{s, p} }

type counter struct {
	s *seen
	p string
}

func (c counter) Write(b []byte) (int, error) { c.s.sent[c.p] += len(b); return len(b), nil }
func (c counter) Close() error                { return nil }

func TestOutputsThatWouldDelete(t *testing.T) {
	t.Chdir(t.TempDir())
	e := grammar.Entry{Type: "local", Attrs: map[string]string{"mode": "delete"}}
	if err := errors.Join(checkDelete(e, "sub", false), checkDelete(e, "/", true), checkDelete(grammar.Entry{}, "/", false)); err != nil {
		t.Error(err)
	}
	for _, d := range []string{".", "..", "/", "sub/../.."} {
		if checkDelete(e, d, false) == nil {
			t.Errorf("%s is refused", d)
		}
	}
	if checkDelete(grammar.Entry{Attrs: map[string]string{"mode": "x"}}, "sub", false) == nil {
		t.Error("an unknown mode is refused")
	}
}

func TestAFileAppearsWhenItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.tar")
	write := func(text string) *builder {
		o := &outFile{path: path}
		if _, err := o.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil { // the session closes it, however the build ends
			t.Fatal(err)
		}
		return &builder{outs: []*outFile{o}}
	}
	b := write("half")
	if _, err := os.Stat(path); err == nil {
		t.Error("a file of half a build is there")
	}
	if err := b.endOutputs(false); err != nil {
		t.Error(err)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 0 {
		t.Error("what a failed build wrote is left")
	}
	if err := write("whole").endOutputs(true); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "whole" {
		t.Error(string(got), err)
	}
}

func TestLayoutReferences(t *testing.T) {
	for in, want := range map[string][3]string{
		"dir": {"dir", "latest", ""}, "a/b:1": {"a/b", "1", ""}, "/a:b/c": {"/a:b/c", "latest", ""}, "d@sha256:x": {"d", "", "sha256:x"}, "d:t@sha256:x": {"d", "t", "sha256:x"},
	} {
		d, tag, g := splitLayout(in)
		if [3]string{d, tag, g} != want {
			t.Errorf("%s: %s %s %s", in, d, tag, g)
		}
	}
}

func TestArchives(t *testing.T) {
	tar := make([]byte, 512)
	copy(tar[257:], "ustar")
	for _, b := range [][]byte{tar, []byte("\x1f\x8b\x08x"), []byte("BZh9"), []byte("\xfd7zXZ\x00"), []byte("\x28\xb5\x2f\xfd")} {
		if !isArchive(b) {
			t.Errorf("%q", b[:4])
		}
	}
	for _, s := range []string{"", "FROM busybox\n", strings.Repeat("x", 600)} {
		if isArchive([]byte(s)) {
			t.Error(s)
		}
	}
}
