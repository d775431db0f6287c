package plan

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// recorded is one creation as Docker Engine 29.7 answered it, on a machine
// with two processors and cgroup v1.
type recorded struct {
	Name     string
	Request  json.RawMessage
	Status   int
	Error    string
	Warnings []string
}

func recordings(t *testing.T) []recorded {
	t.Helper()
	f, err := os.Open("testdata/create.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []recorded
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var r recorded
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// elsewhere are beginnings of errors that other packages find: they need the
// store, the host or the version of the API.
var elsewhere = []string{
	"No such image", "No such container", "invalid reference format", "could not get container for",
	"invalid mount config for type \"bind\": bind source path does not exist",
	"create vol1: error looking up volume plugin", "Container cannot be created with multiple network endpoints",
}

// busybox is the image of the recordings.
func busybox() *Image {
	img := &Image{Digest: "sha256:0123"}
	img.Config.Cmd = []string{"sh"}
	return img
}

// recordingHost is what the recordings were made on.
func recordingHost() Defaults {
	k := CompleteKernel(2, CgroupV1)
	k.CPUs, k.BlkioWeight = "0-1", false
	return Defaults{Kernel: k}
}

func TestRecordedCreations(t *testing.T) {
	for _, r := range recordings(t) {
		t.Run(r.Name, func(t *testing.T) {
			if slices.ContainsFunc(elsewhere, func(s string) bool { return strings.HasPrefix(r.Error, s) }) {
				return
			}
			var req wire.CreateRequest
			if err := json.Unmarshal(r.Request, &req); err != nil {
				if r.Error != "invalid JSON: "+err.Error() {
					t.Errorf("got %q, want %q", err, r.Error)
				}
				return
			}
			p, warnings, err := New(req, busybox(), recordingHost())
			if r.Error != "" {
				if err == nil || err.Error() != r.Error {
					t.Fatalf("got %v, want %s", err, r.Error)
				}
				want := errs.Invalid
				if r.Status == 500 {
					want = errs.Unknown
				}
				if got := errs.KindOf(err); got != want {
					t.Errorf("kind %v, want %v", got, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) != len(r.Warnings) || len(warnings) > 0 && !slices.Equal(warnings, r.Warnings) {
				t.Errorf("warnings %q, want %q", warnings, r.Warnings)
			}
			if p.Restart.Name == "" || len(p.Process.Args) == 0 {
				t.Errorf("incomplete: %+v", p)
			}
		})
	}
}

// TestInspect compares what inspect shows of a plan with what was recorded.
func TestInspect(t *testing.T) {
	for _, file := range []string{"plain", "rich"} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + file + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var r struct {
				Request            wire.CreateRequest
				Config, HostConfig map[string]any
				Mounts             []wire.MountPoint
			}
			if err := json.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			p, warnings, err := New(r.Request, busybox(), recordingHost())
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			id := strings.Repeat("ab", 32)
			if file == "plain" {
				r.Config["Hostname"] = id[:12]
			}
			compare(t, "Config", p.InspectConfig(id), r.Config)
			compare(t, "HostConfig", p.HostConfig, r.HostConfig)
			compareMounts(t, p, r.Mounts)
		})
	}
}

// compare compares got's JSON with want, field by field.
func compare(t *testing.T, name string, got any, want map[string]any) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var g map[string]any
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	for k := range want {
		if !reflect.DeepEqual(g[k], want[k]) {
			t.Errorf("%s.%s: got %v, want %v", name, k, g[k], want[k])
		}
	}
	for k := range g {
		if _, ok := want[k]; !ok {
			t.Errorf("%s.%s: got %v, want none", name, k, g[k])
		}
	}
}

func compareMounts(t *testing.T, p *Plan, want []wire.MountPoint) {
	t.Helper()
	n := 0
	for _, m := range p.Mounts {
		if m.From != FromTmpfs {
			n++
		}
	}
	if n != len(want) {
		t.Errorf("%d mounts, want %d", n, len(want))
	}
	for _, w := range want {
		i := slices.IndexFunc(p.Mounts, func(m Mount) bool { return m.Target == w.Destination })
		if i < 0 {
			t.Errorf("no mount at %s", w.Destination)
			continue
		}
		m := p.Mounts[i]
		if m.Type != w.Type || m.Mode != w.Mode || m.ReadOnly == w.RW || m.Propagation != string(w.Propagation) || m.Driver != w.Driver {
			t.Errorf("got %+v, want %+v", m, w)
		}
		if w.Type == typeVolume && !m.Anonymous && m.Name != w.Name || w.Type == typeBind && m.Source != w.Source {
			t.Errorf("got %+v, want %+v", m, w)
		}
	}
}

// TestStored checks that a plan survives the store.
func TestStored(t *testing.T) {
	text, err := os.ReadFile("testdata/rich.json")
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Request wire.CreateRequest }
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	p, _, err := New(r.Request, busybox(), recordingHost())
	if err != nil {
		t.Fatal(err)
	}
	first, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var q Plan
	if err := json.Unmarshal(first, &q); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(&q)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("changed in the store:\n%s\n%s", first, second)
	}
	if q.Version != Version || q.Health == nil || q.Health.Interval != 300*time.Millisecond {
		t.Errorf("lost: version %d, health %+v", q.Version, q.Health)
	}
}

