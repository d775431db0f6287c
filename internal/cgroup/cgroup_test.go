package cgroup

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
)

func p[T any](v T) *T { return &v }

func TestParseMountinfo(t *testing.T) {
	line := func(point, typ, super string) string {
		return "30 25 0:26 / " + point + " rw,relatime shared:9 - " + typ + " cgroup " + super + "\n"
	}
	for name, tc := range map[string]struct {
		text string
		mode Mode
		v1   int
		v2   string
	}{
		"v2":                           {line("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"), V2, 0, "/sys/fs/cgroup"},
		"v1":                           {line("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct") + line("/sys/fs/cgroup/memory", "cgroup", "rw,memory") + line("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"), V1, 4, ""},
		"hybrid":                       {line("/sys/fs/cgroup/memory", "cgroup", "rw,memory") + line("/sys/fs/cgroup/unified", "cgroup2", "rw"), Hybrid, 1, "/sys/fs/cgroup/unified"},
		"v2 with a named v1 beside it": {line("/sys/fs/cgroup", "cgroup2", "rw") + line("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"), V2, 0, "/sys/fs/cgroup"},
		"nothing":                      {"22 1 8:1 / / rw - ext4 /dev/vda rw\n", None, 0, ""},
		"torn":                         {"22 1 8:1\n - \n", None, 0, ""},
	} {
		h := parseMountinfo(bufio.NewScanner(strings.NewReader(tc.text)))
		if h.Mode != tc.mode || len(h.V1) != tc.v1 || h.V2 != tc.v2 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func show(ws []write) string {
	var b strings.Builder
	for _, w := range ws {
		fmt.Fprintf(&b, "%s=%s\n", w.file, w.value)
	}
	return b.String()
}

// everything is a request with most limits set.
func everything() *specs.LinuxResources {
	return &specs.LinuxResources{
		Memory:         &specs.LinuxMemory{Limit: p[int64](64 << 20), Swap: p[int64](96 << 20), Reservation: p[int64](32 << 20), Swappiness: p[uint64](10)},
		CPU:            &specs.LinuxCPU{Shares: p[uint64](512), Quota: p[int64](50000), Period: p[uint64](100000), Cpus: "0-1", Mems: "0"},
		Pids:           &specs.LinuxPids{Limit: p[int64](50)},
		BlockIO:        &specs.LinuxBlockIO{Weight: p[uint16](500), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(8, 0, 1<<20)}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
	}
}

func throttle(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	var d specs.LinuxThrottleDevice
	d.Major, d.Minor, d.Rate = major, minor, rate
	return d
}

func TestWritesV1(t *testing.T) {
	ws, err := writesV1(everything())
	if err != nil {
		t.Fatal(err)
	}
	want := `memory.memsw.limit_in_bytes=100663296
memory.limit_in_bytes=67108864
memory.memsw.limit_in_bytes=100663296
memory.soft_limit_in_bytes=33554432
memory.swappiness=10
cpu.shares=512
cpu.cfs_period_us=100000
cpu.cfs_quota_us=50000
cpuset.cpus=0-1
cpuset.mems=0
pids.max=50
blkio.weight=500
blkio.throttle.read_bps_device=8:0 1048576
hugetlb.2MB.limit_in_bytes=4194304
`
	if got := show(ws); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWritesV2(t *testing.T) {
	ws, err := writesV2(everything())
	if err != nil {
		t.Fatal(err)
	}
	want := `memory.max=67108864
memory.swap.max=33554432
memory.low=33554432
cpu.weight=59
cpu.max=50000 100000
cpuset.cpus=0-1
cpuset.mems=0
pids.max=50
io.bfq.weight=500
io.weight=default 4950
io.max=8:0 rbps=1048576
hugetlb.2MB.max=4194304
hugetlb.2MB.rsvd.max=4194304
`
	if got := show(ws); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWritesV2Limits(t *testing.T) {
	for name, tc := range map[string]struct {
		res  specs.LinuxResources
		want string
		kind errs.Kind
	}{
		"unlimited":          {res: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p[int64](-1), Swap: p[int64](-1)}, Pids: &specs.LinuxPids{Limit: p[int64](-1)}}, want: "memory.max=max\nmemory.swap.max=max\npids.max=max\n"},
		"zero means not set": {res: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p[int64](0)}, CPU: &specs.LinuxCPU{Shares: p[uint64](0), Quota: p[int64](0)}, Pids: &specs.LinuxPids{Limit: p[int64](0)}}},
		"period alone":       {res: specs.LinuxResources{CPU: &specs.LinuxCPU{Period: p[uint64](50000)}}, want: "cpu.max=max 50000\n"},
		"no quota":           {res: specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p[int64](-1)}}, want: "cpu.max=max 100000\n"},
		"swap below memory":  {res: specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p[int64](10), Swap: p[int64](5)}}, kind: errs.Invalid},
		"unified":            {res: specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "cpu.idle": "1"}}, want: "cpu.idle=1\nmemory.high=5\n"},
		"unified path":       {res: specs.LinuxResources{Unified: map[string]string{"../x": "5"}}, kind: errs.Invalid},
	} {
		ws, err := writesV2(&tc.res)
		if errs.KindOf(err) != tc.kind || show(ws) != tc.want {
			t.Errorf("%s: %q, %v", name, show(ws), err)
		}
	}
	if _, err := writesV1(&specs.LinuxResources{Unified: map[string]string{"a": "b"}}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("unified on v1: %v", err)
	}
}

func TestCPUWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := cpuWeight(shares); got != want {
			t.Errorf("cpuWeight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func TestIOWeight(t *testing.T) {
	for in, want := range map[uint16]uint64{0: 1, 10: 1, 500: 4950, 1000: 10000} {
		if got := ioWeight(in); got != want {
			t.Errorf("ioWeight(%d) = %d, want %d", in, got, want)
		}
	}
}

func rule(allow bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

func TestDeviceLine(t *testing.T) {
	for want, r := range map[string]specs.LinuxDeviceCgroup{
		"a":         rule(false, "a", -1, -1, "rwm"),
		"c 1:3 rwm": rule(true, "c", 1, 3, ""),
		"b *:* m":   rule(true, "b", -1, -1, "m"),
		"c 136:* r": rule(true, "c", 136, -1, "r"),
	} {
		if got, err := deviceLine(r); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{rule(true, "p", 1, 1, "r"), rule(true, "c", 1, 1, "rx")} {
		if _, err := deviceLine(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// runDeviceProgram interprets the few instructions that deviceProgram emits.
func runDeviceProgram(t *testing.T, code []byte, typ, access, major, minor uint32) bool {
	t.Helper()
	ctx := map[int16]uint32{0: access<<16 | typ, 4: major, 8: minor}
	var r [11]uint32
	for pc := 0; pc < len(code)/8; pc++ {
		in := code[8*pc:]
		dst, src := in[1]&15, in[1]>>4
		off := int16(binary.NativeEndian.Uint16(in[2:]))
		imm := binary.NativeEndian.Uint32(in[4:])
		switch in[0] {
		case opLoadWord:
			r[dst] = ctx[off]
		case opMovReg:
			r[dst] = r[src]
		case opMovImm:
			r[dst] = imm
		case opAndImm:
			r[dst] &= imm
		case opRshImm:
			r[dst] >>= imm
		case opJumpNe:
			if r[dst] != imm {
				pc += int(off)
			}
		case opJumpEq:
			if r[dst] == imm {
				pc += int(off)
			}
		case opExit:
			return r[0] == 1
		default:
			t.Fatalf("unknown opcode %#x", in[0])
		}
	}
	t.Fatal("the program runs off its end")
	return false
}

func TestDeviceProgram(t *testing.T) {
	rules := []specs.LinuxDeviceCgroup{
		rule(false, "a", -1, -1, "rwm"),
		rule(true, "c", -1, -1, "m"),
		rule(true, "b", -1, -1, "m"),
		rule(true, "c", 1, 3, "rwm"),
		rule(true, "c", 136, -1, "rw"),
		rule(true, "c", 10, 200, "r"),
		rule(false, "c", 1, 5, "w"),
	}
	code, err := deviceProgram(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		typ, access, major, minor uint32
		want                      bool
	}{
		{devChar, accRead | accWrit, 1, 3, true},
		{devChar, accMknod, 200, 1, true},
		{devBlock, accMknod, 8, 0, true},
		{devBlock, accRead, 8, 0, false},
		{devChar, accRead | accWrit, 136, 7, true},
		{devChar, accRead | accWrit | accMknod, 136, 7, false}, // no one rule allows all of it
		{devChar, accRead, 10, 200, true},
		{devChar, accRead | accWrit, 10, 200, false},
		{devChar, accWrit, 1, 5, false},
		{devChar, accRead, 5, 1, false},
	} {
		if got := runDeviceProgram(t, code, tc.typ, tc.access, tc.major, tc.minor); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
	all, err := deviceProgram(append(rules, rule(true, "a", -1, -1, "rwm")))
	if err != nil || !runDeviceProgram(t, all, devBlock, 7, 8, 0) {
		t.Errorf("a last rule that allows all does not: %v", err)
	}
	none, err := deviceProgram(nil)
	if err != nil || runDeviceProgram(t, none, devChar, accRead, 1, 3) {
		t.Errorf("no rules allow something: %v", err)
	}
}

func TestParseIO(t *testing.T) {
	got := parseIOStat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbad\n253:1\n")
	if len(got.Bytes) != 2 || len(got.Ops) != 2 || got.Bytes[1] != (IOEntry{8, 0, "write", 2}) || got.Ops[0] != (IOEntry{8, 0, "read", 3}) {
		t.Errorf("%+v", got)
	}
	v1 := parseBlkio("8:0 Read 10\n8:0 Write 20\nTotal 30\n")
	if !slices.Equal(v1, []IOEntry{{8, 0, "read", 10}, {8, 0, "write", 20}}) {
		t.Errorf("%+v", v1)
	}
}
