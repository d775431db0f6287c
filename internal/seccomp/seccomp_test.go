package seccomp

import (
	"encoding/binary"
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// call is what a filter sees.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// data lays c out as struct seccomp_data.
func (c call) data(order binary.AppendByteOrder) []byte {
	b := order.AppendUint32(nil, c.nr)
	b = order.AppendUint32(b, c.arch)
	b = order.AppendUint64(b, 0) // instruction pointer
	for _, a := range c.args {
		b = order.AppendUint64(b, a)
	}
	return b
}

// run executes a program as the kernel does, and counts the steps.
func run(t *testing.T, prog []Instruction, data []byte, order binary.ByteOrder) (result uint32, steps int) {
	t.Helper()
	var a uint32
	for pc := 0; ; steps++ {
		if pc >= len(prog) {
			t.Fatalf("fell off the program at %d", pc)
		}
		i := prog[pc]
		pc++
		jump := func(yes bool) {
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case opLoad:
			if i.K%4 != 0 || int(i.K)+4 > len(data) {
				t.Fatalf("load at %d", i.K)
			}
			a = order.Uint32(data[i.K:])
		case opAnd:
			a &= i.K
		case opRet:
			return i.K, steps
		case opJa:
			pc += int(i.K)
		case opJeq:
			jump(a == i.K)
		case opJge:
			jump(a >= i.K)
		case opJgt:
			jump(a > i.K)
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
	}
}

func compileFor(t *testing.T, p *specs.LinuxSeccomp, goarch string) []Instruction {
	t.Helper()
	f, err := CompileFor(p, goarch)
	if err != nil {
		t.Fatal(err)
	}
	return f.Program
}

// eval says what p makes of c on a little-endian machine.
func eval(t *testing.T, prog []Instruction, c call) uint32 {
	t.Helper()
	r, _ := run(t, prog, c.data(binary.LittleEndian), binary.LittleEndian)
	return r
}

func uintp(n uint) *uint { return &n }

const (
	allow = uint32(unix.SECCOMP_RET_ALLOW)
	eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	kill  = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

// errnoPolicy refuses with EPERM what the entries do not say otherwise.
func errnoPolicy(list ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls:      list,
	}
}

func entry(a specs.LinuxSeccompAction, args []specs.LinuxSeccompArg, names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: a, Args: args}
}

func TestArchitectures(t *testing.T) {
	prog := compileFor(t, errnoPolicy(entry(specs.ActAllow, nil, "read", "getpid", "ioctl", "mseal")), "amd64")
	const x86, x64 = unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_X86_64
	for _, c := range []struct {
		name string
		call call
		want uint32
	}{
		{"read", call{arch: x64, nr: 0}, allow},
		{"write is not listed", call{arch: x64, nr: 1}, eperm},
		{"getpid", call{arch: x64, nr: 39}, allow},
		{"mseal, the highest listed", call{arch: x64, nr: 462}, allow},
		{"higher than listed", call{arch: x64, nr: 463}, enosys},
		{"in the gap of amd64's numbers", call{arch: x64, nr: 400}, enosys},
		{"of x32, without its bit", call{arch: x64, nr: 514}, enosys},
		{"very high", call{arch: x64, nr: 0xffffffff}, enosys},
		{"x86 read", call{arch: x86, nr: 3}, allow},
		{"x86 exit is not listed", call{arch: x86, nr: 1}, eperm},
		{"x86 getpid", call{arch: x86, nr: 20}, allow},
		{"x86 with amd64's number of getpid", call{arch: x86, nr: 39}, eperm},
		{"x32 read", call{arch: x64, nr: x32Bit}, allow},
		{"x32 write", call{arch: x64, nr: x32Bit | 1}, eperm},
		{"x32 ioctl", call{arch: x64, nr: x32Bit | 514}, allow},
		{"x32 writev", call{arch: x64, nr: x32Bit | 515}, enosys}, // above what is listed
		{"x32 rt_sigaction", call{arch: x64, nr: x32Bit | 512}, eperm},
		{"another architecture", call{arch: unix.AUDIT_ARCH_AARCH64, nr: 63}, kill},
	} {
		if got := eval(t, prog, c.call); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
	// Without x32 in the policy its numbers belong to nobody.
	p := errnoPolicy(entry(specs.ActAllow, nil, "read"))
	p.Architectures = nil
	prog = compileFor(t, p, "amd64")
	if got := eval(t, prog, call{arch: x64, nr: x32Bit}); got != enosys {
		t.Errorf("x32 read: got %#x", got)
	}
	if got := eval(t, prog, call{arch: x86, nr: 3}); got != kill {
		t.Errorf("x86 read: got %#x", got)
	}
}

// matches says by Go's own arithmetic whether argument v fulfils c.
func matches(c specs.LinuxSeccompArg, v uint64) bool {
	switch c.Op {
	case specs.OpEqualTo:
		return v == c.Value
	case specs.OpNotEqual:
		return v != c.Value
	case specs.OpLessThan:
		return v < c.Value
	case specs.OpLessEqual:
		return v <= c.Value
	case specs.OpGreaterThan:
		return v > c.Value
	case specs.OpGreaterEqual:
		return v >= c.Value
	}
	return v&c.Value == c.ValueTwo
}

func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x100000001, 0x1ffffffff, 0x7e020000, 1 << 63, ^uint64(0), ^uint64(0) - 1}
	for _, machine := range []struct {
		goarch string
		audit  uint32
		order  interface {
			binary.ByteOrder
			binary.AppendByteOrder
		}
	}{
		{"amd64", unix.AUDIT_ARCH_X86_64, binary.LittleEndian},
		{"s390x", unix.AUDIT_ARCH_S390X, binary.BigEndian},
	} {
		var mremap uint32 = 25
		if machine.goarch == "s390x" {
			mremap = 163
		}
		for _, op := range operators {
			for _, v := range values {
				for _, two := range values {
					if op != specs.OpMaskedEqual && two != 0 {
						continue
					}
					c := specs.LinuxSeccompArg{Index: 3, Value: v, ValueTwo: two, Op: op}
					prog := compileFor(t, &specs.LinuxSeccomp{
						DefaultAction: specs.ActErrno,
						Syscalls:      []specs.LinuxSyscall{entry(specs.ActAllow, []specs.LinuxSeccompArg{c}, "mremap")},
					}, machine.goarch)
					for _, arg := range values {
						k := call{arch: machine.audit, nr: mremap}
						k.args[3] = arg
						got, _ := run(t, prog, k.data(machine.order), machine.order)
						want := eperm
						if matches(c, arg) {
							want = allow
						}
						if got != want {
							t.Fatalf("%s: %#x %s %#x, %#x: got %#x", machine.goarch, arg, op, v, two, got)
						}
					}
				}
			}
		}
	}
}

