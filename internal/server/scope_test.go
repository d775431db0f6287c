package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/server/policy"
	"gantry/internal/wire"
)

// guarded lists the methods of the engine that a guard decides about, or that
// need none beyond the operation and its target. A method that is added is an
// error until somebody has decided: what a body says reaches the engine through
// it, and no policy would have seen it.
var guarded = map[string][]string{
	"Lifecycle": {"Create", "Kill", "Restart", "Start", "Stop"},
	"States":    {"Pause", "Remove", "Rename", "Unpause", "Update"},
	"Views":     {"Inspect", "List", "Prune", "Stats", "Top"},
	"Streams":   {"Attach", "Logs", "Resize", "Wait"},
	"Execs":     {"ExecCreate", "ExecInspect", "ExecResize", "ExecStart"},
	"Files":     {"ArchiveGet", "ArchivePut", "ArchiveStat"},
	"Changes":   {"Changes", "Commit", "Export"}, // a commit's image is in the query: scope.content
	"Images":    {"History", "Inspect", "List", "Remove", "Tag"},
	"Archives":  {"Attestations", "Import", "Load", "Prune", "Save"},
	"Networks":  {"Create", "Inspect", "List", "Prune", "Remove"},
	"Members":   {"Connect", "Disconnect"},
	"Volumes":   {"Create", "Inspect", "List", "Prune", "Remove"},
	// It decides itself.
	"Authorizer": {"Answer", "On", "Request"},
	// To change them is of class admin, for those who name it; they hold no secrets
	// of others.
	"Plugins":   {"Create", "Disable", "Enable", "Inspect", "List", "Privileges", "Pull", "Push", "Remove", "Set", "Upgrade"},
	"Transfers": {"Clone", "Export", "Import"},
	"System":    {"Info", "Version"},
	"Doctor":    {"Examine", "Mend"},
	"Why":       {"Why"}, // for those who administer: it tells of the host
	"Upgrades":  {"State", "Upgrade"},
	// Calls that no policy can read: class opaque, for those who name them.
	"Builder":  {"Cancel", "ServeGRPC", "ServeHTTP", "ServeSession"},
	"Builds":   {"Build"},
	"Disk":     {"Budget", "PruneCache", "Usage"},
	"Jobs":     {"Cancel", "Get", "List", "Start", "Watch"}, // to start one is for the full socket
	"Pins":     {"PinName", "UnpinName"},
	"Registry": {"Login", "Lookup", "Pull", "Push", "Search"}, // what they are handed is in path and query: scope.content
	"Tools":    {"Convert", "Diff", "Verify"},                 // for the full socket
	// The directories that they may name are refused: guardedCheckpoints.
	"Checkpoints": {"Create", "List", "Remove", "Restore"},
}

func TestEveryMethodIsGuardedOrNeedsNoGuard(t *testing.T) {
	o := reflect.TypeOf(Options{})
	for i := range o.NumField() {
		f := o.Field(i)
		if f.Type.Kind() != reflect.Interface {
			continue
		}
		for j := range f.Type.NumMethod() {
			if m := f.Type.Method(j).Name; !slices.Contains(guarded[f.Name], m) {
				t.Errorf("%s.%s: decide in scope.go what a policy has to say about what it is handed, then name it here", f.Name, m)
			}
		}
	}
}

// labelled is the fake engine whose containers have labels.
type labelled struct{ *fake }

func (l labelled) Inspect(_ context.Context, ref string, _ container.InspectOptions) (wire.ContainerJSON, error) {
	var c wire.ContainerJSON
	switch ref {
	case "mine", "id-mine":
		c.ID, c.Config = "id-mine", &wire.ContainerConfig{Labels: map[string]string{"team": "a"}}
	case "c1", "theirs":
		c.ID, c.Config = "id-theirs", &wire.ContainerConfig{}
	default:
		return c, errs.New(errs.NotFound, "No such container: %s", ref)
	}
	return c, nil
}

// noVolumes has none.
type noVolumes struct{ Volumes }

func (noVolumes) Inspect(_ context.Context, name string) (wire.Volume, error) {
	return wire.Volume{}, errs.New(errs.NotFound, "get %s: no such volume", name)
}

func scoped(t *testing.T, text string) (*Scoped, *fake) {
	t.Helper()
	f := &fake{}
	noVolumes := noVolumes{}
	s := New(t.Context(), Options{
		Lifecycle: f, States: f, Views: labelled{f}, Streams: f, Execs: f, System: f, Doctor: f, Volumes: noVolumes,
		Events: event.New(), Product: "Docker/29.7.0 (linux)", Log: slog.New(slog.DiscardHandler),
	})
	p, err := policy.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Scoped(p), f
}

