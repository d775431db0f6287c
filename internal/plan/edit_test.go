package plan

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

func editBase(t *testing.T, change func(*wire.ContainerConfig, *wire.HostConfig)) (*Plan, Defaults) {
	t.Helper()
	d := Defaults{Runtime: "gantry", Kernel: CompleteKernel(2, CgroupV2)}
	cfg := &wire.ContainerConfig{Image: "x", Cmd: []string{"true"}, Env: []string{"A=1", "B=2"}, Labels: map[string]string{"k": "v"}, Volumes: map[string]struct{}{"/vol": {}}}
	hc := &wire.HostConfig{
		Binds: []string{"/src:/bind:ro", "named:/named"}, Tmpfs: map[string]string{"/tmp": ""},
		Mounts:       []wire.Mount{{Type: "tmpfs", Target: "/mnt"}},
		PortBindings: ports(t, "80/tcp", "", "8080", "81/tcp", "127.0.0.1", ""),
	}
	if change != nil {
		change(cfg, hc)
	}
	p, _, err := New(wire.CreateRequest{Config: cfg, HostConfig: hc}, nil, d)
	if err != nil {
		t.Fatal(err)
	}
	return p, d
}

// ports makes a port map of triples: port, address, host port.
func ports(t *testing.T, list ...string) wire.PortMap {
	t.Helper()
	m := wire.PortMap{}
	for l := range slices.Chunk(list, 3) {
		port, err := wire.ParsePort(l[0])
		if err != nil {
			t.Fatal(err)
		}
		b := wire.PortBinding{HostPort: l[2]}
		if l[1] != "" {
			b.HostIP = netip.MustParseAddr(l[1])
		}
		m[port] = append(m[port], b)
	}
	return m
}

func TestEditPorts(t *testing.T) {
	replaced := ports(t, "90/udp", "", "9000")
	for _, c := range []struct {
		name string
		x    wire.UpdateExtra
		want wire.PortMap
		err  string
	}{
		{"add", wire.UpdateExtra{AddPorts: ports(t, "80/tcp", "", "8081")}, ports(t, "80/tcp", "", "8080", "80/tcp", "", "8081", "81/tcp", "127.0.0.1", ""), ""},
		{"add again", wire.UpdateExtra{AddPorts: ports(t, "80/tcp", "", "8080")}, ports(t, "80/tcp", "", "8080", "81/tcp", "127.0.0.1", ""), ""},
		{"replace", wire.UpdateExtra{PublishedPorts: &replaced}, replaced, ""},
		{"none", wire.UpdateExtra{PublishedPorts: &wire.PortMap{}}, wire.PortMap{}, ""},
		{"remove", wire.UpdateExtra{RemovePorts: []string{"80"}}, ports(t, "81/tcp", "127.0.0.1", ""), ""},
		{"remove by host port", wire.UpdateExtra{RemovePorts: []string{"8080:80/tcp", "127.0.0.1::81"}}, wire.PortMap{}, ""},
		{"exchange", wire.UpdateExtra{RemovePorts: []string{"80"}, AddPorts: ports(t, "81/tcp", "", "8080")}, ports(t, "81/tcp", "127.0.0.1", "", "81/tcp", "", "8080"), ""},
		{"not there", wire.UpdateExtra{RemovePorts: []string{"9:80"}}, nil, "port 9:80 is not published"},
		{"no port", wire.UpdateExtra{RemovePorts: []string{"x"}}, nil, `invalid port specification: "x"`},
		{"bad host port", wire.UpdateExtra{AddPorts: ports(t, "80/tcp", "", "99999")}, nil, `invalid port specification: "99999"`},
	} {
		p, d := editBase(t, nil)
		before := p.HostConfig.PortBindings
		q, _, err := Edit(p, &c.x, d)
		if c.err != "" {
			if err == nil || err.Error() != c.err || errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(q.Ports, c.want) || !reflect.DeepEqual(q.HostConfig.PortBindings, c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, err, q.Ports, c.want)
		}
		if !reflect.DeepEqual(p.HostConfig.PortBindings, before) || len(p.Ports) != 2 {
			t.Errorf("%s: the old plan has changed", c.name)
		}
		for port := range c.want {
			if _, ok := q.Exposed[port]; !ok {
				t.Errorf("%s: %s is not exposed", c.name, port)
			}
		}
	}
	p, d := editBase(t, func(_ *wire.ContainerConfig, h *wire.HostConfig) { h.NetworkMode, h.PortBindings = "host", nil })
	if q, warn, err := Edit(p, &wire.UpdateExtra{AddPorts: replaced}, d); err != nil || q.Ports != nil || len(warn) != 1 {
		t.Errorf("host network: %v %v %v", q.Ports, warn, err)
	}
}

