package clients_test

import (
	"io"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestImageIdentity asks, in versions of the API that tell it and others, where images
// are from.
func TestImageIdentity(t *testing.T) {
	r := registry.New(t, registry.Options{})
	r.Put("team/app", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 1, 1000)}, Cmd: []string{"/f"}})
	d := testkit.StartBusybox(t, "--bridge", "none")
	ref, other := r.Host+"/team/app:1", r.Host+"/other:2"
	get := func(path string) string {
		t.Helper()
		res, err := d.Client().Get("http://docker" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	d.OK(t, "pull", "-q", ref)
	pulled := `"Identity":{"Pull":[{"Repository":"` + r.Host + `/team/app"}]}`
	for path, want := range map[string]bool{
		"/v1.53/images/" + ref + "/json": true, "/v1.56/images/" + ref + "/json": true, "/v1.52/images/" + ref + "/json": false,
		"/v1.54/images/json?manifests=1&identity=1": true, "/v1.54/images/json?manifests=1": false, "/v1.53/images/json?manifests=1&identity=1": false,
	} {
		if text := get(path); strings.Contains(text, pulled) != want {
			t.Errorf("%s: %s", path, text)
		}
	}
	if text := get("/v1.56/images/busybox/json"); strings.Contains(text, "Identity") {
		t.Errorf("of what was loaded: %s", text)
	}
	d.OK(t, "tag", ref, other)
	d.OK(t, "push", "-q", other)
	d.OK(t, "pull", "-q", ref)
	if text := get("/v1.56/images/" + ref + "/json"); !strings.Contains(text, `"Identity":{"Pull":[{"Repository":"`+r.Host+`/other"},{"Repository":"`+r.Host+`/team/app"}]}`) {
		t.Errorf("of what was pushed: %s", text)
	}
}
