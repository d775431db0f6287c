package cdi

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

const example = `# of a vendor
cdiVersion: 0.7.0
kind: vendor.com/net-class
annotations: {a: b}
containerEdits:
  env: [VENDOR=yes]
devices:
- name: "0"
  containerEdits:
    env: [VENDOR=zero, PATH_TO=/x]
    deviceNodes:
    - path: /dev/vendor0
      hostPath: /dev/null
      permissions: rw
    - {path: /dev/vendorfifo, type: p, fileMode: 384}
    mounts:
    - {hostPath: /etc, containerPath: /opt/vendor/etc, options: [ro, nosuid]}
    - {hostPath: tmpfs, containerPath: /opt, type: tmpfs}
    hooks:
    - {hookName: createRuntime, path: /bin/true, args: ["true", x], timeout: 3}
    additionalGids: [0, 44, 7]
- name: "1"
  containerEdits:
    deviceNodes: [{path: /dev/zero}]
`

func set(t *testing.T, files map[string]string) *Set {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Read([]string{filepath.Join(dir, "a"), filepath.Join(dir, "none"), filepath.Join(dir, "b")})
}

func bare() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Env: []string{"PATH=/bin", "VENDOR=no"}, User: specs.User{UID: 1000, AdditionalGids: []uint32{7}}},
		Mounts:  []specs.Mount{{Destination: "/proc"}, {Destination: "/opt/vendor/etc/deep"}, {Destination: "/opt"}},
		Linux:   &specs.Linux{},
	}
}

func TestInject(t *testing.T) {
	s := set(t, map[string]string{"a/x.yaml": example})
	if len(s.Problems) > 0 {
		t.Fatal(s.Problems)
	}
	if want := []string{"vendor.com/net-class=0", "vendor.com/net-class=1"}; !slices.Equal(s.Names(), want) {
		t.Errorf("names %v", s.Names())
	}
	spec := bare()
	if err := s.Inject(spec, s.Names()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=/bin", "VENDOR=zero", "PATH_TO=/x"}; !slices.Equal(spec.Process.Env, want) {
		t.Errorf("env %v", spec.Process.Env)
	}
	if want := []uint32{7, 44}; !slices.Equal(spec.Process.User.AdditionalGids, want) {
		t.Errorf("groups %v", spec.Process.User.AdditionalGids)
	}
	var order []string
	for _, m := range spec.Mounts {
		order = append(order, m.Destination)
	}
	if want := []string{"/proc", "/opt", "/opt/vendor/etc", "/opt/vendor/etc/deep"}; !slices.Equal(order, want) {
		t.Errorf("mounts %v", order)
	}
	if m := spec.Mounts[2]; m.Source != "/etc" || m.Type != "bind" || !slices.Equal(m.Options, []string{"bind", "ro", "nosuid"}) {
		t.Errorf("bind mount %+v", m)
	}
	if m := spec.Mounts[1]; m.Type != "tmpfs" || len(m.Options) > 0 {
		t.Errorf("tmpfs %+v", m)
	}
	if h := spec.Hooks.CreateRuntime; len(h) != 1 || h[0].Path != "/bin/true" || len(h[0].Args) != 2 || *h[0].Timeout != 3 {
		t.Errorf("hooks %+v", h)
	}
	d := spec.Linux.Devices
	if len(d) != 3 || d[0].Path != "/dev/vendor0" || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 || *d[0].UID != 1000 || d[0].GID != nil || *d[0].FileMode != 0o666 {
		t.Errorf("devices %+v", d)
	}
	if d[1].Type != "p" || *d[1].FileMode != 0o600 || d[2].Minor != 5 {
		t.Errorf("devices %+v", d)
	}
	if r := spec.Linux.Resources.Devices; len(r) != 2 || !r[0].Allow || r[0].Access != "rw" || *r[0].Minor != 3 || r[1].Access != "rwm" {
		t.Errorf("rules %+v", r)
	}

	spec = bare()
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}}
	if err := s.Inject(spec, []string{"vendor.com/net-class=1"}); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/zero" }); i < 0 || spec.Mounts[i].Source != "/dev/zero" || len(spec.Linux.Devices) > 0 {
		t.Errorf("in a user namespace: %+v, %+v", spec.Mounts, spec.Linux.Devices)
	}

	if err := s.Inject(bare(), []string{"vendor.com/net-class=1", "vendor.com/x=2", "y"}); !errs.Is(err, errs.NotFound) || err.Error() != "unresolvable CDI devices vendor.com/x=2, y" {
		t.Errorf("unknown devices: %v", err)
	}
}

