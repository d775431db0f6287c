package extension

import (
	"archive/tar"
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

const sample = `{"description":"d","entrypoint":["/p"],"args":{"name":"args","settable":["value"],"value":["a"]},
"interface":{"types":["docker.volumedriver/1.0","docker.ipamdriver/1.0"],"socket":"s.sock"},
"network":{"type":"host"},"ipchost":true,"pidhost":true,"propagatedMount":"/data","user":{"UID":7,"GID":8},
"linux":{"capabilities":["CAP_SYS_ADMIN","CAP_NET_ADMIN"],"allowAllDevices":true,"devices":[{"name":"fuse","path":"/dev/fuse","settable":["path"]}]},
"env":[{"name":"DEBUG","settable":["value"],"value":"0"},{"name":"FIXED","value":"1"}],
"mounts":[{"name":"state","source":"/s","destination":"/d/state","type":"bind","options":["rbind","ro","rshared"],"settable":["source"]},{"destination":"/t","type":"tmpfs","options":["size=1m"]}]}`

func config(t *testing.T) wire.PluginConfig {
	t.Helper()
	c, err := parseConfig([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseConfigRefuses(t *testing.T) {
	for _, bad := range []string{
		`{}`, `[]`, `{"entrypoint":["/p"],"interface":{"socket":"../x.sock"}}`, `{"entrypoint":["/p"],"interface":{"socket":".."}}`,
		`{"entrypoint":["/p"],"interface":{"types":["docker.volumedriver/1.0"]}}`, `{"entrypoint":["/p"],"network":{"type":"other"}}`,
		`{"entrypoint":["/p"],"propagatedMount":"data"}`, `{"entrypoint":["/p"],"propagatedMount":"/x/.."}`,
		`{"entrypoint":["/p"],"mounts":[{"destination":"x"}]}`, `{"entrypoint":["/p"],"mounts":[{"destination":"/x","type":"proc"}]}`,
		`{"entrypoint":["/p"],"env":[{"name":"A=B"}]}`, `{"entrypoint":["/p"],"interface":{"protocolscheme":"other/v1"}}`,
		`{"entrypoint":["` + strings.Repeat("x", maxConfig) + `"]}`,
	} {
		if _, err := parseConfig([]byte(bad)); !errs.Is(err, errs.Invalid) {
			t.Errorf("%.80s: %v", bad, err)
		}
	}
}

// What is granted is compared as sets: order, grouping and length do not matter,
// and one right that is missing is refused.
func TestGranted(t *testing.T) {
	needs := privileges(config(t))
	if len(needs) != 7 {
		t.Errorf("%v", needs)
	}
	if err := granted(needs, needs); err != nil {
		t.Error(err)
	}
	var single []wire.PluginPrivilege
	for _, p := range needs {
		for _, v := range p.Value {
			single = append(single, wire.PluginPrivilege{Name: p.Name, Value: []string{v}})
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		r.Shuffle(len(single), func(i, j int) { single[i], single[j] = single[j], single[i] })
		n := r.IntN(len(single) + 1)
		allowed := slices.Clone(single[:n])
		for range r.IntN(3) {
			allowed = append(allowed, wire.PluginPrivilege{Name: "other", Value: []string{"x"}})
		}
		err := granted(needs, allowed)
		if (err == nil) != (n == len(single)) {
			t.Fatalf("%d of %d rights: %v", n, len(single), err)
		}
		if err != nil && (!errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "incorrect privileges")) {
			t.Fatal(err)
		}
	}
	if err := granted(needs, []wire.PluginPrivilege{{Name: "capabilities", Value: []string{"CAP_SYS_ADMIN"}}}); err == nil {
		t.Error("granted")
	}
}

func TestSet(t *testing.T) {
	c := config(t)
	s, err := set(c, firstSettings(c), []string{"DEBUG=1", "state.source=/new", "fuse.path=/dev/other", "args=x y"})
	if err != nil || !slices.Contains(s.Env, "DEBUG=1") || !slices.Contains(s.Env, "FIXED=1") || *s.Mounts[0].Source != "/new" || *s.Devices[0].Path != "/dev/other" || !slices.Equal(s.Args, []string{"x", "y"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if *firstSettings(c).Mounts[0].Source != "/s" || *firstSettings(c).Devices[0].Path != "/dev/fuse" {
		t.Error("the configuration has changed")
	}
	for _, bad := range []string{"DEBUG", "=1", "FIXED=2", "DEBUG.name=2", "nosuch=1", "state.destination=/x", "state=relative", "DEBUG.=1"} {
		if _, err := set(c, s, []string{bad}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	fresh := c
	fresh.Env = c.Env[:1]
	if got := carry(c, s, fresh); !slices.Equal(got.Env, []string{"DEBUG=1"}) || *got.Mounts[0].Source != "/new" || *got.Devices[0].Path != "/dev/other" || len(got.Args) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestRequestAndMounts(t *testing.T) {
	c := config(t)
	r := record{ID: strings.Repeat("a", 64), Config: c, Settings: firstSettings(c)}
	at := places{"/r", "/p", "/s"}
	req := request(r)
	hc := req.HostConfig
	if hc.NetworkMode != "host" || hc.IpcMode != "host" || hc.PidMode != "host" || len(hc.CapAdd) != 2 || hc.Privileged || req.Config.User != "7:8" || !slices.Equal(req.Config.Cmd, []string{"/p", "a"}) || hc.Devices[0].PathOnHost != "/dev/fuse" {
		t.Errorf("%+v, %+v", req.Config, hc)
	}
	got, err := mounts(r, at)
	want := []plan.Mount{
		{Type: "bind", Source: "/p", Target: "/data", Propagation: "rshared"}, {Type: "tmpfs", Target: "/t", Options: "size=1m"},
		{Type: "bind", Source: "/s", Target: "/d/state", Propagation: "rshared", ReadOnly: true}, {Type: "bind", Source: "/s", Target: socketDir, Propagation: "rprivate"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	r.Config, r.Settings = wire.PluginConfig{Entrypoint: []string{"/p"}}, wire.PluginSettings{Mounts: []wire.PluginMount{{Name: "x", Destination: "/x"}}}
	if hc := request(r).HostConfig; hc.NetworkMode != "none" || hc.IpcMode != "" || hc.PidMode != "" || len(hc.CapAdd) != 0 || len(hc.DeviceCgroupRules) != 0 {
		t.Errorf("a plugin that asks for nothing gets %+v", hc)
	}
	if _, err := mounts(r, at); !errs.Is(err, errs.Invalid) {
		t.Error("a mount without a source", err)
	}
	if e, ok := endpoint(record{Config: c}, at); !ok || e.Address != "/s/s.sock" || e.Implements != "VolumeDriver,IpamDriver" {
		t.Errorf("%+v", e)
	}
}

func pack(t *testing.T, entries ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := []byte{}
		if h.Typeflag == tar.TypeReg {
			body = []byte("{}")
			h.Size = 2
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestSplit(t *testing.T) {
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	link := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
	}
	dir := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	var out bytes.Buffer
	got, err := split(pack(t, file("./config.json"), dir("rootfs/"), dir("rootfs/bin/"), file("rootfs/bin/p"), link("rootfs/q", "rootfs/bin/p"), file("other")), &out)
	if err != nil || string(got) != "{}" {
		t.Fatalf("%q, %v", got, err)
	}
	var names []string
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name+">"+h.Linkname)
	}
	if want := []string{"bin/>", "bin/p>", "q>bin/p"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
	for what, b := range map[string]*bytes.Buffer{
		"no config":  pack(t, dir("rootfs/")),
		"no rootfs":  pack(t, file("config.json")),
		"two":        pack(t, file("config.json"), file("config.json"), dir("rootfs/")),
		"escape":     pack(t, file("config.json"), file("rootfs/../../etc/x")),
		"escape 2":   pack(t, file("config.json"), file("../rootfs/x")),
		"link":       pack(t, file("config.json"), link("rootfs/x", "/etc/passwd")),
		"link 2":     pack(t, file("config.json"), link("rootfs/x", "rootfs/../config.json")),
		"a file":     pack(t, file("config.json"), file("rootfs")),
		"config dir": pack(t, dir("config.json/"), dir("rootfs/")),
	} {
		if _, err := split(b, &bytes.Buffer{}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSupported(t *testing.T) {
	of := func(kinds ...string) record {
		var r record
		for _, k := range kinds {
			r.Config.Interface.Types = append(r.Config.Interface.Types, wire.PluginType{Prefix: "docker", Capability: k, Version: "1.0"})
		}
		return r
	}
	for _, ok := range []record{of(), of("volumedriver"), of("logdriver", "IpamDriver")} {
		if err := supported(ok); err != nil {
			t.Error(err)
		}
	}
	for _, no := range []record{of("logdriver"), of("metricscollector", "graphdriver")} {
		if err := supported(no); !errs.Is(err, errs.Unsupported) {
			t.Errorf("%v: %v", no.Config.Interface.Types, err)
		}
	}
}
