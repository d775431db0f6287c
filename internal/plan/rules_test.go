package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

func TestBinds(t *testing.T) {
	for _, c := range []struct {
		raw, driver string
		want        Mount
		failed      string
	}{
		{raw: "/a:/b", want: Mount{Type: typeBind, Source: "/a", Target: "/b", Propagation: "rprivate", CreateSource: true}},
		{raw: "/a/../c/:/b//d/:ro", want: Mount{Type: typeBind, Source: "/c", Target: "/b/d", Mode: "ro", ReadOnly: true, Propagation: "rprivate", CreateSource: true}},
		{raw: "/a:/b:rw,z,rshared", want: Mount{Type: typeBind, Source: "/a", Target: "/b", Mode: "rw,z,rshared", Propagation: "rshared", CreateSource: true}},
		{raw: "/b", want: Mount{Type: typeVolume, Target: "/b", Anonymous: true, Driver: "local"}},
		{raw: "vol:/b:nocopy", want: Mount{Type: typeVolume, Name: "vol", Target: "/b", Mode: "nocopy", NoCopy: true, Driver: "local"}},
		{raw: "vol:/b", driver: "nfs", want: Mount{Type: typeVolume, Name: "vol", Target: "/b", Driver: "nfs"}},
		{raw: "a/b:/c", driver: "nfs", want: Mount{Type: typeVolume, Name: "a/b", Target: "/c", Driver: "nfs"}},
		{raw: "relative", failed: `invalid volume specification: 'relative': invalid mount config for type "volume": invalid mount path: 'relative' mount path must be absolute`},
		{raw: "/a:ro", failed: "invalid volume specification: '/a:ro'"},
		{raw: "/a:/b:ro,rw", failed: "invalid mode: ro,rw"},
		{raw: "/a:/b:shared,slave", failed: "invalid mode: shared,slave"},
		{raw: "/a:/b:", want: Mount{Type: typeBind, Source: "/a", Target: "/b", Propagation: "rprivate", CreateSource: true}},
		{raw: "/a:/..", failed: `invalid volume specification: '/a:/..': invalid mount config for type "bind": invalid specification: destination can't be '/'`},
		{raw: "../x:/b", failed: `create ../x: "../x" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`},
	} {
		got, err := parseBind(c.raw, c.driver)
		if c.failed != "" {
			if err == nil || err.Error() != c.failed {
				t.Errorf("%s: got %v, want %s", c.raw, err, c.failed)
			}
			continue
		}
		c.want.From = FromBinds
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.raw, got, err, c.want)
		}
	}
}