func TestRead(t *testing.T) {
	one := func(kind, env string) string {
		return `{"cdiVersion":"0.5.0","kind":"` + kind + `","devices":[{"name":"d","containerEdits":{"env":["WHICH=` + env + `"]}}]}`
	}
	s := set(t, map[string]string{
		"a/1.json": one("v.com/c", "low"), "b/1.json": one("v.com/c", "high"),
		"a/2.json": one("v.com/twice", "x"), "a/3.json": one("v.com/twice", "y"),
		"a/ignored.txt": "no", "a/bad.json": `{"cdiVersion":"0.5.0","kind":"v.com/c","devices":[],"more":1}`,
	})
	if want := []string{"v.com/c=d"}; !slices.Equal(s.Names(), want) {
		t.Errorf("names %v", s.Names())
	}
	if len(s.Problems) != 2 {
		t.Errorf("problems %v", s.Problems)
	}
	spec := bare()
	if err := s.Inject(spec, []string{"v.com/c=d"}); err != nil || !slices.Contains(spec.Process.Env, "WHICH=high") {
		t.Errorf("env %v, %v", spec.Process.Env, err)
	}
	if err := s.Inject(bare(), []string{"v.com/twice=d"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("an ambiguous device: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	base := `{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}`
	if _, err := Parse([]byte(base)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"1.0.0", "9.0.0"}, {"v.com/c", "v.com"}, {"v.com/c", "/c"}, {"v.com/c", "1v/c"}, {"v.com/c", "v.com/"}, {"v.com/c", "-v/c"},
		{`"name":"d"`, `"name":""`}, {`"name":"d"`, `"name":"a b"`}, {`"name":"d"`, `"name":"d="`}, {`"A=b"`, `"A"`}, {`"A=b"`, `"=b"`},
		{`"env":["A=b"]`, `"hooks":[{"hookName":"never","path":"/x"}]`}, {`"env":["A=b"]`, `"hooks":[{"hookName":"prestart"}]`},
		{`"env":["A=b"]`, `"mounts":[{"hostPath":"/x"}]`}, {`"env":["A=b"]`, `"deviceNodes":[{"path":"/x","type":"q"}]`},
		{`"env":["A=b"]`, `"deviceNodes":[{"path":"/x","permissions":"rx"}]`}, {`"env":["A=b"]`, `"netDevices":[{"name":"x"}]`},
		{`"env"`, `"other"`}, {`"devices"`, `"device"`}, {"}]}", "}]"}, {`[{"name"`, `[{"name":"d","containerEdits":{}},{"name"`},
	} {
		if _, err := Parse([]byte(strings.Replace(base, c[0], c[1], 1))); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s for %s: %v", c[1], c[0], err)
		}
	}
	for _, text := range []string{"", "[]", "7", "\x00", "a: &a [*a]"} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q is a specification", text)
		}
	}
}

func TestResolve(t *testing.T) {
	gpu := func(kind string, names ...string) string {
		var d []string
		for _, n := range names {
			d = append(d, `{"name":"`+n+`","containerEdits":{"env":["X=`+n+`"]}}`)
		}
		return `{"cdiVersion":"0.5.0","kind":"` + kind + `","devices":[` + strings.Join(d, ",") + `]}`
	}
	nvidia := map[string]string{"a/n.json": gpu("nvidia.com/gpu", "0", "1", "all")}
	amd := map[string]string{"a/n.json": gpu("amd.com/gpu", "0", "1")}
	caps := [][]string{{"gpu"}}
	for name, c := range map[string]struct {
		files  map[string]string
		req    wire.DeviceRequest
		want   []string
		failed string
	}{
		"cdi":           {nil, wire.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"a/b=c"}}, []string{"a/b=c"}, ""},
		"all":           {nvidia, wire.DeviceRequest{Count: -1, Capabilities: caps}, []string{"nvidia.com/gpu=all"}, ""},
		"all, no all":   {amd, wire.DeviceRequest{Count: -1, Capabilities: caps}, []string{"amd.com/gpu=0", "amd.com/gpu=1"}, ""},
		"two":           {nvidia, wire.DeviceRequest{Driver: "nvidia", Count: 2, Capabilities: caps}, []string{"nvidia.com/gpu=0", "nvidia.com/gpu=1"}, ""},
		"ids":           {nvidia, wire.DeviceRequest{DeviceIDs: []string{"1", "nvidia.com/gpu=0"}, Capabilities: caps}, []string{"nvidia.com/gpu=1", "nvidia.com/gpu=0"}, ""},
		"both":          {nvidia, wire.DeviceRequest{Count: 1, DeviceIDs: []string{"1"}, Capabilities: caps}, nil, "cannot set both Count and DeviceIDs on device request"},
		"no vendor":     {nil, wire.DeviceRequest{Count: -1, Capabilities: caps}, nil, "failed to discover GPU vendor from CDI: no known GPU vendor found"},
		"no driver":     {nvidia, wire.DeviceRequest{Driver: "nosuch", Count: 1}, nil, `could not select device driver "nosuch" with capabilities: []`},
		"no capability": {nvidia, wire.DeviceRequest{Capabilities: [][]string{{"tpu", "x"}}}, nil, `could not select device driver "" with capabilities: [[tpu x]]`},
	} {
		got, err := set(t, c.files).Resolve([]wire.DeviceRequest{c.req})
		if c.failed != "" {
			if err == nil || err.Error() != c.failed {
				t.Errorf("%s: %v, want %s", name, err, c.failed)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestAddNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := Devices{Dirs: func() []string { return []string{dir} }}
	p := &plan.Plan{DeviceRequests: []wire.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"v.com/c=d"}}}}
	err := d.Add(bare(), p)
	if err == nil || !strings.HasPrefix(err.Error(), "CDI device injection failed: unresolvable CDI devices v.com/c=d\n"+dir+"/x.json: ") {
		t.Errorf("got %v", err)
	}
}