// TestNarrowArguments: the upper half of a register that the kernel does not
// look at must not decide.
func TestNarrowArguments(t *testing.T) {
	const tiocsti, ioctl = 0x5412, 16
	p := errnoPolicy(entry(specs.ActAllow, []specs.LinuxSeccompArg{{Index: 1, Value: tiocsti, Op: specs.OpNotEqual}}, "ioctl"))
	prog := compileFor(t, p, "amd64")
	for arg, want := range map[uint64]uint32{tiocsti: eperm, 1<<32 | tiocsti: eperm, 1<<63 | tiocsti: eperm, 0x5413: allow, 1<<32 | 0x5413: allow} {
		c := call{arch: unix.AUDIT_ARCH_X86_64, nr: ioctl}
		c.args[1] = arg
		if got := eval(t, prog, c); got != want {
			t.Errorf("ioctl %#x: got %#x, want %#x", arg, got, want)
		}
	}
}

func TestCombiningEntries(t *testing.T) {
	arg := func(index uint, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, Op: specs.OpEqualTo}
	}
	args := func(a ...specs.LinuxSeccompArg) []specs.LinuxSeccompArg { return a }
	const socket = 41
	for _, c := range []struct {
		name string
		list []specs.LinuxSyscall
		args [6]uint64
		want uint32
	}{
		{"all conditions hold", []specs.LinuxSyscall{entry(specs.ActAllow, args(arg(0, 1), arg(1, 2)), "socket")}, [6]uint64{1, 2}, allow},
		{"one does not", []specs.LinuxSyscall{entry(specs.ActAllow, args(arg(0, 1), arg(1, 2)), "socket")}, [6]uint64{1, 3}, eperm},
		{"one argument twice: either", []specs.LinuxSyscall{entry(specs.ActAllow, args(arg(0, 1), arg(0, 2)), "socket")}, [6]uint64{2}, allow},
		{"second entry", []specs.LinuxSyscall{
			entry(specs.ActAllow, args(arg(0, 1)), "socket"), entry(specs.ActAllow, args(arg(0, 5)), "socket"),
		}, [6]uint64{5}, allow},
		{"entry without conditions last", []specs.LinuxSyscall{
			entry(specs.ActKillProcess, args(arg(0, 1)), "socket"), entry(specs.ActAllow, nil, "socket"),
		}, [6]uint64{1}, allow},
		{"entry without conditions first", []specs.LinuxSyscall{
			entry(specs.ActAllow, nil, "socket"), entry(specs.ActKillProcess, args(arg(0, 1)), "socket"),
		}, [6]uint64{1}, allow},
		{"two without conditions", []specs.LinuxSyscall{
			entry(specs.ActAllow, nil, "socket"), entry(specs.ActKillProcess, nil, "socket"),
		}, [6]uint64{}, allow},
		{"unknown name", []specs.LinuxSyscall{entry(specs.ActAllow, nil, "nosuchcall", "socket")}, [6]uint64{}, allow},
		{"own error", []specs.LinuxSyscall{{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: uintp(97)}}, [6]uint64{}, unix.SECCOMP_RET_ERRNO | 97},
	} {
		prog := compileFor(t, errnoPolicy(c.list...), "amd64")
		if got := eval(t, prog, call{arch: unix.AUDIT_ARCH_X86_64, nr: socket, args: c.args}); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestActions(t *testing.T) {
	for _, c := range []struct {
		action  specs.LinuxSeccompAction
		ret     *uint
		want    uint32
		unknown uint32 // what a call that nobody knows gets if this is the default
	}{
		{specs.ActKill, nil, 0, enosys},
		{specs.ActKillThread, nil, 0, enosys},
		{specs.ActKillProcess, nil, 0x80000000, enosys},
		{specs.ActTrap, nil, 0x30000, enosys},
		{specs.ActErrno, nil, 0x50001, enosys},
		{specs.ActErrno, uintp(38), 0x50026, 0x50026},
		{specs.ActTrace, uintp(7), 0x7ff00007, 0x7ff00007},
		{specs.ActLog, nil, 0x7ffc0000, 0x7ffc0000},
		{specs.ActAllow, nil, 0x7fff0000, 0x7fff0000},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActTrace, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: c.action, ErrnoRet: c.ret}}}
		if got := eval(t, compileFor(t, p, "amd64"), call{arch: unix.AUDIT_ARCH_X86_64}); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.action, got, c.want)
		}
		p = &specs.LinuxSeccomp{DefaultAction: c.action, DefaultErrnoRet: c.ret, Syscalls: []specs.LinuxSyscall{{Names: []string{"mseal"}, Action: specs.ActLog}}}
		prog := compileFor(t, p, "amd64")
		if got := eval(t, prog, call{arch: unix.AUDIT_ARCH_X86_64, nr: 1}); got != c.want {
			t.Errorf("default %s: got %#x, want %#x", c.action, got, c.want)
		}
		if got := eval(t, prog, call{arch: unix.AUDIT_ARCH_X86_64, nr: 4000}); got != c.unknown {
			t.Errorf("default %s, unknown call: got %#x, want %#x", c.action, got, c.unknown)
		}
	}
}