// create makes a plan of a request in JSON.
func create(t *testing.T, request string, img *Image, d Defaults) *Plan {
	t.Helper()
	p, _, err := New(decode(t, request), img, d)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return p
}

func decode(t *testing.T, request string) wire.CreateRequest {
	t.Helper()
	var req wire.CreateRequest
	if err := json.Unmarshal([]byte(request), &req); err != nil {
		t.Fatal(err)
	}
	return req
}

func imageWith(text string) *Image {
	img := &Image{}
	if err := json.Unmarshal([]byte(text), &img.Config); err != nil {
		panic(err)
	}
	return img
}

func TestCommandOfImageAndUser(t *testing.T) {
	both := imageWith(`{"Entrypoint":["/ep"],"Cmd":["a"]}`)
	only := imageWith(`{"Cmd":["sh"]}`)
	for _, c := range []struct {
		name, request string
		img           *Image
		want          []string // nil: no command specified
	}{
		{"image's own", `{"Image":"i"}`, both, []string{"/ep", "a"}},
		{"user's arguments", `{"Cmd":["b","c"]}`, both, []string{"/ep", "b", "c"}},
		{"user's entry point drops the image's arguments", `{"Entrypoint":["/x"]}`, both, []string{"/x"}},
		{"both the user's", `{"Entrypoint":["/x"],"Cmd":["b"]}`, both, []string{"/x", "b"}},
		{"no entry point", `{"Entrypoint":[""],"Cmd":["b"]}`, both, []string{"b"}},
		{"no entry point, nothing else", `{"Entrypoint":[""]}`, both, nil},
		{"empty lists", `{"Entrypoint":[],"Cmd":[]}`, only, []string{"sh"}},
		{"empty entry point hides the image's", `{"Entrypoint":[],"Cmd":["b"]}`, both, []string{"b"}},
		{"no image", `{"Cmd":["b"]}`, nil, []string{"b"}},
		{"nothing at all", `{"Image":"i"}`, nil, nil},
	} {
		p, _, err := New(decode(t, c.request), c.img, Defaults{})
		if c.want == nil {
			if err == nil || err.Error() != "no command specified" {
				t.Errorf("%s: got %v", c.name, err)
			}
			continue
		}
		if err != nil || !slices.Equal(p.Process.Args, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, p, err, c.want)
		}
	}
}

func TestMerging(t *testing.T) {
	img := imageWith(`{"User":"img","WorkingDir":"/img","Env":["PATH=/bin","A=img","B=img"],"Labels":{"l":"img","m":"img"},
		"Volumes":{"/v":{},"/w":{}},"ExposedPorts":{"80/tcp":{},"bogus/x":{}},"StopSignal":"SIGUSR1","Shell":["/bin/bash","-c"],
		"Cmd":["c"],"Healthcheck":{"Test":["CMD-SHELL","check"],"Interval":1000000000,"Retries":7}}`)
	p := create(t, `{"Env":["A=user","C"],"Labels":{"l":"user"},"Volumes":{"/x":{}},"ExposedPorts":{"53/udp":{}},"Healthcheck":{"Timeout":2000000}}`, img, Defaults{})
	if want := []string{"A=user", "C", "PATH=/bin", "B=img"}; !slices.Equal(p.Process.Env, want) {
		t.Errorf("env %v, want %v", p.Process.Env, want)
	}
	if p.Process.User != "img" || p.Process.Dir != "/img" || p.Stop != (Stop{Signal: 10, Timeout: 10}) {
		t.Errorf("user %q, dir %q, stop %+v", p.Process.User, p.Process.Dir, p.Stop)
	}
	if p.Labels["l"] != "user" || p.Labels["m"] != "img" || len(p.Exposed) != 2 {
		t.Errorf("labels %v, exposed %v", p.Labels, p.Exposed)
	}
	var targets []string
	for _, m := range p.Mounts {
		targets = append(targets, m.Target)
		if !m.Anonymous || m.From != FromVolumes || m.Driver != "local" {
			t.Errorf("mount %+v", m)
		}
	}
	if want := []string{"/v", "/w", "/x"}; !slices.Equal(targets, want) {
		t.Errorf("volumes %v, want %v", targets, want)
	}
	want := &Health{
		Args: []string{"/bin/bash", "-c", "check"}, Interval: time.Second, Timeout: 2 * time.Millisecond,
		StartInterval: 5 * time.Second, Retries: 7,
	}
	if !reflect.DeepEqual(p.Health, want) {
		t.Errorf("health %+v, want %+v", p.Health, want)
	}
	if img.Config.Env[1] != "A=img" || len(img.Config.Labels) != 2 {
		t.Error("the image was changed")
	}
	if p := create(t, `{"Healthcheck":{"Test":["NONE"]}}`, img, Defaults{}); p.Health != nil {
		t.Errorf("health %+v, want none", p.Health)
	}
}

func TestRequestStays(t *testing.T) {
	req := decode(t, `{"Cmd":["a"],"Env":["A=1"],"HostConfig":{"PortBindings":{"80/tcp":[]},"Binds":["/a:/b"],"Privileged":true}}`)
	before, _ := json.Marshal(req)
	if _, _, err := New(req, imageWith(`{"Env":["B=2"],"Labels":{"l":"1"}}`), Defaults{}); err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(req); string(before) != string(after) {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
}
