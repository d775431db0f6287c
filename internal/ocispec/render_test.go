package ocispec

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/plan"
	"gantry/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func planOf(t *testing.T, request string, d plan.Defaults) *plan.Plan {
	t.Helper()
	var req wire.CreateRequest
	if err := json.Unmarshal([]byte(request), &req); err != nil {
		t.Fatal(err)
	}
	if req.Config == nil {
		req.Config = &wire.ContainerConfig{}
	}
	img := &plan.Image{}
	img.Config.Cmd = []string{"sh"}
	p, _, err := plan.New(req, img, d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func host(v plan.CgroupVersion) plan.Defaults {
	return plan.Defaults{Kernel: plan.CompleteKernel(2, v), HostHostname: "hosty"}
}

func inputs(p *plan.Plan) Inputs {
	return Inputs{
		ID: testID, Hostname: p.Hostname(testID), RootPath: "rootfs", CgroupPath: "/docker/" + testID,
		NetNS: "/run/netns", User: User{Groups: []uint32{0}, Home: "/root"},
		HostsPath: "/c/hosts", HostnamePath: "/c/hostname", ResolvConfPath: "/c/resolv.conf",
		Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, RecursiveReadOnly: true,
	}
}

func render(t *testing.T, request string, v plan.CgroupVersion, change func(*Inputs)) *specs.Spec {
	t.Helper()
	p := planOf(t, request, host(v))
	in := inputs(p)
	in.CgroupV2 = v == plan.CgroupV2
	if change != nil {
		change(&in)
	}
	s, err := Render(p, in)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return s
}

// TestGolden holds whole specs. Read a change of a golden file as carefully as
// a change of code: most of what is in there keeps containers apart.
func TestGolden(t *testing.T) {
	devices := func(in *Inputs) {
		in.Devices = []Device{
			{Path: "/dev/xnull", Type: "c", Number: DeviceNumber{1, 3}, Mode: 0o666, Access: "r"},
			{Path: "/dev/sda", Type: "b", Number: DeviceNumber{8, 0}, Mode: 0o660, GID: 6, Access: "rwm"},
		}
	}
	for _, c := range []struct {
		name, request string
		version       plan.CgroupVersion
		change        func(*Inputs)
	}{
		{"plain", `{"Hostname":"h1"}`, plan.CgroupV1, nil},
		{"plain-v2", `{"Tty":true}`, plan.CgroupV2, nil},
		{"privileged", `{"HostConfig":{"Privileged":true}}`, plan.CgroupV1, devices},
		{"rich", `{"Hostname":"richhost","Domainname":"example.test","User":"1000","Env":["A=1"],"Tty":true,"Volumes":{"/anon":{}},
			"HostConfig":{"Binds":["vol:/data:ro","/srv:/hostsrv:rslave,ro"],"Tmpfs":{"/t":"size=1m,mode=700,exec"},"ReadonlyRootfs":true,
			"Memory":67108864,"NanoCpus":500000000,"PidsLimit":50,"CpuShares":512,"CpusetCpus":"0","BlkioWeight":300,
			"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":1000}],"CapAdd":["NET_ADMIN"],"CapDrop":["MKNOD"],
			"Ulimits":[{"Name":"nofile","Soft":1000,"Hard":2000},{"Name":"core","Soft":-1,"Hard":-1}],"Sysctls":{"net.core.somaxconn":"77","kernel.msgmax":"1"},
			"SecurityOpt":["no-new-privileges"],"OomScoreAdj":100,"DeviceCgroupRules":["c 188:* rwm"],"Init":true,"ConsoleSize":[24,80],
			"ShmSize":8388608,"Annotations":{"a":"b"},"CgroupnsMode":"private"}}`, plan.CgroupV1, func(in *Inputs) {
			devices(in)
			in.User = User{UID: 1000, GID: 1001, Groups: []uint32{1001, 50}, Home: "/home/a"}
			in.Sources = map[string]string{"/data": "/volumes/vol", "/anon": "/volumes/anon"}
			in.BlockDevice = map[string]DeviceNumber{"/dev/sda": {8, 0}}
		}},
		{"host", `{"HostConfig":{"NetworkMode":"host","PidMode":"host","IpcMode":"host","UTSMode":"host"}}`, plan.CgroupV2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := json.MarshalIndent(render(t, c.request, c.version, c.change), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + c.name + ".json"
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != strings.TrimSpace(string(want)) {
				t.Errorf("differs from %s; look at it with -update and git diff", file)
			}
		})
	}
}

// TestRecordedMounts compares the mounts with those that Docker's container
// saw in /proc/self/mountinfo.
func TestRecordedMounts(t *testing.T) {
	s := render(t, `{"Hostname":"h1"}`, plan.CgroupV1, nil)
	want := []struct{ dest, fstype, options string }{
		{"/proc", "proc", "nosuid,noexec,nodev"},
		{"/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"},
		{"/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"/sys", "sysfs", "nosuid,noexec,nodev,ro"},
		{"/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,ro"},
		{"/dev/mqueue", "mqueue", "nosuid,noexec,nodev"},
		{"/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"},
		{"/etc/resolv.conf", "bind", "rbind,rprivate"},
		{"/etc/hostname", "bind", "rbind,rprivate"},
		{"/etc/hosts", "bind", "rbind,rprivate"},
	}
	for i, w := range want {
		if i >= len(s.Mounts) {
			t.Fatalf("%d mounts", len(s.Mounts))
		}
		m := s.Mounts[i]
		if m.Destination != w.dest || m.Type != w.fstype || strings.Join(m.Options, ",") != w.options {
			t.Errorf("mount %d: got %+v, want %+v", i, m, w)
		}
	}
	if len(s.Mounts) != len(want) {
		t.Errorf("%d mounts, want %d", len(s.Mounts), len(want))
	}
}

// capMask is the set as /proc/self/status prints it.
func capMask(t *testing.T, names []string) uint64 {
	t.Helper()
	all := plan.AllCapabilities(0)
	var out uint64
	for _, n := range names {
		i := slices.Index(all, n)
		if i < 0 {
			t.Fatalf("capability %s", n)
		}
		out |= 1 << i
	}
	return out
}

// TestRecordedCapabilities is row S21 of the security table for capabilities:
// the numbers were read in /proc/self/status of Docker's containers.
func TestRecordedCapabilities(t *testing.T) {
	for _, c := range []struct {
		request string
		have    uint64
		want    uint64
	}{
		{`{}`, 0, 0xa80425fb},
		{`{"HostConfig":{"CapDrop":["ALL"]}}`, 0, 0},
		{`{"HostConfig":{"CapDrop":["ALL"],"CapAdd":["CHOWN"]}}`, 0, 1},
		{`{"HostConfig":{"CapDrop":["all"],"CapAdd":["cap_chown"]}}`, 0, 1},
		{`{"HostConfig":{"Privileged":true}}`, 0x1fffeffffff, 0x1fffeffffff},
		{`{"HostConfig":{"Privileged":true}}`, 0, 0x1ffffffffff},
		{`{"User":"1000:1000","HostConfig":{"CapAdd":["NET_ADMIN"]}}`, 0, 0xa80435fb},
		{`{"HostConfig":{"CapAdd":["ALL"]}}`, 0, 0x1ffffffffff},
		{`{"HostConfig":{"CapAdd":["ALL"],"CapDrop":["SYS_ADMIN"]}}`, 0, 0x1ffffdfffff},
		{`{"HostConfig":{"CapDrop":["CHOWN"]}}`, 0, 0xa80425fa},
		{`{"HostConfig":{"CapDrop":["CHOWN"],"CapAdd":["CHOWN"]}}`, 0, 0xa80425fb},
		{`{}`, 0xff, 0xfb},
	} {
		s := render(t, c.request, plan.CgroupV1, func(in *Inputs) { in.Caps = c.have })
		sets := s.Process.Capabilities
		for _, set := range [][]string{sets.Bounding, sets.Effective, sets.Permitted} {
			if got := capMask(t, set); got != c.want {
				t.Errorf("%s: got %#x, want %#x", c.request, got, c.want)
			}
		}
		if len(sets.Inheritable) > 0 || len(sets.Ambient) > 0 {
			t.Errorf("%s: inheritable %v, ambient %v", c.request, sets.Inheritable, sets.Ambient)
		}
	}
}

func TestRecordedEnvironment(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, c := range []struct {
		request string
		want    []string
	}{
		{`{"Hostname":"h1"}`, []string{path, "HOSTNAME=h1", "HOME=/root"}},
		{`{"Hostname":"h1","Tty":true}`, []string{path, "HOSTNAME=h1", "TERM=xterm", "HOME=/root"}},
		{`{"Hostname":"h1","Env":["A=1","B=\"q\"","C= x"]}`, []string{path, "HOSTNAME=h1", "A=1", `B="q"`, "C= x", "HOME=/root"}},
		{`{}`, []string{path, "HOSTNAME=" + testID[:12], "HOME=/root"}},
		{`{"Env":["PATH=/x","HOSTNAME=y","HOME=/z"]}`, []string{"PATH=/x", "HOSTNAME=y", "HOME=/z"}},
		{`{"Env":["PATH","HOME=","A=1","A=2"]}`, []string{"HOSTNAME=" + testID[:12], "A=2", "HOME=/root"}},
		{`{"HostConfig":{"NetworkMode":"host"}}`, []string{path, "HOSTNAME=hosty", "HOME=/root"}},
	} {
		if got := render(t, c.request, plan.CgroupV1, nil).Process.Env; !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.request, got, c.want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	join := func(in *Inputs) { in.PIDNS, in.IPCNS, in.ShmPath = "/p", "/i", "/shm" }
	for _, c := range []struct {
		request string
		version plan.CgroupVersion
		change  func(*Inputs)
		want    string
	}{
		{`{}`, plan.CgroupV1, nil, "mount network=/run/netns uts pid ipc"},
		{`{}`, plan.CgroupV2, nil, "mount network=/run/netns uts pid ipc cgroup"},
		{`{"HostConfig":{"CgroupnsMode":"host"}}`, plan.CgroupV2, nil, "mount network=/run/netns uts pid ipc"},
		{`{"HostConfig":{"Privileged":true}}`, plan.CgroupV1, nil, "mount network=/run/netns uts pid ipc"},
		{`{"HostConfig":{"Privileged":true}}`, plan.CgroupV2, nil, "mount network=/run/netns uts pid ipc cgroup"},
		{`{"HostConfig":{"NetworkMode":"host","PidMode":"host","IpcMode":"host","UTSMode":"host"}}`, plan.CgroupV1, nil, "mount"},
		{`{"HostConfig":{"PidMode":"container:x","IpcMode":"container:x"}}`, plan.CgroupV1, join, "mount network=/run/netns uts pid=/p ipc=/i"},
		{`{"HostConfig":{"IpcMode":"none"}}`, plan.CgroupV1, nil, "mount network=/run/netns uts pid ipc"},
	} {
		s := render(t, c.request, c.version, c.change)
		var got []string
		for _, n := range s.Linux.Namespaces {
			w := string(n.Type)
			if n.Path != "" {
				w += "=" + n.Path
			}
			got = append(got, w)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.request, got, c.want)
		}
	}
}

// mountAt returns the only mount at target, or fails.
func mountAt(t *testing.T, s *specs.Spec, target string) specs.Mount {
	t.Helper()
	var found []specs.Mount
	for _, m := range s.Mounts {
		if m.Destination == target {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d mounts at %s", len(found), target)
	}
	return found[0]
}

func TestPrivileged(t *testing.T) {
	s := render(t, `{"HostConfig":{"Privileged":true}}`, plan.CgroupV2, nil)
	for _, target := range []string{"/sys", "/sys/fs/cgroup"} {
		if slices.Contains(mountAt(t, s, target).Options, "ro") {
			t.Errorf("%s is read-only", target)
		}
	}
	if len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 || s.Linux.Seccomp != nil {
		t.Errorf("masked %v, read-only %v, seccomp %v", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Linux.Seccomp)
	}
	want := []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	if !reflect.DeepEqual(s.Linux.Resources.Devices, want) {
		t.Errorf("device rules %+v", s.Linux.Resources.Devices)
	}
}

// TestDeviceRules is row S27 of the security table: a list of what is allowed,
// after a refusal of everything.
func TestDeviceRules(t *testing.T) {
	for _, request := range []string{`{}`, `{"HostConfig":{"CapAdd":["ALL"]}}`, `{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}`} {
		rules := render(t, request, plan.CgroupV1, nil).Linux.Resources.Devices
		if r := rules[0]; r.Allow || r.Type != "" || r.Major != nil || r.Minor != nil || r.Access != "rwm" {
			t.Errorf("%s: begins with %+v", request, r)
		}
		for _, r := range rules[1:] {
			if !r.Allow {
				t.Errorf("%s: a second refusal %+v", request, r)
			}
			if r.Major == nil && r.Access != "m" {
				t.Errorf("%s: every device with access %q", request, r.Access)
			}
			if r.Type == "b" && r.Access != "m" {
				t.Errorf("%s: a block device %+v", request, r)
			}
		}
	}
	s := render(t, `{}`, plan.CgroupV1, func(in *Inputs) {
		in.Devices = []Device{{Path: "/dev/x", Type: "c", Number: DeviceNumber{9, 9}}, {Path: "/dev/fifo", Type: "p", Access: "rwm"}}
	})
	if n := len(s.Linux.Resources.Devices); n != len(defaultDeviceRules()) {
		t.Errorf("devices without access made %d rules", n)
	}
	if len(s.Linux.Devices) != 2 {
		t.Errorf("%d nodes", len(s.Linux.Devices))
	}
}

func TestMountsGiveWay(t *testing.T) {
	s := render(t, `{"HostConfig":{"Binds":["/my/hosts:/etc/hosts","/my/dev:/dev:ro"],"Tmpfs":{"/sys/fs/cgroup":""}}}`, plan.CgroupV1, nil)
	if m := mountAt(t, s, "/etc/hosts"); m.Source != "/my/hosts" {
		t.Errorf("got %+v", m)
	}
	if m := mountAt(t, s, "/sys/fs/cgroup"); m.Type != "tmpfs" {
		t.Errorf("got %+v", m)
	}
	if m := mountAt(t, s, "/dev"); m.Source != "/my/dev" || strings.Join(m.Options, ",") != "rbind,rro,rprivate" {
		t.Errorf("got %+v", m)
	}
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/dev/") {
			t.Errorf("%s over the user's /dev", m.Destination)
		}
	}
	s = render(t, `{"HostConfig":{"IpcMode":"none"}}`, plan.CgroupV1, nil)
	for _, m := range s.Mounts {
		if m.Destination == "/dev/shm" {
			t.Error("/dev/shm without IPC")
		}
	}
	s = render(t, `{"HostConfig":{"IpcMode":"host"}}`, plan.CgroupV1, nil)
	if m := mountAt(t, s, "/dev/shm"); m.Type != "bind" || m.Source != "/dev/shm" {
		t.Errorf("got %+v", m)
	}
	s = render(t, `{"HostConfig":{"Binds":["/a:/x/y/z","/b:/x"],"ReadonlyRootfs":true}}`, plan.CgroupV1, nil)
	var order []string
	for _, m := range s.Mounts[7:] {
		order = append(order, m.Destination)
	}
	if want := []string{"/x", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/x/y/z"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if m := mountAt(t, s, "/etc/hosts"); !slices.Contains(m.Options, "ro") {
		t.Errorf("writable on a read-only root: %+v", m)
	}
}

func TestReadOnlyMounts(t *testing.T) {
	for _, c := range []struct {
		mount   string
		able    bool
		options string // "" for an error
	}{
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true}`, true, "rbind,rro,rprivate"},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true}`, false, "rbind,ro,rprivate"},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"ReadOnlyNonRecursive":true}}`, true, "rbind,ro,rprivate"},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"NonRecursive":true}}`, true, "bind,ro,rprivate"},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"ReadOnlyForceRecursive":true}}`, true, "rbind,rro,rprivate"},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"ReadOnlyForceRecursive":true}}`, false, ""},
		{`{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"Propagation":"rshared"}}`, true, "rbind,ro,rshared"},
		{`{"Type":"bind","Source":"/s","Target":"/t"}`, true, "rbind,rprivate"},
	} {
		p := planOf(t, `{"HostConfig":{"Mounts":[`+c.mount+`]}}`, host(plan.CgroupV1))
		in := inputs(p)
		in.RecursiveReadOnly = c.able
		s, err := Render(p, in)
		if c.options == "" {
			if err == nil {
				t.Errorf("%s: no error", c.mount)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.mount, err)
			continue
		}
		if got := strings.Join(mountAt(t, s, "/t").Options, ","); got != c.options {
			t.Errorf("%s: got %s, want %s", c.mount, got, c.options)
		}
	}
}