func TestRefused(t *testing.T) {
	arg := func(a specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return errnoPolicy(entry(specs.ActAllow, []specs.LinuxSeccompArg{a}, "read"))
	}
	for _, c := range []struct {
		want string
		p    *specs.LinuxSeccomp
	}{
		{"seccomp: [read]: SCMP_ACT_NOTIFY needs a listener, which is not supported", errnoPolicy(entry(specs.ActNotify, nil, "read"))},
		{"seccomp: default action: SCMP_ACT_NOTIFY needs a listener, which is not supported", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}},
		{`seccomp: default action: unknown action ""`, &specs.LinuxSeccomp{}},
		{"seccomp: default action: errnoRet 4096 is above 4095", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: uintp(4096)}},
		{"seccomp: [read]: argument 6: there are six", arg(specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo})},
		{`seccomp: [read]: unknown operator "SCMP_CMP_XX"`, arg(specs.LinuxSeccompArg{Op: "SCMP_CMP_XX"})},
		{`seccomp: unknown flag "X"`, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"X"}}},
	} {
		if _, err := CompileFor(c.p, "amd64"); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if _, err := CompileFor(errnoPolicy(), "mips"); err == nil {
		t.Error("mips has no table, but no error came")
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		list []specs.LinuxSeccompFlag
		want uint32
	}{
		{nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}, unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, 0},
	} {
		f, err := CompileFor(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Flags: c.list}, "amd64")
		if err != nil || f.Flags != c.want {
			t.Errorf("%v: got %#x, %v", c.list, f.Flags, err)
		}
	}
}

