package why

import (
	"reflect"
	"strings"
	"testing"
)

const source = `FROM busybox AS base
ARG X=1
ENV A=1
RUN make $X
FROM base
COPY site/ /srv
RUN pack
`

// build is what the daemon reports of source; cached lists what was cached.
func build(cached ...string) []Vertex {
	list := []Vertex{
		{Digest: "d0", Name: "[internal] load build definition from Dockerfile"},
		{Digest: "d1", Name: "[internal] load build context"},
		{Digest: "d2", Name: "[base 1/2] FROM docker.io/library/busybox:latest@sha256:aa"},
		{Digest: "d3", Name: "[base 2/2] RUN make $X", Inputs: []string{"d2"}},
		{Digest: "d4", Name: "[stage-1 1/2] COPY site/ /srv", Inputs: []string{"d3", "d1"}},
		{Digest: "d5", Name: "[stage-1 2/2] RUN pack", Inputs: []string{"d4"}},
	}
	for i := range list {
		list[i].Done = true
		for _, c := range cached {
			if c == list[i].Digest {
				list[i].Cached = true
			}
		}
	}
	return list
}

func record(cached ...string) Record {
	return Record{Args: map[string]string{"X": "1"}, Source: source, Steps: Steps(build(cached...)), Files: map[string]File{
		"site/index.html": {Size: 5, MTime: 1, Sum: "aa"}, "site/logo.png": {Size: 9, MTime: 1}, "other": {Size: 1, MTime: 1},
	}}
}

func TestSteps(t *testing.T) {
	got := Steps(build("d3"))
	if len(got) != 4 {
		t.Fatalf("internal steps are left out: %v", got)
	}
	if s := got[1]; s.Label() != "[base 2/2] RUN make $X" || !s.Cached || !reflect.DeepEqual(s.After, []string{"[base 1/2] FROM docker.io/library/busybox:latest@sha256:aa"}) {
		t.Errorf("%+v", s)
	}
	if s := got[2]; !reflect.DeepEqual(s.After, []string{"[base 2/2] RUN make $X"}) {
		t.Errorf("the context is no step: %+v", s)
	}
}

