package policy

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// fakeWorld has the containers "mine" and "theirs" and two volumes.
type fakeWorld struct{}

func (fakeWorld) Labels(_ context.Context, ref string) (map[string]string, error) {
	switch ref {
	case "mine":
		return map[string]string{"team": "a", "more": "x"}, nil
	case "theirs":
		return map[string]string{"team": "b"}, nil
	}
	return nil, errs.New(errs.NotFound, "No such container: %s", ref)
}

func (fakeWorld) Volume(_ context.Context, name string) (string, map[string]string, bool) {
	switch name {
	case "plain":
		return "local", nil, true
	case "etc", "shared":
		return "local", map[string]string{"type": "none", "o": "bind", "device": "/etc"}, true
	}
	return "", nil, false
}

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func create(t *testing.T, p *Policy, body string) (*wire.CreateRequest, map[string]string, error) {
	t.Helper()
	var r wire.CreateRequest
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	if r.HostConfig == nil {
		r.HostConfig = &wire.HostConfig{}
	}
	roots, err := p.CreateContainer(t.Context(), &r, fakeWorld{})
	return &r, roots, err
}

func TestCreate(t *testing.T) {
	none := parse(t, `{"operations":["*"]}`)
	some := parse(t, `{"operations":["*"],"labels":{"team":"a"},"images":["ci/*","busybox"],"networks":["bridge","ci-*"],"create":{
		"capabilities":["cap_net_admin"],"binds":[{"path":"/srv/ci/"},{"path":"/etc/ssl","readonly":true}],"volumes":["plain","ci-*","shared"],"namespaces":["pid"],
		"devices":["/dev/fuse"],"securityOptions":["apparmor=ci*"],"sysctls":["net.*"],"runtimes":["crun"],"publish":["8000-8010"],"memory":"1g","cpus":2,"pids":100}}`)
	for _, x := range []struct {
		p      *Policy
		body   string
		denied string // what the error must say; empty: allowed
	}{
		{none, `{"Image":"anything"}`, ""},
		{none, `{"Image":"x","HostConfig":{"Privileged":true}}`, "create.privileged"},
		{none, `{"Image":"x","HostConfig":{"CapAdd":["NET_ADMIN"]}}`, "create.capabilities: NET_ADMIN"},
		{none, `{"Image":"x","HostConfig":{"CapAdd":["all"]}}`, "create.capabilities: ALL"},
		{none, `{"Image":"x","HostConfig":{"CapDrop":["ALL"],"SecurityOpt":["no-new-privileges","no-new-privileges:true"]}}`, ""},
		{none, `{"Image":"x","HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}`, "create.securityOptions"},
		{none, `{"Image":"x","HostConfig":{"SecurityOpt":["no-new-privileges:false"]}}`, "create.securityOptions"},
		{none, `{"Image":"x","HostConfig":{"Binds":["/:/host"]}}`, `create.binds: "/"`},
		{none, `{"Image":"x","HostConfig":{"Binds":["data:/data"]}}`, ""},
		{none, `{"Image":"x","HostConfig":{"Binds":["etc:/data"]}}`, "any place of the host"},
		{none, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/e"}]}}`, "create.binds"},
		{none, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","Target":"/e","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/"}}}}]}}`, "any place of the host"},
		{none, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","Target":"/e","VolumeOptions":{"DriverConfig":{"Name":"nfs"}}}]}}`, "volume driver"},
		{none, `{"Image":"x","HostConfig":{"VolumeDriver":"nfs","Binds":["v:/v"]}}`, "volume driver"},
		{none, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/e"}],"Tmpfs":{"/t":""}}}`, ""},
		{none, `{"Image":"x","HostConfig":{"NetworkMode":"host"}}`, "host's network"},
		{none, `{"Image":"x","HostConfig":{"PidMode":"host"}}`, "host's pid"},
		{none, `{"Image":"x","HostConfig":{"IpcMode":"host"}}`, "host's ipc"},
		{none, `{"Image":"x","HostConfig":{"UTSMode":"host"}}`, "host's uts"},
		{none, `{"Image":"x","HostConfig":{"UsernsMode":"host"}}`, "host's user"},
		{none, `{"Image":"x","HostConfig":{"CgroupnsMode":"host"}}`, "host's cgroup"},
		{none, `{"Image":"x","HostConfig":{"PidMode":"container:mine"}}`, "create.join"},
		{none, `{"Image":"x","HostConfig":{"VolumesFrom":["mine"]}}`, "create.join"},
		{none, `{"Image":"x","HostConfig":{"Links":["mine:m"]}}`, "create.join"},
		{none, `{"Image":"x","HostConfig":{"Devices":[{"PathOnHost":"/dev/sda"}]}}`, "create.devices"},
		{none, `{"Image":"x","HostConfig":{"DeviceCgroupRules":["a *:* rwm"]}}`, "device rules"},
		{none, `{"Image":"x","HostConfig":{"DeviceRequests":[{"Count":-1}]}}`, "create.deviceRequests"},
		{none, `{"Image":"x","HostConfig":{"CgroupParent":"/"}}`, "control group"},
		{none, `{"Image":"x","HostConfig":{"MaskedPaths":[]}}`, "masked"},
		{none, `{"Image":"x","HostConfig":{"ReadonlyPaths":[]}}`, "read-only paths"},
		{none, `{"Image":"x","HostConfig":{"OomScoreAdj":-1000}}`, "OomScoreAdj"},
		{none, `{"Image":"x","HostConfig":{"Sysctls":{"kernel.shm_rmid_forced":"1"}}}`, "create.sysctls"},
		{none, `{"Image":"x","HostConfig":{"Runtime":"evil"}}`, "create.runtimes"},
		{none, `{"Image":"x","HostConfig":{"LogConfig":{"Type":"syslog"}}}`, "create.logDrivers"},
		{none, `{"Image":"x","HostConfig":{"Annotations":{"a":"b"}}}`, "annotations"},
		{none, `{"Image":"x","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}}}`, "create.publish"},
		{none, `{"Image":"x","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":""},{"HostPort":"0"}]}}}`, ""},
		{none, `{"Image":"x","HostConfig":{"CpuRealtimeRuntime":1}}`, "real-time"},

		{some, `{"Image":"ci/app:1"}`, ""},
		{some, `{"Image":"evil/ci/app"}`, "images:"},
		{some, `{"Image":"sha256:abc"}`, "images:"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/srv/ci/job1:/w"]}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/srv/cix:/w"]}}`, "create.binds"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/srv/ci/../../etc:/w"]}}`, "create.binds"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/srv/ci/a:/w:rshared"]}}`, "propagated"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/etc/ssl:/w:ro"]}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["/etc/ssl:/w"]}}`, "create.binds"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["other:/w"]}}`, "create.volumes"},
		{some, `{"Image":"busybox","HostConfig":{"Binds":["shared:/w"]}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"CapAdd":["CAP_NET_ADMIN"],"PidMode":"host","Runtime":"crun","SecurityOpt":["apparmor=ci-x"],"Sysctls":{"net.core.somaxconn":"1"},"Devices":[{"PathOnHost":"/dev/./fuse"}]}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"PidMode":"container:mine","VolumesFrom":["mine:ro"]}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"PidMode":"container:theirs"}}`, "labels:"},
		{some, `{"Image":"busybox","HostConfig":{"NetworkMode":"container:theirs"}}`, "labels:"},
		{some, `{"Image":"busybox","HostConfig":{"VolumesFrom":["theirs"]}}`, "labels:"},
		{some, `{"Image":"busybox","HostConfig":{"VolumesFrom":["nobody"]}}`, "No such container"},
		{some, `{"Image":"busybox","Labels":{"team":"b"}}`, "labels:"},
		{some, `{"Image":"busybox","HostConfig":{"NetworkMode":"ci-1"}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"NetworkMode":"prod"}}`, "networks:"},
		{some, `{"Image":"busybox","HostConfig":{"NetworkMode":"ci-1"},"NetworkingConfig":{"EndpointsConfig":{"prod":{}}}}`, "networks:"},
		{some, `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8000"},{"HostPort":"8001-8010"}]}}}`, ""},
		{some, `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8009-8011"}]}}}`, "create.publish"},
		{some, `{"Image":"busybox","HostConfig":{"Memory":2147483648}}`, "create.memory"},
		{some, `{"Image":"busybox","HostConfig":{"MemorySwap":-1}}`, "create.memory"},
		{some, `{"Image":"busybox","HostConfig":{"OomKillDisable":true}}`, "create.memory"},
		{some, `{"Image":"busybox","HostConfig":{"NanoCpus":3000000000}}`, "create.cpus"},
		{some, `{"Image":"busybox","HostConfig":{"CpuPeriod":1000,"CpuQuota":2001}}`, "create.cpus"},
		{some, `{"Image":"busybox","HostConfig":{"PidsLimit":-1}}`, "create.pids"},
	} {
		_, _, err := create(t, x.p, x.body)
		switch {
		case x.denied == "" && err != nil:
			t.Errorf("%s: %v", x.body, err)
		case x.denied != "" && (err == nil || !strings.Contains(err.Error(), x.denied)):
			t.Errorf("%s: %v, not %q", x.body, err, x.denied)
		}
	}
}