func TestNothingToFilter(t *testing.T) {
	for _, p := range []*specs.LinuxSeccomp{nil, {DefaultAction: specs.ActAllow}} {
		bpf, _, err := Compile(p)
		if err != nil || len(bpf) != 0 {
			t.Errorf("%v: got %d bytes, %v", p, len(bpf), err)
		}
	}
}

// TestLongPrograms gives many calls an action of their own, so that conditional
// jumps can't reach everything.
func TestLongPrograms(t *testing.T) {
	p := errnoPolicy()
	p.Architectures = nil // the kernel's limit of 4096 leaves room for one
	numbers := arches[0].numbers()
	for name, n := range numbers {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{name}, Action: specs.ActErrno, ErrnoRet: uintp(uint(n) + 1000),
			Args: []specs.LinuxSeccompArg{{Index: uint(n % 6), Value: uint64(n), Op: specs.OpGreaterThan}},
		})
	}
	prog := compileFor(t, p, "amd64")
	for name, n := range numbers {
		c := call{arch: unix.AUDIT_ARCH_X86_64, nr: n}
		c.args[n%6] = uint64(n) + 1
		if got, want := eval(t, prog, c), unix.SECCOMP_RET_ERRNO|(n+1000); got != want {
			t.Fatalf("%s: got %#x, want %#x", name, got, want)
		}
		c.args[n%6] = uint64(n)
		if got := eval(t, prog, c); got != eperm {
			t.Fatalf("%s with another argument: got %#x", name, got)
		}
	}
}

func TestTables(t *testing.T) {
	for _, c := range []struct {
		goarch string
		want   map[string]uint32
	}{
		{"amd64", map[string]uint32{"read": 0, "execve": 59, "clone3": 435, "openat2": 437, "io_uring_setup": 425, "mseal": 462}},
		{"386", map[string]uint32{"restart_syscall": 0, "read": 3, "socketcall": 102, "socket": 359, "clock_gettime64": 403}},
		{"arm64", map[string]uint32{"io_setup": 0, "read": 63, "clone3": 435}},
		{"arm", map[string]uint32{"read": 3, "set_tls": 0xf0005, "breakpoint": 0xf0001}},
		{"s390x", map[string]uint32{"read": 3, "clone": 120}},
		{"ppc64le", map[string]uint32{"read": 3, "swapcontext": 249}},
		{"riscv64", map[string]uint32{"read": 63, "riscv_flush_icache": 259}},
		{"loong64", map[string]uint32{"read": 63}},
	} {
		i := 0
		for arches[i].goarch != c.goarch {
			i++
		}
		got := arches[i].numbers()
		for name, n := range c.want {
			if g, ok := got[name]; !ok || g != n {
				t.Errorf("%s %s: got %d, %v, want %d", c.goarch, name, g, ok, n)
			}
		}
	}
	if n := len(x32Numbers); n != 36 {
		t.Errorf("x32 has 36 numbers of its own, table has %d", n)
	}
}

func TestBytes(t *testing.T) {
	f := Filter{Program: []Instruction{{Code: 0x15, Jt: 1, Jf: 2, K: 0xc000003e}}}
	want := binary.NativeEndian.AppendUint16(nil, 0x15)
	want = append(want, 1, 2)
	want = binary.NativeEndian.AppendUint32(want, 0xc000003e)
	if got := fmt.Sprintf("%x", f.Bytes()); got != fmt.Sprintf("%x", want) {
		t.Errorf("got %s, want %x", got, want)
	}
}
