package job

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"gantry/internal/errs"
)

func minimal() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/"},
		Root:    &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

// TestRoundTrip: decoding what was encoded gives the same value, whatever is in
// it.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := rapid.Make[Job]().Draw(t, "job")
		got, err := Decode(j.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !same(&j, got) {
			t.Fatalf("got %+v", got)
		}
		p, err := DecodeProcess(j.Process.Encode())
		if err != nil || !same(&j.Process, p) {
			t.Fatalf("process: %v %+v", err, p)
		}
	})
}

// same compares by JSON, in which an empty list or map is as good as none after
// the empty ones have been taken out.
func same(a, b any) bool {
	norm := func(v any) any {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		var x any
		if err := json.Unmarshal(data, &x); err != nil {
			panic(err)
		}
		return prune(x)
	}
	return reflect.DeepEqual(norm(a), norm(b))
}

func prune(x any) any {
	switch v := x.(type) {
	case map[string]any:
		for k, e := range v {
			if l, isList := e.([]any); e == nil || isList && len(l) == 0 {
				delete(v, k)
				continue
			}
			if e == "" { // empty bytes
				delete(v, k)
				continue
			}
			if m, isMap := e.(map[string]any); isMap && len(m) == 0 && (k == "rdma" || k == "unified") {
				delete(v, k)
				continue
			}
			v[k] = prune(e)
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return x
}

// TestEveryFieldIsCarried: a field that the wire form forgets would come back
// empty.
func TestEveryFieldIsCarried(t *testing.T) {
	var j Job
	fill(reflect.ValueOf(&j).Elem())
	got, err := Decode(j.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&j, got) {
		t.Errorf("got  %+v\nwant %+v", got, &j)
	}
}

// fill gives every field a value that is not zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), e)
	case reflect.String:
		v.SetString("text of " + v.Type().String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	default:
		panic("no value for " + v.Kind().String())
	}
}

// TestTruncated: every cut and every changed length is an error, not a panic
// (row S28).
func TestTruncated(t *testing.T) {
	j, err := FromSpec(minimal(), Options{ID: "x", Bundle: "/b"})
	if err != nil {
		t.Fatal(err)
	}
	data := j.Encode()
	for n := range data {
		if _, err := Decode(data[:n]); !errs.Is(err, errs.Invalid) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if n+4 <= len(data) {
			bad := slices.Clone(data)
			copy(bad[n:], "\xff\xff\xff\xff")
			Decode(bad) // must return
		}
	}
	if _, err := Decode(append(data, 0)); err == nil {
		t.Error("a byte too much was accepted")
	}
	if _, err := DecodeProcess(data); err == nil {
		t.Error("a job was taken for a process")
	}
}

func FuzzDecode(f *testing.F) {
	j, err := FromSpec(minimal(), Options{ID: "x", Bundle: "/b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(j.Encode())
	var full Job
	fill(reflect.ValueOf(&full).Elem())
	f.Add(full.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Decode(j.Encode())
		if err != nil || !reflect.DeepEqual(j, again) {
			t.Errorf("a decoded job does not survive: %v", err)
		}
	})
}

func TestFromSpecRefuses(t *testing.T) {
	big := strings.Repeat("x", maxPath)
	for field, edit := range map[string]func(*specs.Spec){
		"process is missing":                func(s *specs.Spec) { s.Process = nil },
		"process.args is empty":             func(s *specs.Spec) { s.Process.Args = nil },
		"process.args holds a zero":         func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} },
		"process.env holds a zero":          func(s *specs.Spec) { s.Process.Env = []string{"a\x00b"} },
		"process.cwd":                       func(s *specs.Spec) { s.Process.Cwd = "relative" },
		"process.user holds the id":         func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 },
		"process.user.umask":                func(s *specs.Spec) { m := uint32(0o1000); s.Process.User.Umask = &m },
		"process.oomScoreAdj":               func(s *specs.Spec) { n := 1001; s.Process.OOMScoreAdj = &n },
		"process.rlimits holds the unknown": func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS"}} },
		"above hard limit":                  func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}} },
		"process.capabilities.ambient unknown capability: \"CAP_BOGUS\"": func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Ambient: []string{"CAP_BOGUS"}}
		},
		"process.consoleSize":                  func(s *specs.Spec) { s.Process.ConsoleSize = &specs.Box{Height: 1 << 16} },
		"process.execCPUAffinity":              func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "3-1"} },
		"root is missing":                      func(s *specs.Spec) { s.Root = nil },
		"root.path is empty":                   func(s *specs.Spec) { s.Root.Path = "" },
		"linux.rootfsPropagation":              func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" },
		"linux.namespaces holds the unknown":   func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "bogus" },
		"linux.namespaces holds \"pid\" twice": func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "pid" },
		"holds no mount namespace":             func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"linux.namespaces[pid].path":           func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "relative" },
		"linux.uidMappings needs a user":       func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"leaves the 32-bit range": func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1 << 31, Size: 1<<31 + 1}}
		},
		"gidMappings are needed": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"linux.timeOffsets holds the unknown": func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"x": {}} },
		"linux.timeOffsets needs":             func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} },
		"hostname must be":                    func(s *specs.Spec) { s.Hostname = big },
		"hostname needs":                      func(s *specs.Spec) { s.Hostname = "x"; s.Linux.Namespaces = s.Linux.Namespaces[:1] },
		"linux.sysctl \"kernel.panic\"":       func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"linux.sysctl holds the key":          func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.": "1"} },
		"not allowed in the host's namespace": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.sem": "1"} },
		"linux.maskedPaths":                   func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} },
		"linux.readonlyPaths":                 func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/" + big} },
		"linux.devices.type":                  func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} },
		"linux.devices /dev/x": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1 << 12}}
		},
		"linux.personality":  func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "OS2"} },
		"linux.intelRdt":     func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"mounts.type":        func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x"}} },
		"mounts.source":      func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind"}} },
		"is the root itself": func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x/..", Type: "tmpfs"}} },
		"is inside /proc":    func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/proc/self/attr", Type: "proc"}} },
		"tmpcopyup": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Type: "proc", Options: []string{"tmpcopyup"}}}
		},
		"idmap needs": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Source: "/", Options: []string{"bind", "idmap"}}}
		},
		//lint:ignore SA1019 deprecated, and still in use
		"hooks.prestart.path": func(s *specs.Spec) { s.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "x"}}} },
		"hooks.poststop.timeout": func(s *specs.Spec) {
			n := 0
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x", Timeout: &n}}}
		},
	} {
		s := minimal()
		edit(s)
		_, err := FromSpec(s, Options{ID: "x", Bundle: "/b"})
		if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unsupported || !strings.Contains(err.Error(), field) {
			t.Errorf("want an error with %q, got %v", field, err)
		}
	}
	if _, err := FromSpec(minimal(), Options{Bundle: "/b", Filter: make([]byte, 9)}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a filter of 9 bytes: %v", err)
	}
	if _, err := FromSpec(minimal(), Options{Bundle: "/b", Filter: make([]byte, 8), FilterFlags: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER}); err == nil {
		t.Error("a listener was accepted")
	}
	if _, err := FromSpec(minimal(), Options{Bundle: "/b", Overlay: &Overlay{}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("an overlay without layers: %v", err)
	}
}