func TestTmpfsOptions(t *testing.T) {
	for _, c := range []struct{ user, want, failed string }{
		{"", "noexec,nosuid,nodev,rprivate", ""},
		{"size=1m,mode=700", "noexec,nosuid,nodev,rprivate,size=1m,mode=700", ""},
		{"exec", "nosuid,nodev,rprivate,exec", ""},
		{"exec,noexec", "nosuid,nodev,rprivate,noexec", ""},
		{"size=1m,size=2m,defaults", "noexec,nosuid,nodev,rprivate,size=2m", ""},
		{"bogus=1", "", `invalid tmpfs option "bogus"`},
		{"bogus", "", `invalid tmpfs option "bogus"`},
		{"size", "", `invalid tmpfs option "size"`},
		{"bind", "", `invalid tmpfs option "bind"`},
		{"remount", "", `invalid tmpfs option "remount"`},
	} {
		got, err := tmpfsOptions(c.user)
		if c.failed != "" {
			if err == nil || err.Error() != c.failed {
				t.Errorf("%q: got %v, want %s", c.user, err, c.failed)
			}
			continue
		}
		if err != nil || strings.Join(got, ",") != c.want {
			t.Errorf("%q: got %v, %v, want %s", c.user, got, err, c.want)
		}
	}
}