func TestMounts(t *testing.T) {
	for _, c := range []struct {
		mount  string
		want   Mount
		failed string
	}{
		{mount: `{"Type":"bind","Source":"/a/","Target":"/b/","BindOptions":{"CreateMountpoint":true,"NonRecursive":true,"Propagation":"slave"}}`,
			want: Mount{Type: typeBind, Source: "/a", Target: "/b", Propagation: "slave", CreateSource: true, NonRecursive: true}},
		{mount: `{"Type":"volume","Source":"vv","Target":"/b","VolumeOptions":{"Subpath":"s/t","DriverConfig":{"Name":"nfs","Options":{"o":"1"}}}}`,
			want: Mount{Type: typeVolume, Name: "vv", Target: "/b", Mode: "z", Subpath: "s/t", Driver: "nfs", DriverOptions: map[string]string{"o": "1"}}},
		{mount: `{"Type":"volume","Target":"/b"}`, want: Mount{Type: typeVolume, Target: "/b", Mode: "z", Anonymous: true, Driver: "local"}},
		{mount: `{"Type":"tmpfs","Target":"/b","ReadOnly":true,"TmpfsOptions":{"SizeBytes":1048576,"Mode":448,"Options":[["exec"]]}}`,
			want: Mount{Type: typeTmpfs, Target: "/b", ReadOnly: true, Options: "ro,mode=700,size=1m,exec"}},
		{mount: `{"Type":"tmpfs","Target":"/b","TmpfsOptions":{"SizeBytes":1000}}`, want: Mount{Type: typeTmpfs, Target: "/b", Options: "size=1000"}},
		{mount: `{"Type":"image","Source":"i","Target":"/b","ImageOptions":{"Subpath":"x"}}`, want: Mount{Type: typeImage, Source: "i", Target: "/b", ReadOnly: true, Subpath: "x"}},
		{mount: `{"Type":"tmpfs","Target":"/b","TmpfsOptions":{"Options":[["suid"]]}}`, failed: `invalid mount config for type "tmpfs": invalid option: suid`},
		{mount: `{"Type":"volume","Source":"vv","Target":"/b","VolumeOptions":{"Subpath":"../x"}}`, failed: `invalid mount config for type "volume": subpath must be a relative path within the volume`},
		{mount: `{"Type":"volume","Target":"/b","VolumeOptions":{"Subpath":"x"}}`, failed: `invalid mount config for type "volume": must not set Subpath when using anonymous volumes`},
		{mount: `{"Type":"volume","Target":"/b","ReadOnly":true}`, failed: `invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes`},
		{mount: `{"Type":"image","Source":"i","Target":"/b","ImageOptions":{"Subpath":"/x"}}`, failed: `invalid mount config for type "image": subpath must be a relative path within the image`},
		{mount: `{"Type":"bind","Source":"/a","Target":"b"}`, failed: `invalid mount config for type "bind": invalid mount path: 'b' mount path must be absolute`},
		{mount: `{"Type":"bind","Source":"/a","Target":"/"}`, failed: `invalid mount config for type "bind": invalid specification: destination can't be '/'`},
		{mount: `{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"x"}}`, failed: `invalid mount config for type "bind": invalid propagation mode: x`},
		{mount: `{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}`, failed: `VolumeOptions must not be specified on mount type "bind"`},
		{mount: `{"Type":"npipe","Source":"/a","Target":"/b"}`, failed: `invalid mount config for type "npipe": mount type unknown`},
	} {
		p, _, err := New(decode(t, `{"Cmd":["x"],"HostConfig":{"Mounts":[`+c.mount+`]}}`), nil, recordingHost())
		if c.failed != "" {
			if err == nil || err.Error() != c.failed || !errs.Is(err, errs.Invalid) {
				t.Errorf("%s: got %v, want %s", c.mount, err, c.failed)
			}
			continue
		}
		if err != nil || len(p.Mounts) != 1 {
			t.Errorf("%s: %v", c.mount, err)
			continue
		}
		c.want.From = FromMounts
		if got := p.Mounts[0]; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.mount, got, c.want)
		}
	}
}

func TestMountPrecedence(t *testing.T) {
	p := create(t, `{"Cmd":["x"],"Volumes":{"/a":{},"/b":{},"/c":{},"/":{}},"HostConfig":{"Binds":["/h:/a"],"Tmpfs":{"/b":""}}}`, nil, Defaults{})
	got := map[string]Origin{}
	for _, m := range p.Mounts {
		got[m.Target] = m.From
	}
	if want := map[string]Origin{"/a": FromBinds, "/b": FromTmpfs, "/c": FromVolumes}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, _, err := New(decode(t, `{"Cmd":["x"],"HostConfig":{"Binds":["/h:/a"],"Tmpfs":{"/a":""}}}`), nil, Defaults{})
	if err == nil || err.Error() != "Duplicate mount point: /a" {
		t.Errorf("got %v", err)
	}
}

