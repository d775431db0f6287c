package manifests

import (
	"maps"
	"testing"

	"gantry/internal/errs"
)

func TestParameters(t *testing.T) {
	for in, want := range map[string]map[string]string{
		`realm="https://a/t",service="s",scope="repository:x:pull,push"`: {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"},
		`Realm=x, service="a b" ,error=e`:                                {"realm": "x", "service": "a b", "error": "e"},
		``:                                                               {},
		`realm="unclosed`:                                                {"realm": "unclosed"},
		`junk`:                                                           {},
	} {
		if got := parameters(in); !maps.Equal(got, want) {
			t.Errorf("%s: %v", in, got)
		}
	}
}

// TestSameSite is of whom credentials are shown to.
func TestSameSite(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"auth.docker.io", "registry-1.docker.io", true}, {"evil.example", "registry.corp", false}, {"127.0.0.1:5000", "127.0.0.1:6000", true},
		{"10.0.0.1", "11.0.0.1", false}, {"reg.corp:5000", "reg.corp", true},
	} {
		if got := sameSite(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

func TestStore(t *testing.T) {
	s := Store{t.TempDir()}
	if _, err := s.All("docker.io/library/l:1"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a list that is not there: %v", err)
	}
	p := &Platform{OS: "linux", Architecture: "arm64"}
	for _, n := range []string{"h:5000/b:1", "h:5000/a:1"} {
		if err := s.Put("h:5000/l:1", n, Make(n, Descriptor{MediaType: OCIManifest, Digest: Digest([]byte(n)), Platform: p}, []byte(`{"a":1}`))); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.All("h:5000/l:1")
	if err != nil || len(all) != 2 || all[0].Ref != "h:5000/a:1" || string(all[1].OCIManifest) != `{"a":1}` {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, mt, err := List(all); err != nil || mt != OCIIndex {
		t.Errorf("list: %s %v", mt, err)
	}
	all[0].Descriptor.Platform = nil
	if _, _, err := List(all); !errs.Is(err, errs.Invalid) {
		t.Errorf("without a platform: %v", err)
	}
}