func TestCreateFillsIn(t *testing.T) {
	p := parse(t, `{"operations":["*"],"labels":{"team":"a"},"create":{"binds":[{"path":"/srv/ci"}],"memory":"1g","cpus":1.5,"pids":9}}`)
	r, roots, err := create(t, p, `{"Image":"x","HostConfig":{"Binds":["/srv/ci/j:/w"]}}`)
	if err != nil {
		t.Fatal(err)
	}
	h := r.HostConfig
	if r.Config.Labels["team"] != "a" || h.Memory != 1<<30 || h.NanoCPUs != 1.5e9 || *h.PidsLimit != 9 || roots["/w"] != "/srv/ci" {
		t.Errorf("%+v %+v %v", r.Config, h, roots)
	}
	r, _, err = create(t, p, `{"Image":"x","HostConfig":{"Memory":5,"CpuPeriod":1000}}`)
	if err != nil || r.HostConfig.Memory != 5 || r.HostConfig.CPUQuota != 1500 || r.HostConfig.NanoCPUs != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// looked says of every field of a create request whether the policy looks at it
// or why it need not. A field that Docker adds is denied a place until somebody
// has thought about it.
var looked = map[string]string{
	"Hostname": "own", "Domainname": "own", "User": "inside", "AttachStdin": "own", "AttachStdout": "own", "AttachStderr": "own", "ExposedPorts": "own", "Tty": "own", "OpenStdin": "own",
	"StdinOnce": "own", "Env": "inside", "Cmd": "inside", "Healthcheck": "inside", "ArgsEscaped": "inside", "Image": "yes", "Volumes": "mounts", "WorkingDir": "inside", "Entrypoint": "inside",
	"NetworkDisabled": "takes away", "OnBuild": "inside", "Labels": "yes", "StopSignal": "inside", "StopTimeout": "own", "Shell": "inside", "MacAddress": "own",
	"Binds": "mounts", "ContainerIDFile": "the client's", "LogConfig": "yes", "NetworkMode": "yes", "PortBindings": "yes", "RestartPolicy": "own", "AutoRemove": "own", "VolumeDriver": "mounts",
	"VolumesFrom": "yes", "ConsoleSize": "own", "Annotations": "yes", "CapAdd": "yes", "CapDrop": "takes away", "CgroupnsMode": "yes", "DNS": "own", "DNSOptions": "own", "DNSSearch": "own",
	"ExtraHosts": "own", "GroupAdd": "inside", "IpcMode": "yes", "Cgroup": "yes", "Links": "yes", "OomScoreAdj": "yes", "PidMode": "yes", "Privileged": "yes", "PublishAllPorts": "the daemon's choice",
	"ReadonlyRootfs": "takes away", "SecurityOpt": "yes", "StorageOpt": "takes away", "Tmpfs": "memory", "UTSMode": "yes", "UsernsMode": "yes", "ShmSize": "memory", "Sysctls": "yes", "Runtime": "yes",
	"Umask": "inside", "Isolation": "Windows", "Resources": "yes", "Mounts": "mounts", "MaskedPaths": "yes", "ReadonlyPaths": "yes", "Init": "own",
	"CPUShares": "weight", "Memory": "yes", "NanoCPUs": "yes", "CgroupParent": "yes", "BlkioWeight": "weight", "BlkioWeightDevice": "weight", "BlkioDeviceReadBps": "takes away",
	"BlkioDeviceWriteBps": "takes away", "BlkioDeviceReadIOps": "takes away", "BlkioDeviceWriteIOps": "takes away", "CPUPeriod": "yes", "CPUQuota": "yes", "CPURealtimePeriod": "yes",
	"CPURealtimeRuntime": "yes", "CpusetCpus": "takes away", "CpusetMems": "takes away", "Devices": "yes", "DeviceCgroupRules": "yes", "DeviceRequests": "yes", "MemoryReservation": "weight",
	"MemorySwap": "yes", "MemorySwappiness": "weight", "OomKillDisable": "yes", "PidsLimit": "yes", "Ulimits": "inside", "CPUCount": "Windows", "CPUPercent": "Windows",
	"IOMaximumIOps": "Windows", "IOMaximumBandwidth": "Windows", "KernelMemory": "gone", "KernelMemoryTCP": "gone", "Config": "yes", "HostConfig": "yes", "NetworkingConfig": "yes",
	"After": "own", "NetRate": "takes away", "UpdateConfig": "yes", "Gantry": "yes", "PublishedPorts": "yes", "AddPorts": "yes", "RemovePorts": "takes away", "AddMounts": "yes",
	"RemoveMounts": "takes away", "RemoveLabels": "yes",
	"IDMaps": "refused: guardedLife.Create",
}

func TestEveryFieldIsThoughtOf(t *testing.T) {
	for _, v := range []any{wire.CreateRequest{}, wire.ContainerConfig{}, wire.HostConfig{}, wire.Resources{}, wire.CreateExtra{}, wire.UpdateRequest{}, wire.UpdateConfig{}, wire.UpdateExtra{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			if name := typ.Field(i).Name; looked[name] == "" {
				t.Errorf("%v.%s: nobody has thought about what it could do on a scoped socket: decide in CreateContainer, then say so here", typ, name)
			}
		}
	}
}

func TestOperations(t *testing.T) {
	p := parse(t, `{"operations":["@read","exec.*","container.create","build.grpc"],"deny":["container.logs","exec.start"]}`)
	for _, x := range []struct {
		name, class string
		ok          bool
	}{
		{"container.list", "read", true}, {"container.logs", "read", false}, {"container.create", "run", true}, {"container.kill", "write", false},
		{"exec.create", "run", true}, {"exec.start", "run", false}, {"execs.x", "run", false}, {"build.grpc", "opaque", true}, {"build.session", "opaque", false}, {"", "", false},
	} {
		if err := p.Operation(x.name, x.class); (err == nil) != x.ok || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	if all := parse(t, `{"operations":["*"]}`); all.Operation("build.grpc", "opaque") == nil || all.Operation("system.mend", "admin") != nil {
		t.Error("* must not mean what no policy can read")
	}
	if err := parse(t, `{"operations":["container.lst"]}`).CheckOperations(map[string]string{"container.list": "read"}); err == nil {
		t.Error("a name that is no operation")
	}
}

func TestParseIsStrict(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `{"operations":[]}`, `{"operations":["*"],"bogus":1}`, `{"operations":["*"],"operations":["@read"]}`, `{"operations":["*"],"Operations":["@read"]}`,
		`{"operations":["*"]} {}`, `{"operations":["*"],"create":{"privileged":"yes"}}`, `{"operations":["*"],"create":{"binds":[{"path":"rel"}]}}`,
		`{"operations":["*"],"create":{"namespaces":["net"]}}`, `{"operations":["*"],"create":{"memory":"much"}}`, `{"operations":["*"],"create":{"publish":["99999"]}}`,
		`{"operations":["*"],"create":{"pids":-1}}`, `{"operations":["*"],"labels":{"":"x"}}`, `{"operations":["*"],"create":{"binds":[{"path":"/a","path":"/b"}]}}`,
	} {
		if p, err := Parse("x", []byte(text)); err == nil || !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %+v %v", text, p, err)
		}
	}
	for _, name := range ReadyNames() {
		data, _ := Ready(name)
		parse(t, string(data))
	}
}