func TestMountOptions(t *testing.T) {
	const slave, private = unix.MS_SLAVE | unix.MS_REC, unix.MS_PRIVATE | unix.MS_REC
	for _, c := range []struct {
		in   specs.Mount
		want Mount
	}{
		{specs.Mount{Destination: "x", Type: "tmpfs", Options: []string{"nosuid", "ro", "rw", "size=1m", "size=1m"}},
			Mount{Target: "/x", Type: "tmpfs", Set: unix.MOUNT_ATTR_NOSUID, Clear: unix.MOUNT_ATTR_RDONLY, Data: []string{"size=1m"}}},
		{specs.Mount{Destination: "/x", Source: "/s", Options: []string{"rbind", "ro", "rnosuid", "rslave", "mode=700", "z"}},
			Mount{Target: "/x", Type: "bind", Source: "/s", Recursive: true, Set: unix.MOUNT_ATTR_RDONLY, RecSet: unix.MOUNT_ATTR_NOSUID, Propagation: slave}},
		{specs.Mount{Destination: "/x", Source: "/s", Options: []string{"bind", "rro", "noatime"}},
			Mount{Target: "/x", Type: "bind", Source: "/s", RecSet: unix.MOUNT_ATTR_RDONLY, Set: unix.MOUNT_ATTR_NOATIME, Clear: unix.MOUNT_ATTR__ATIME&^unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR__ATIME, Propagation: private}},
		{specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"tmpcopyup", "sync", "async", "dirsync", "defaults", "shared"}},
			Mount{Target: "/x", Type: "tmpfs", CopyUp: true, Flags: unix.MS_DIRSYNC, Propagation: unix.MS_SHARED}},
		{specs.Mount{
			Destination: "/x", Source: "/s", Options: []string{"bind", "ridmap", "src-nofollow", "dest-nofollow"},
			UIDMappings: []specs.LinuxIDMapping{{HostID: 5, Size: 1}}, GIDMappings: []specs.LinuxIDMapping{{HostID: 6, Size: 1}},
		}, Mount{
			Target: "/x", Type: "bind", Source: "/s", IDMapped: true, IDMapRec: true, SourceNoFollow: true, TargetNoFollow: true,
			UIDMap: []IDMap{{0, 5, 1}}, GIDMap: []IDMap{{0, 6, 1}}, Propagation: private,
		}},
	} {
		got, err := MountFromSpec(c.in)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v:\ngot  %+v, %v\nwant %+v", c.in.Options, got, err, c.want)
		}
	}
}