func TestInherit(t *testing.T) {
	p := create(t, `{"Cmd":["x"],"Volumes":{"/img":{}},"HostConfig":{"Binds":["/h:/mine"],"VolumesFrom":["a:ro","b"]}}`, nil, Defaults{})
	if want := []VolumesFrom{{"a", true}, {"b", false}}; !slices.Equal(p.VolumesFrom, want) {
		t.Fatalf("got %v", p.VolumesFrom)
	}
	other := []Mount{
		{Type: typeVolume, Name: "v1", Target: "/img", From: FromVolumes},
		{Type: typeBind, Source: "/o", Target: "/mine", From: FromBinds},
		{Type: typeVolume, Name: "v2", Target: "/deep/er", From: FromBinds},
		{Type: typeTmpfs, Target: "/t", From: FromTmpfs},
	}
	q := p.Inherit(p.VolumesFrom[0], other)
	q = q.Inherit(p.VolumesFrom[1], []Mount{{Type: typeVolume, Name: "v3", Target: "/deep/er", From: FromBinds}})
	var got []string
	for _, m := range q.Mounts {
		w := m.Target + "=" + m.Name + m.Source
		if m.ReadOnly {
			w += " ro"
		}
		got = append(got, w)
	}
	if want := []string{"/mine=/h", "/img=v1 ro", "/deep/er=v3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(p.Mounts) != 2 || p.Mounts[1].Name != "" {
		t.Errorf("the plan itself changed: %+v", p.Mounts)
	}
}

func TestWithVolumeNames(t *testing.T) {
	p := create(t, `{"Cmd":["x"],"Volumes":{"/a":{}},"HostConfig":{"Binds":["named:/b"]}}`, nil, Defaults{})
	q := p.WithVolumeNames(map[string]string{"/a": "anon", "/b": "no"})
	for _, m := range q.Mounts {
		if want := map[string]string{"/a": "anon", "/b": "named"}[m.Target]; m.Name != want {
			t.Errorf("%s has the name %q, want %q", m.Target, m.Name, want)
		}
	}
	if p.Mounts[0].Name+p.Mounts[1].Name != "named" {
		t.Error("the plan itself changed")
	}
}

func TestNamespaces(t *testing.T) {
	own := Namespaces{
		Network: Namespace{Mode: Network, Network: "bridge"}, PID: Namespace{Mode: Private}, IPC: Namespace{Mode: Private},
		UTS: Namespace{Mode: Private}, Cgroup: Namespace{Mode: Host}, User: Namespace{Mode: Host},
	}
	for _, c := range []struct {
		host   string
		d      Defaults
		change func(*Namespaces)
	}{
		{`{}`, recordingHost(), func(*Namespaces) {}},
		{`{"NetworkMode":"default"}`, recordingHost(), func(*Namespaces) {}},
		{`{"NetworkMode":"n1"}`, recordingHost(), func(n *Namespaces) { n.Network.Network = "n1" }},
		{`{"NetworkMode":"none"}`, recordingHost(), func(n *Namespaces) { n.Network = Namespace{Mode: None} }},
		{`{"NetworkMode":"host"}`, recordingHost(), func(n *Namespaces) { n.Network = Namespace{Mode: Host} }},
		{`{"NetworkMode":"container:x"}`, recordingHost(), func(n *Namespaces) { n.Network = Namespace{Mode: Container, Container: "x"} }},
		{`{"PidMode":"container:x","IpcMode":"shareable","UTSMode":"host","CgroupnsMode":"private"}`, recordingHost(), func(n *Namespaces) {
			n.PID, n.IPC.Mode, n.UTS.Mode, n.Cgroup.Mode = Namespace{Mode: Container, Container: "x"}, Shareable, Host, Private
		}},
		{`{}`, Defaults{Kernel: CompleteKernel(1, CgroupV2)}, func(n *Namespaces) { n.Cgroup.Mode = Private }},
		{`{"Privileged":true}`, Defaults{Kernel: CompleteKernel(1, CgroupV2)}, func(n *Namespaces) { n.Cgroup.Mode = Private }},
		{`{}`, Defaults{Kernel: CompleteKernel(1, CgroupV1), CgroupnsMode: "private", IpcMode: "shareable"}, func(n *Namespaces) {
			n.Cgroup.Mode, n.IPC.Mode = Private, Shareable
		}},
		{`{"Privileged":true}`, Defaults{Kernel: CompleteKernel(1, CgroupV1), CgroupnsMode: "private"}, func(*Namespaces) {}},
	} {
		p := create(t, `{"Cmd":["x"],"HostConfig":`+c.host+`}`, nil, c.d)
		want := own
		c.change(&want)
		if p.Namespaces != want {
			t.Errorf("%s: got %+v, want %+v", c.host, p.Namespaces, want)
		}
	}
	p := create(t, `{"Cmd":["x"],"NetworkDisabled":true}`, nil, recordingHost())
	if p.Namespaces.Network.Mode != None || len(p.Endpoints) != 0 {
		t.Errorf("network disabled: %+v, %v", p.Namespaces.Network, p.Endpoints)
	}
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct{ host, networking, want string }{
		{`{}`, `{}`, "bridge"},
		{`{}`, `{"default":{"GwPriority":1}}`, "bridge"},
		{`{"NetworkMode":"n1"}`, `{}`, "n1"},
		{`{"NetworkMode":"n1"}`, `{"n2":{}}`, "n1 n2"},
		{`{}`, `{"n2":null}`, "n2"},
		{`{"NetworkMode":"host"}`, `{}`, "host"},
		{`{"NetworkMode":"none"}`, `{}`, "none"},
		{`{"NetworkMode":"container:x"}`, `{"n2":{}}`, ""},
	} {
		p := create(t, `{"Cmd":["x"],"HostConfig":`+c.host+`,"NetworkingConfig":{"EndpointsConfig":`+c.networking+`}}`, nil, recordingHost())
		var got []string
		for n := range p.Endpoints {
			got = append(got, n)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: got %v, want %s", c.host, c.networking, got, c.want)
		}
	}
}