func TestOtherRequests(t *testing.T) {
	p := parse(t, `{"operations":["*"],"labels":{"team":"a"},"images":["ci/*"],"exec":{"users":["","app"]},"create":{"memory":"1g"}}`)
	edit := func(x wire.UpdateExtra) error { return p.UpdateContainer(&wire.UpdateRequest{Gantry: &x}) }
	for name, x := range map[string]struct {
		err error
		ok  bool
	}{
		"exec":            {p.CreateExec(&wire.ExecCreate{User: "app"}), true},
		"exec as root":    {p.CreateExec(&wire.ExecCreate{User: "root"}), false},
		"exec privileged": {p.CreateExec(&wire.ExecCreate{Privileged: true}), false},
		"update":          {p.UpdateContainer(&wire.UpdateRequest{UpdateConfig: wire.UpdateConfig{Resources: wire.Resources{Memory: 1 << 20}}}), true},
		"update memory":   {p.UpdateContainer(&wire.UpdateRequest{UpdateConfig: wire.UpdateConfig{Resources: wire.Resources{Memory: 1 << 40}}}), false},
		"update devices":  {p.UpdateContainer(&wire.UpdateRequest{UpdateConfig: wire.UpdateConfig{Resources: wire.Resources{DeviceCgroupRules: []string{"a"}}}}), false},
		"edit":            {edit(wire.UpdateExtra{Env: []string{"A=b"}, AddMounts: []wire.Mount{{Type: "tmpfs", Target: "/t"}}, Labels: map[string]string{"x": "y", "team": "a"}}), true},
		"edit mount":      {edit(wire.UpdateExtra{AddMounts: []wire.Mount{{Type: "bind", Source: "/", Target: "/t"}}}), false},
		"edit volume":     {edit(wire.UpdateExtra{AddMounts: []wire.Mount{{Type: "volume", Source: "etc", Target: "/t"}}}), false},
		"edit label":      {edit(wire.UpdateExtra{RemoveLabels: []string{"team"}}), false},
		"edit label away": {edit(wire.UpdateExtra{Labels: map[string]string{"team": "b"}}), false},
		"edit ports":      {edit(wire.UpdateExtra{AddPorts: wire.PortMap{{}: {{HostPort: "22"}}}}), false},
		"edit all ports":  {edit(wire.UpdateExtra{PublishedPorts: &wire.PortMap{{}: {{HostPort: "22"}}}}), false},
		"network":         {p.CreateNetwork(&wire.NetworkCreate{Name: "n"}), true},
		"macvlan":         {p.CreateNetwork(&wire.NetworkCreate{Name: "n", Driver: "macvlan"}), false},
		"bridge name":     {p.CreateNetwork(&wire.NetworkCreate{Name: "n", Options: map[string]string{"com.docker.network.bridge.name": "eth0"}}), false},
		"build":           {p.RunBuild(BuildRequest{Tags: []string{"ci/a:1"}}), true},
		"build tag":       {p.RunBuild(BuildRequest{Tags: []string{"prod/a:1"}}), false},
		"build host":      {p.RunBuild(BuildRequest{Network: "host"}), false},
		"build remote":    {p.RunBuild(BuildRequest{Remote: "https://x/y.git"}), false},
		"import":          {Import(p, "ci/a:1", "-"), true},
		"import other":    {Import(p, "prod/a:1", "-"), false},
		"import remote":   {Import(p, "ci/a:1", "http://169.254.169.254/x"), false},
		"volume":          {p.Volume("volume.create", "v", "", nil), true},
		"volume bind":     {p.Volume("volume.create", "v", "local", map[string]string{"o": "bind", "device": "/", "type": "none"}), false},
		"volume tmpfs":    {p.Volume("volume.create", "v", "local", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}), true},
		"volume trick":    {p.Volume("volume.create", "v", "local", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "rbind"}), false},
	} {
		if (x.err == nil) != x.ok {
			t.Errorf("%s: %v", name, x.err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, x := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c*e", "abcde", true}, {"a*c*e", "abdde", false}, {"aa*aa", "aaa", false}, {"r/*:1", "r/x/y:1", true},
	} {
		if got := match(x.pattern, x.s); got != x.want {
			t.Errorf("match(%q, %q) = %v", x.pattern, x.s, got)
		}
	}
}