func TestFromSpec(t *testing.T) {
	s := minimal()
	s.Linux.Sysctl = map[string]string{"net.ipv4.conf.eth0/1.forwarding": "1", "net/core/somaxconn": "5"}
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 3}
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1,65", Final: "2"}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}}
	j, err := FromSpec(s, Options{ID: "x", Bundle: "/b", Reaper: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []KeyValue{{"net/core/somaxconn", "5"}, {"net/ipv4/conf/eth0.1/forwarding", "1"}}; !reflect.DeepEqual(j.Sysctls, want) {
		t.Errorf("sysctls %v", j.Sysctls)
	}
	if j.Root.Path != "/b/rootfs" || !j.Reaper || j.Process.Umask != 0o22 {
		t.Errorf("root %q, reaper %v, umask %o", j.Root.Path, j.Reaper, j.Process.Umask)
	}
	if want := []uint64{3, 2}; !slices.Equal(j.Process.Affinity, want) || j.Process.FinalAffinity[0] != 4 {
		t.Errorf("affinity %v %v", j.Process.Affinity, j.Process.FinalAffinity)
	}
	if len(j.Devices) != len(defaultDevices) {
		t.Errorf("devices %v", j.Devices)
	}
	if q := j.Process.Scheduler; q.Policy != 2 || q.Priority != 9 || q.Flags != 1 {
		t.Errorf("scheduler %+v", q)
	}
}

func TestCapabilityNames(t *testing.T) {
	mask, err := CapabilityMask([]string{"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"})
	if err != nil || mask != 1|1<<40 {
		t.Errorf("got %#x, %v", mask, err)
	}
	if got := CapabilityNames(mask); !slices.Equal(got, []string{"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"}) {
		t.Errorf("got %v", got)
	}
}