func TestSysctls(t *testing.T) {
	for _, c := range []struct{ host, name, failed string }{
		{`{}`, "net.ipv4.ip_forward", ""},
		{`{}`, "net/ipv4/ip_forward", ""},
		{`{}`, "net.ipv4.conf.eth0/1.forwarding", ""},
		{`{}`, "fs.mqueue.msg_max", ""},
		{`{}`, "kernel.domainname", ""},
		{`{}`, "kernel.hostname", `sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field`},
		{`{}`, "kernel.core_pattern", `sysctl "kernel.core_pattern" is not in a separate kernel namespace`},
		{`{}`, "net/../kernel/core_pattern", `sysctl "net.//.kernel.core_pattern" is no name below /proc/sys`},
		{`{}`, "net.//.kernel.core_pattern", `sysctl "net.//.kernel.core_pattern" is no name below /proc/sys`},
		{`{}`, "net..x", `sysctl "net..x" is no name below /proc/sys`},
		{`{"IpcMode":"host"}`, "kernel.shmmax", `sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace`},
		{`{"UTSMode":"host"}`, "kernel.domainname", `sysctl "kernel.domainname" is not allowed in the hosts uts namespace`},
		{`{"Privileged":true,"NetworkMode":"host"}`, "net.core.somaxconn", `sysctl "net.core.somaxconn" not allowed in host network namespace`},
	} {
		p := planOf(t, `{"HostConfig":`+c.host+`}`, host(plan.CgroupV1))
		p.Sysctls = map[string]string{c.name: "1"}
		s, err := Render(p, inputs(p))
		if c.failed != "" {
			if err == nil || err.Error() != runtimeFailed+c.failed {
				t.Errorf("%s: got %v, want %s", c.name, err, c.failed)
			}
			continue
		}
		if err != nil || s.Linux.Sysctl[plan.SysctlName(c.name)] != "1" {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestExecProcess(t *testing.T) {
	p := planOf(t, `{"User":"1000","Hostname":"h","Env":["A=1"],"WorkingDir":"/w","Tty":true,"HostConfig":{"CapDrop":["ALL"],"OomScoreAdj":5,
		"SecurityOpt":["no-new-privileges"],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}]}}`, host(plan.CgroupV1))
	in := inputs(p)
	e, err := plan.Exec(wire.ExecCreate{Cmd: []string{"ls"}, Env: []string{"A=2", "B=3"}}, p, "h")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Process(p, e, in)
	if err != nil {
		t.Fatal(err)
	}
	if got.Terminal || got.Cwd != "/w" || !got.NoNewPrivileges || *got.OOMScoreAdj != 5 || len(got.Rlimits) != 1 || len(got.Capabilities.Bounding) != 0 {
		t.Errorf("got %+v", got)
	}
	if want := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=h", "A=2", "B=3", "HOME=/root"}; !slices.Equal(got.Env, want) {
		t.Errorf("env %q, want %q", got.Env, want)
	}
	e, err = plan.Exec(wire.ExecCreate{Cmd: []string{"ls"}, Privileged: true, Tty: true, ConsoleSize: &[2]uint{10, 20}}, p, "h")
	if err != nil {
		t.Fatal(err)
	}
	got, err = Process(p, e, in)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Capabilities.Effective) != 41 || got.ConsoleSize == nil || got.ConsoleSize.Height != 10 || !slices.Contains(got.Env, "TERM=xterm") {
		t.Errorf("privileged: %+v", got)
	}
}

func TestInit(t *testing.T) {
	s := render(t, `{"Cmd":["ps"],"HostConfig":{"Init":true}}`, plan.CgroupV1, func(in *Inputs) { in.InitPath = "/lib/init" })
	if want := []string{"/sbin/docker-init", "--", "ps"}; !slices.Equal(s.Process.Args, want) {
		t.Errorf("args %v", s.Process.Args)
	}
	if m := mountAt(t, s, "/sbin/docker-init"); m.Source != "/lib/init" || !slices.Contains(m.Options, "ro") {
		t.Errorf("got %+v", m)
	}
	s = render(t, `{"Cmd":["ps"],"HostConfig":{"Init":true,"PidMode":"host"}}`, plan.CgroupV1, nil)
	if len(s.Process.Args) != 1 || len(s.Annotations) > 0 {
		t.Errorf("init in the host's pid namespace: %v, %v", s.Process.Args, s.Annotations)
	}
}