func TestHostname(t *testing.T) {
	id := strings.Repeat("c", 64)
	d := recordingHost()
	d.HostHostname = "hosty"
	for request, want := range map[string]string{
		`{}`:                                    id[:12],
		`{"Hostname":"h"}`:                      "h",
		`{"HostConfig":{"NetworkMode":"host"}}`: "hosty",
		`{"Hostname":"h","HostConfig":{"NetworkMode":"host"}}`: "h",
		`{"HostConfig":{"UTSMode":"host"}}`:                    "hosty",
		`{"HostConfig":{"NetworkMode":"container:x"}}`:         "",
	} {
		req := decode(t, request)
		if req.Config == nil {
			req.Config = &wire.ContainerConfig{}
		}
		p, _, err := New(req, busybox(), d)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Hostname(id); got != want {
			t.Errorf("%s: got %q, want %q", request, got, want)
		}
	}
}

// TestPrivilege is row S13 of the security table: one function says what
// privilege a request has. Each line is one way to ask for more.
func TestPrivilege(t *testing.T) {
	masked := len(defaultMaskedPaths)
	for _, c := range []struct {
		host    string
		seccomp string
		masked  int
		all     bool // every capability
		cgroups bool // writable
	}{
		{`{}`, Builtin, masked, false, false},
		{`{"Privileged":true}`, Unconfined, 0, true, true},
		{`{"Privileged":true,"SecurityOpt":["seccomp=builtin"]}`, Unconfined, 0, true, true},
		{`{"Privileged":true,"SecurityOpt":["seccomp={}"]}`, "{}", 0, true, true},
		{`{"Privileged":true,"CapDrop":["ALL"]}`, Unconfined, 0, true, true},
		{`{"SecurityOpt":["seccomp=unconfined"]}`, Unconfined, masked, false, false},
		{`{"SecurityOpt":["seccomp:unconfined"]}`, Unconfined, masked, false, false},
		{`{"SecurityOpt":["systempaths=unconfined"]}`, Builtin, 0, false, false},
		{`{"MaskedPaths":[],"ReadonlyPaths":[]}`, Builtin, 0, false, false},
		{`{"MaskedPaths":["/x"]}`, Builtin, 1, false, false},
		{`{"SecurityOpt":["writable-cgroups=true"]}`, Builtin, masked, false, true},
		{`{"CapAdd":["ALL"]}`, Builtin, masked, true, false},
		{`{"NetworkMode":"host","PidMode":"host","IpcMode":"host"}`, Builtin, masked, false, false},
	} {
		s := create(t, `{"Cmd":["x"],"HostConfig":`+c.host+`}`, nil, recordingHost()).Security
		if s.Seccomp != c.seccomp || len(s.MaskedPaths) != c.masked || (len(s.Capabilities(0)) == len(capNames)) != c.all || s.WritableCgroups != c.cgroups {
			t.Errorf("%s: got %+v", c.host, s)
		}
	}
	d := recordingHost()
	d.NoNewPrivileges, d.Seccomp = true, `{"x":1}`
	s := create(t, `{"Cmd":["x"]}`, nil, d).Security
	if !s.NoNewPrivileges || s.Seccomp != d.Seccomp {
		t.Errorf("daemon's defaults: %+v", s)
	}
	s = create(t, `{"Cmd":["x"],"HostConfig":{"SecurityOpt":["no-new-privileges=false","seccomp=builtin"]}}`, nil, d).Security
	if s.NoNewPrivileges || s.Seccomp != Builtin {
		t.Errorf("user's words: %+v", s)
	}
	d.Kernel.Seccomp = false
	if _, _, err := New(decode(t, `{"Cmd":["x"]}`), nil, d); err == nil {
		t.Error("a custom profile passed on a kernel without seccomp")
	}
	for _, o := range []string{"no-new-privileges=x", "writable-cgroups", "systempaths=x", "nosuch=1"} {
		if _, _, err := New(decode(t, `{"Cmd":["x"],"HostConfig":{"SecurityOpt":["`+o+`"]}}`), nil, recordingHost()); err == nil {
			t.Errorf("%s passed", o)
		}
	}
}