func ask(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://x/", strings.NewReader(body))
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, query
	if strings.Contains(path, "%") {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestScopedOperations(t *testing.T) {
	s, _ := scoped(t, `{"operations":["container.list","container.inspect","container.create","image.pull"],"labels":{"team":"a"},"images":["ok"]}`)
	for _, x := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/containers/json", 200},
		{"GET", "/v1.44/containers/json", 200},
		{"GET", "/containers/mine/json", 200},
		{"GET", "/containers/theirs/json", 403},
		{"GET", "/v1.44/containers/theirs/json", 403},
		{"GET", "/containers/%74heirs/json", 403},
		{"GET", "/containers/theirs%2fjson", 403}, // %2f is a slash to the router, for both
		{"GET", "//containers/theirs/json", 301},
		{"GET", "/containers/x/../theirs/json", 301},
		{"GET", "/containers/nobody/json", 404},
		{"POST", "/containers/mine/start", 403},
		{"DELETE", "/containers/mine", 403},
		{"GET", "/containers/mine/logs", 403},
		{"POST", "/containers/prune", 403},
		{"POST", "/build", 403},
		{"POST", "/grpc", 403},
		{"POST", "/session", 403},
		{"GET", "/gantry/doctor", 403},
		{"POST", "/images/create?fromImage=evil", 403},
		{"POST", "/images/create?fromSrc=-&repo=ok", 403},
		{"POST", "/images/create?fromImage=ok&fromImage=evil", 501},
		{"GET", "/nosuch", 404},
	} {
		w := ask(s, x.method, x.target, "")
		if w.Code != x.status && !(x.status == 501 && w.Code != 403) {
			t.Errorf("%s %s: %d %s", x.method, x.target, w.Code, w.Body)
		}
		if w.Code == 403 && !strings.Contains(w.Body.String(), "policy test denies ") {
			t.Errorf("%s %s: %s does not say what denied it", x.method, x.target, w.Body)
		}
	}
}

func TestScopedPolicyIsReplaced(t *testing.T) {
	s, _ := scoped(t, `{"operations":["system.ping"]}`)
	if w := ask(s, "GET", "/containers/json", ""); w.Code != 403 {
		t.Error(w.Code)
	}
	p, err := policy.Parse("next", []byte(`{"operations":["@read"]}`))
	if err != nil {
		t.Fatal(err)
	}
	s.SetPolicy(p)
	if w := ask(s, "GET", "/containers/json", ""); w.Code != 200 {
		t.Error(w.Code)
	}
}

func TestScopedEvents(t *testing.T) {
	s, _ := scoped(t, `{"operations":["*"],"labels":{"team":"a"}}`)
	w := world{s.Views, s.Execs, s.Volumes, &s.policy}
	for e, want := range map[string]bool{"a": true, "b": false} {
		if w.visible(wire.Event{Type: "container", Actor: wire.EventActor{Attributes: map[string]string{"team": e}}}) != want {
			t.Error(e)
		}
	}
	if w.visible(wire.Event{Type: "network"}) {
		t.Error("an event of something else")
	}
}

// dangerous finds in a request that reached the engine what the policy of the
// fuzz test never allows; it looks at the value itself and knows no policy.
func dangerous(r wire.CreateRequest) string {
	h := r.HostConfig
	switch {
	case h.Privileged, len(h.CapAdd) > 0, len(h.Devices) > 0, len(h.SecurityOpt) > 0, len(h.VolumesFrom) > 0, h.CgroupParent != "", h.MaskedPaths != nil:
		return "rights"
	case h.PidMode == "host", h.IpcMode == "host", h.NetworkMode == "host", h.UTSMode == "host":
		return "namespaces"
	case r.Config.Labels["team"] != "a":
		return "labels"
	}
	for _, b := range h.Binds {
		if strings.HasPrefix(b, "/") && strings.Contains(b, ":") {
			return "binds"
		}
	}
	for _, m := range h.Mounts {
		if m.Type == "bind" || m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil && len(m.VolumeOptions.DriverConfig.Options) > 0 {
			return "mounts"
		}
	}
	return ""
}

// FuzzScopedCreate: whatever bytes are sent, what the engine gets is what the
// policy has allowed. CVE-2024-41110, CVE-2026-34040 and others were bodies
// that the check and the handler read differently.
func FuzzScopedCreate(f *testing.F) {
	for _, body := range []string{
		`{"Image":"x"}`,
		`{"Image":"x","HostConfig":{"Privileged":true}}`,
		`{"Image":"x","HostConfig":{"Privileged":false},"hostconfig":{"privileged":true}}`,
		`{"Image":"x","HostConfig":{"Privileged":false,"PRIVILEGED":true,"privileged":true}}`,
		`{"Image":"x","HostConfig":{"Binds":["/:/h"],"Binds":null,"binds":["/etc:/e"]}}`,
		`{"Image":"x","Labels":{"team":"b"},"labels":{"team":"a"}}`,
		`{"Image":"x","HostConfig":null}`, `{"Image":"x"}{"HostConfig":{"Privileged":true}}`, `null`, ``,
		`{"Image":"x","HostConfig":{"PidMode":"ho\u0073t"}}`, `{"Image":"x","Host\u0043onfig":{"IpcMode":"host"}}`,
		`{"Image":"x","HostConfig":{"Mounts":[{"type":"bind","TYPE":"volume","Source":"/","Target":"/x"}]}}`,
		`{"Image":"x","HostConfig":{"CapAdd":["SYS_ADMIN"],"CapAdd":[]}}`,
		`{"Image":"x","pad":"` + strings.Repeat("p", 2<<20) + `","HostConfig":{"Privileged":true}}`,
	} {
		f.Add(body, false, "")
		f.Add(body, true, "application/json")
	}
	f.Fuzz(func(t *testing.T, body string, chunked bool, kind string) {
		s, engine := scoped(t, `{"operations":["container.create"],"labels":{"team":"a"}}`)
		r := httptest.NewRequest("POST", "/v1.44/containers/create", io.NopCloser(strings.NewReader(body)))
		if r.ContentLength = int64(len(body)); chunked {
			r.ContentLength = -1
		}
		if kind == "" {
			kind = "application/json"
		}
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		got := engine.created.Request
		if got.Config == nil {
			return // the engine was not asked
		}
		if what := dangerous(got); what != "" {
			t.Fatalf("%s got through: %s", what, body)
		}
		// To decide again about what the engine got changes nothing.
		before, _ := json.Marshal(got)
		if _, err := s.policy.Load().CreateContainer(t.Context(), &got, world{s.Views, s.Execs, s.Volumes, &s.policy}); err != nil {
			t.Fatalf("the engine got what the policy denies: %v", err)
		}
		if after, _ := json.Marshal(got); string(before) != string(after) {
			t.Fatalf("the engine got %s, which is not what was decided about: %s", before, after)
		}
	})
}

// TestScopedOddRequests: each old CVE's trick, and what becomes of it.
func TestScopedOddRequests(t *testing.T) {
	evil := `{"Image":"x","HostConfig":{"Privileged":true}}`
	for name, change := range map[string]func(*http.Request){
		"CVE-2024-41110: a length of zero": func(r *http.Request) { r.ContentLength = 0 },
		"CVE-2026-34040: more than 1 MB": func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat(" ", 2<<20) + evil))
			r.ContentLength = -1
		},
		"CVE-2018-12608: an upgrade":        func(r *http.Request) { r.Header.Set("Upgrade", "tcp"); r.Header.Set("Connection", "Upgrade") },
		"another kind of content":           func(r *http.Request) { r.Header.Set("Content-Type", "text/json") },
		"two kinds of content":              func(r *http.Request) { r.Header["Content-Type"] = []string{"application/json", "text/plain"} },
		"an old version":                    func(r *http.Request) { r.URL.Path = "/v1.24/containers/create" },
		"another method in a header":        func(r *http.Request) { r.Header.Set("X-HTTP-Method-Override", "GET") },
		"another path in a header":          func(r *http.Request) { r.Header.Set("X-Original-URL", "/_ping") },
		"a path in the request line's form": func(r *http.Request) { r.RequestURI = "/_ping" },
	} {
		s, engine := scoped(t, `{"operations":["container.create","system.ping"]}`)
		r := httptest.NewRequest("POST", "/containers/create", strings.NewReader(evil))
		r.Header.Set("Content-Type", "application/json")
		change(r)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code < 400 || engine.created.Request.Config != nil {
			t.Errorf("%s: %d %s", name, w.Code, fmt.Sprint(engine.created.Request))
		}
	}
}