func TestReasons(t *testing.T) {
	for name, c := range map[string]struct {
		cached []string
		change func(before, now *Record)
		want   []string
	}{
		"all cached":     {[]string{"d3", "d4", "d5"}, func(_, _ *Record) {}, nil},
		"a file changed": {[]string{"d3"}, func(_, now *Record) { now.Files["site/index.html"] = File{Size: 5, MTime: 2, Sum: "bb"} }, []string{"[stage-1 1/2] COPY site/ /srv: site/index.html changed", "[stage-1 2/2] RUN pack: a step before it ran: [stage-1 1/2] COPY site/ /srv"}},
		"a file was touched, another is new": {[]string{"d3", "d5"}, func(_, now *Record) {
			now.Files["site/index.html"] = File{Size: 5, MTime: 2, Sum: "aa"}
			now.Files["site/new"] = File{}
			delete(now.Files, "other")
		}, []string{"[stage-1 1/2] COPY site/ /srv: site/new is new"}},
		"a file is gone":   {[]string{"d3", "d5"}, func(_, now *Record) { delete(now.Files, "site/logo.png") }, []string{"[stage-1 1/2] COPY site/ /srv: site/logo.png is gone"}},
		"an argument":      {[]string{"d4", "d5"}, func(_, now *Record) { now.Args = map[string]string{"X": "2"} }, []string{`[base 2/2] RUN make $X: build argument X changed from "1" to "2"`}},
		"no argument":      {[]string{"d4", "d5"}, func(_, now *Record) { now.Args = nil }, []string{`[base 2/2] RUN make $X: build argument X is no longer given (was "1")`}},
		"a strange one":    {[]string{"d4", "d5"}, func(_, now *Record) { now.Args["Y"] = "2" }, []string{"[base 2/2] RUN make $X: nothing changed: its result is no longer in the cache (pruned, or never kept)"}},
		"a setting":        {[]string{"d4", "d5"}, func(_, now *Record) { now.Source = strings.Replace(source, "A=1", "A=2", 1) }, []string{"[base 2/2] RUN make $X: the Dockerfile now has ENV A=2; the Dockerfile no longer has ENV A=1"}},
		"the base":         {[]string{"d4", "d5"}, func(b, _ *Record) { b.Steps[0].Text = "FROM docker.io/library/busybox:latest@sha256:bb" }, []string{"[base 2/2] RUN make $X: the base image changed from docker.io/library/busybox:latest@sha256:bb to docker.io/library/busybox:latest@sha256:aa"}},
		"the instruction":  {[]string{"d3", "d4"}, func(b, _ *Record) { b.Steps[3].Text = "RUN unpack" }, []string{"[stage-1 2/2] RUN pack: the instruction changed: it was RUN unpack"}},
		"a new step":       {[]string{"d3", "d4"}, func(b, _ *Record) { b.Steps = b.Steps[:3] }, []string{"[stage-1 2/2] RUN pack: a new step"}},
		"an option":        {[]string{"d4", "d5"}, func(_, now *Record) { now.Options = map[string]string{"--network": "none"} }, []string{`[base 2/2] RUN make $X: --network changed from "" to "none"`}},
		"no cache":         {[]string{"d4", "d5"}, func(_, now *Record) { now.Options = map[string]string{"no-cache": ""} }, []string{"[base 2/2] RUN make $X: the cache was not to be used (--no-cache)"}},
		"no cache of base": {[]string{"d4", "d5"}, func(_, now *Record) { now.Options = map[string]string{"no-cache": "base"} }, []string{"[base 2/2] RUN make $X: the cache was not to be used (--no-cache)"}},
	} {
		before, now := record(), record(c.cached...)
		c.change(&before, &now)
		var got []string
		for _, r := range Compare(&before, now) {
			got = append(got, r.String())
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
	if got := Compare(nil, record("d3", "d4")); len(got) != 1 || !strings.Contains(got[0].Why[0], "never built") {
		t.Error(got)
	}
}

func TestSourcesOfInstructions(t *testing.T) {
	for text, want := range map[string][]string{
		"COPY a b /c":                             {"a", "b"},
		"COPY --chown=1 ./a/ /c":                  {"a"},
		`COPY ["a b", "/c"]`:                      {"a b"},
		"COPY . /":                                {""},
		"ADD https://x/y ../z /":                  {"z"},
		"RUN --mount=type=bind,src=s,target=/t x": {"s"},
		"RUN --mount=target=/t x":                 {""},
		"RUN --mount=type=cache,target=/t x":      nil,
		"RUN --mount=from=base,target=/t x":       nil,
		"COPY --from=base a /":                    nil,
		"RUN x":                                   nil,
	} {
		got, ok := contextSources(text)
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q %v", text, got, ok)
		}
	}
	for p, want := range map[string]bool{"a.go": true, "d/b.go": false, "x/y/z.txt": true, "q": false} {
		if taken([]string{"*.go", "x"}, p) != want {
			t.Errorf("%s: %v", p, !want)
		}
	}
}

func TestLargestDirectories(t *testing.T) {
	got := Largest(map[string]File{"a/b/c/x": {Size: 100}, "a/b/c/y": {Size: 50}, "d/z": {Size: 20}, "top": {Size: 1}}, 3)
	want := []Dir{{".", 171, 4}, {"a/b/c", 150, 2}, {"d", 20, 1}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRecordsAreKeptAndForgotten(t *testing.T) {
	s := Store{Dir: t.TempDir() + "/builds"}
	key := []string{"/dir", "", "target"}
	if s.Load(key) != nil {
		t.Error("nothing is there yet")
	}
	r := record()
	if err := s.Save(key, r); err != nil {
		t.Fatal(err)
	}
	if got := s.Load(key); got == nil || !reflect.DeepEqual(*got, r) {
		t.Errorf("%+v", got)
	}
	for i := range maxRecords + 5 {
		if err := s.Save([]string{strings.Repeat("x", i)}, Record{}); err != nil {
			t.Fatal(err)
		}
	}
	if s.Load(key) != nil {
		t.Error("the oldest record is forgotten")
	}
}

func TestSameRecords(t *testing.T) {
	if !record("d3").Same(record()) {
		t.Error("what was cached does not count")
	}
	for _, change := range []func(*Record){
		func(r *Record) { r.Args["X"] = "2" }, func(r *Record) { r.Options = map[string]string{"a": "b"} }, func(r *Record) { r.Source = "" },
		func(r *Record) { r.Steps = r.Steps[1:] }, func(r *Record) { r.Steps[1].Text = "x" }, func(r *Record) { r.Files = nil }, func(r *Record) { delete(r.Files, "other") },
	} {
		r := record()
		if change(&r); r.Same(record()) || record().Same(r) {
			t.Errorf("%+v", r)
		}
	}
}

func TestSumsAreCarried(t *testing.T) {
	now := map[string]File{"a": {Size: 1, MTime: 2}, "b": {Size: 1, MTime: 3}}
	Carry(map[string]File{"a": {Size: 1, MTime: 2, Sum: "s"}, "b": {Size: 1, MTime: 2, Sum: "t"}}, now)
	if now["a"].Sum != "s" || now["b"].Sum != "" {
		t.Error(now)
	}
}