func TestCapabilitiesOfOldKernels(t *testing.T) {
	d := recordingHost()
	d.Kernel.LastCap = 37
	_, _, err := New(decode(t, `{"Cmd":["x"],"HostConfig":{"CapAdd":["BPF"]}}`), nil, d)
	if err == nil || err.Error() != `invalid CapAdd: unknown capability: "CAP_BPF"` {
		t.Errorf("got %v", err)
	}
	create(t, `{"Cmd":["x"],"HostConfig":{"CapAdd":["AUDIT_READ"]}}`, nil, d)
}

func TestPublishedOnlyWithANetwork(t *testing.T) {
	for mode, want := range map[string]int{"bridge": 1, "n1": 1, "host": 0, "none": 0} {
		p := create(t, `{"Cmd":["x"],"HostConfig":{"PublishAllPorts":true,"NetworkMode":"`+mode+`","PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}}`, nil, recordingHost())
		if len(p.Ports) != want || p.PublishAll != (want == 1) || len(p.HostConfig.PortBindings) != 1 {
			t.Errorf("%s: %v, %v, inspect %v", mode, p.Ports, p.PublishAll, p.HostConfig.PortBindings)
		}
	}
}

func TestCPURange(t *testing.T) {
	for n, ok := range map[int64]bool{0: true, 1: false, 1e7 - 1: false, 1e7: true, 2e9: true, 2e9 + 1: false, -1: false} {
		r := wire.Resources{NanoCPUs: n}
		err := checkResources(&r, recordingHost().Kernel, &warnings{})
		if (err == nil) != ok {
			t.Errorf("%d: got %v", n, err)
		}
		if err != nil && err.Error() != "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available" {
			t.Errorf("%d: got %v", n, err)
		}
	}
}

func TestRemappedIDs(t *testing.T) {
	d := recordingHost()
	d.UsernsRemap = true
	for _, host := range []string{`{"Privileged":true}`, `{"NetworkMode":"host"}`, `{"PidMode":"host"}`} {
		if _, _, err := New(decode(t, `{"Cmd":["x"],"HostConfig":`+host+`}`), nil, d); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: got %v", host, err)
		}
		create(t, `{"Cmd":["x"],"HostConfig":`+strings.Replace(host, "{", `{"UsernsMode":"host",`, 1)+`}`, nil, d)
	}
}