func TestEditMounts(t *testing.T) {
	p, d := editBase(t, nil)
	for target, gone := range map[string]func(*Plan) bool{
		"/bind":   func(q *Plan) bool { return slices.Equal(q.HostConfig.Binds, []string{"named:/named"}) },
		"/named/": func(q *Plan) bool { return slices.Equal(q.HostConfig.Binds, []string{"/src:/bind:ro"}) },
		"/tmp":    func(q *Plan) bool { return len(q.HostConfig.Tmpfs) == 0 },
		"/mnt":    func(q *Plan) bool { return len(q.HostConfig.Mounts) == 0 },
		"/vol":    func(q *Plan) bool { return len(q.Config.Volumes) == 0 },
	} {
		q, _, err := Edit(p, &wire.UpdateExtra{RemoveMounts: []string{target}}, d)
		if err != nil || !gone(q) || len(q.Mounts) != 4 || len(p.Mounts) != 5 {
			t.Errorf("%s: %v %v", target, err, q)
			continue
		}
		diff := Compare(p, q)
		if len(diff.Remove) != 1 || len(diff.Add) != 0 || diff.Ports || diff.Limits || diff.Remove[0].Target != strings.TrimSuffix(target, "/") {
			t.Errorf("%s: %+v", target, diff)
		}
	}
	q, _, err := Edit(p, &wire.UpdateExtra{RemoveMounts: []string{"/mnt"}, AddMounts: []wire.Mount{{Type: "volume", Source: "vol", Target: "/mnt"}, {Type: "tmpfs", Target: "/mnt/deep/er"}, {Type: "tmpfs", Target: "/z"}}}, d)
	if err != nil {
		t.Fatal(err)
	}
	diff := Compare(p, q)
	var add []string
	for _, m := range diff.Add {
		add = append(add, m.Target)
	}
	if !slices.Equal(add, []string{"/mnt", "/z", "/mnt/deep/er"}) || len(diff.Remove) != 1 || diff.Remove[0].Tag() == diff.Add[0].Tag() {
		t.Errorf("%+v", diff)
	}
	if m, ok := q.Hides("/mnt", nil); !ok || m.Target != "/mnt/deep/er" {
		t.Error("what lies below is not seen")
	}
	if _, ok := q.Hides("/mnt", diff.Add); ok {
		t.Error("what goes along counts")
	}
	if _, ok := q.Hides("/mn", nil); ok {
		t.Error("a name that begins alike counts")
	}
	for text, x := range map[string]wire.UpdateExtra{
		"Duplicate mount point: /tmp":     {AddMounts: []wire.Mount{{Type: "tmpfs", Target: "/tmp/"}}},
		"container has no mount at /none": {RemoveMounts: []string{"/none"}},
		"mount path must be absolute":     {AddMounts: []wire.Mount{{Type: "tmpfs", Target: "x"}}},
		"destination can't be '/'":        {AddMounts: []wire.Mount{{Type: "tmpfs", Target: "/"}}},
		"invalid network rate: 1 bit/s":   {NetRate: &wire.NetRate{In: 1}},
		"image mounts can not be added":   {AddMounts: []wire.Mount{{Type: "image", Source: "busybox", Target: "/i"}}},
		"invalid environment variable: =": {Env: []string{"="}},
		"field Source must not be empty":  {AddMounts: []wire.Mount{{Type: "image", Target: "/i"}}},
	} {
		if _, _, err := Edit(p, &x, d); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}

func TestEditWords(t *testing.T) {
	p, d := editBase(t, nil)
	q, _, err := Edit(p, &wire.UpdateExtra{Env: []string{"B=3", "C=", "A", "NONE"}, Labels: map[string]string{"n": "1"}, RemoveLabels: []string{"k", "none"}}, d)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"B=3", "C="}; !slices.Equal(q.Config.Env, want) || !slices.Equal(q.Process.Env, want) {
		t.Errorf("environment %v", q.Config.Env)
	}
	if len(q.Labels) != 1 || q.Config.Labels["n"] != "1" || p.Labels["k"] != "v" || len(p.Process.Env) != 2 {
		t.Errorf("labels %v", q.Labels)
	}
	if !Compare(p, q).Empty() {
		t.Error("words need nothing to be done")
	}
	if q, _, err := Edit(p, nil, d); err != nil || !Compare(p, q).Empty() {
		t.Error("nothing is something", err)
	}
}