// TestMissingAbilities checks that what the kernel lacks is dropped with a word.
func TestMissingAbilities(t *testing.T) {
	req := decode(t, `{"Cmd":["x"],"HostConfig":{"Memory":67108864,"MemoryReservation":33554432,"MemorySwappiness":1,"OomKillDisable":true,
		"PidsLimit":5,"CpuShares":5,"CpuPeriod":100000,"CpuQuota":50000,"CpusetCpus":"0","BlkioWeight":20,"BlkioWeightDevice":[{}],
		"BlkioDeviceReadBps":[{}],"BlkioDeviceWriteBps":[{}],"BlkioDeviceReadIOps":[{}],"BlkioDeviceWriteIOps":[{}],"CgroupnsMode":"private"}}`)
	p, warnings, err := New(req, nil, Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 16 {
		t.Errorf("%d warnings: %q", len(warnings), warnings)
	}
	got := p.Resources
	if want := (wire.Resources{MemorySwap: -1}); !reflect.DeepEqual(got, want) {
		t.Errorf("kept %+v", got)
	}
	if p.Namespaces.Cgroup.Mode != Host {
		t.Errorf("cgroup namespace %v", p.Namespaces.Cgroup)
	}
}

func TestUpdate(t *testing.T) {
	d := recordingHost()
	limit := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		host   string
		update wire.UpdateConfig
		check  func(*Plan) bool
		kind   errs.Kind
		failed string
	}{
		{`{"Memory":134217728}`, wire.UpdateConfig{Resources: wire.Resources{Memory: 268435456, MemorySwap: 536870912, CPUShares: 512, PidsLimit: limit(50)}},
			func(p *Plan) bool {
				r := p.HostConfig.Resources
				return r.Memory == 268435456 && r.MemorySwap == 536870912 && r.CPUShares == 512 && *r.PidsLimit == 50 && p.Resources.Memory == r.Memory
			}, 0, ""},
		{`{}`, wire.UpdateConfig{RestartPolicy: wire.RestartPolicy{Name: "always"}}, func(p *Plan) bool {
			return p.Restart.Name == "always" && p.HostConfig.RestartPolicy.Name == "always"
		}, 0, ""},
		{`{}`, wire.UpdateConfig{Resources: wire.Resources{Memory: 67108864}}, nil, errs.Conflict,
			"Cannot update container ID: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"},
		{`{}`, wire.UpdateConfig{Resources: wire.Resources{Memory: 67108864, MemorySwap: -1}}, func(p *Plan) bool { return p.Resources.Memory == 67108864 && p.Resources.MemorySwap == -1 }, 0, ""},
		{`{"Memory":134217728}`, wire.UpdateConfig{Resources: wire.Resources{MemorySwap: 268435456}}, func(p *Plan) bool { return p.Resources.Memory == 134217728 }, 0, ""},
		{`{}`, wire.UpdateConfig{Resources: wire.Resources{Memory: 1024}}, nil, errs.Invalid, "Minimum memory limit allowed is 6MB"},
		{`{"Memory":134217728}`, wire.UpdateConfig{Resources: wire.Resources{Memory: 1073741824}}, nil, errs.Conflict,
			"Cannot update container ID: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"},
		{`{}`, wire.UpdateConfig{RestartPolicy: wire.RestartPolicy{Name: "bogus"}}, nil, errs.Invalid,
			"invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
		{`{}`, wire.UpdateConfig{Resources: wire.Resources{NanoCPUs: 900000000000}}, nil, errs.Invalid, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"},
		{`{"NanoCpus":500000000}`, wire.UpdateConfig{Resources: wire.Resources{CPUQuota: 50000}}, nil, errs.Conflict,
			"Cannot update container ID: Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"},
		{`{}`, wire.UpdateConfig{Resources: wire.Resources{CpusetCpus: "99"}}, nil, errs.Invalid, "Requested CPUs are not available - requested 99, available: 0-1"},
		{`{"AutoRemove":true}`, wire.UpdateConfig{RestartPolicy: wire.RestartPolicy{Name: "always"}}, nil, errs.Conflict,
			"Cannot update container ID: Restart policy cannot be updated because AutoRemove is enabled for the container"},
	} {
		p := create(t, `{"Cmd":["x"],"HostConfig":`+c.host+`}`, nil, d)
		before := p.Resources
		q, _, err := Update(p, "ID", c.update, d)
		if c.failed != "" {
			if err == nil || err.Error() != c.failed || !errs.Is(err, c.kind) {
				t.Errorf("%+v: got %v (%v), want %s", c.update, err, errs.KindOf(err), c.failed)
			}
			continue
		}
		if err != nil || !c.check(q) {
			t.Errorf("%+v: got %+v, %v", c.update, q, err)
		}
		if !reflect.DeepEqual(before, p.Resources) {
			t.Error("the plan itself changed")
		}
	}
}

func TestExec(t *testing.T) {
	p := create(t, `{"Cmd":["x"],"User":"u","WorkingDir":"/w","Env":["A=1","B=1"]}`, nil, recordingHost())
	e, err := Exec(wire.ExecCreate{Cmd: []string{"ls"}, Env: []string{"B=2", "A"}, AttachStdin: true, DetachKeys: "ctrl-a,b"}, p, "h")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=" + defaultPath, "HOSTNAME=h", "B=2"}; !slices.Equal(e.Process.Env, want) {
		t.Errorf("env %q, want %q", e.Process.Env, want)
	}
	if e.Process.User != "u" || e.Process.Dir != "/w" || !e.AttachStdin || string(e.DetachKeys) != "\x01b" {
		t.Errorf("got %+v", e)
	}
	e, err = Exec(wire.ExecCreate{Cmd: []string{"ls"}, User: "v", WorkingDir: "/x"}, p, "h")
	if err != nil || e.Process.User != "v" || e.Process.Dir != "/x" {
		t.Errorf("got %+v, %v", e, err)
	}
	for want, req := range map[string]wire.ExecCreate{
		"No exec command specified":              {},
		"Invalid escape keys (bogus-k) provided": {Cmd: []string{"x"}, DetachKeys: "bogus-k"},
	} {
		if _, err := Exec(req, p, "h"); err == nil || err.Error() != want || !errs.Is(err, errs.Invalid) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11", "a": "a", "a,b": "ab", "ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-_": "\x1f", "ctrl-\\": "\x1c",
	} {
		if got, err := ParseDetachKeys(s); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", "ctrl-", "ctrl-A", "ctrl-ab", "ab", "a,,b", "ctrl-1"} {
		if got, err := ParseDetachKeys(s); err == nil {
			t.Errorf("%q: got %q", s, got)
		}
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "sigterm": 15, "9": 9, "KILL": 9, "USR1": 10, "CHLD": 17, "RTMIN": 34, "SIGRTMIN+3": 37,
		"RTMAX": 64, "RTMAX-14": 50, "WINCH": 28, "64": 64,
	} {
		if got, err := ParseSignal(s); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1", "65", "BOGUS", "SIG", "RTMIN+16", "RTMAX-15", "RTMIN+-1", "SIGSIGTERM"} {
		if got, err := ParseSignal(s); err == nil || err.Error() != "invalid signal: "+s {
			t.Errorf("%s: got %d, %v", s, got, err)
		}
	}
}

func TestSysctlNames(t *testing.T) {
	for s, want := range map[string]string{
		"net.ipv4.ip_forward": "net.ipv4.ip_forward", "net/ipv4/ip_forward": "net.ipv4.ip_forward",
		"net/ipv4/conf/eno1.100/forwarding": "net.ipv4.conf.eno1/100.forwarding", "net.ipv4.conf.eno1/100.forwarding": "net.ipv4.conf.eno1/100.forwarding",
	} {
		if got := SysctlName(s); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}

func FuzzBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/b", ":", "/a:/b:z,ro:", "/../..:/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := parseBind(raw, "")
		if err != nil {
			return
		}
		if !strings.HasPrefix(m.Target, "/") || m.Target == "/" || strings.Contains(m.Target+"/", "/../") {
			t.Errorf("%q: target %q", raw, m.Target)
		}
		if m.Type == typeBind && !strings.HasPrefix(m.Source, "/") || m.Type == typeVolume && strings.ContainsAny(m.Name, "/\x00") {
			t.Errorf("%q: got %+v", raw, m)
		}
	})
}
