package profile

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	compiler "gantry/internal/seccomp"
)

// dockerCaps are the capabilities of a plain container.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// eval runs the filter for amd64 or x86 on a call. The interpreter is small
// because the compiler writes seven instructions only.
func eval(t *testing.T, p Policy, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, nr)
	data = binary.LittleEndian.AppendUint32(data, arch)
	data = binary.LittleEndian.AppendUint64(data, 0)
	for i := range 6 {
		v := uint64(0)
		if i < len(args) {
			v = args[i]
		}
		data = binary.LittleEndian.AppendUint64(data, v)
	}
	var a uint32
	for pc := 0; ; {
		code := binary.NativeEndian.Uint16(p.BPF[8*pc:])
		jt, jf, k := int(p.BPF[8*pc+2]), int(p.BPF[8*pc+3]), binary.NativeEndian.Uint32(p.BPF[8*pc+4:])
		pc++
		jump := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[k:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= k
		case unix.BPF_RET | unix.BPF_K:
			return k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == k)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= k)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > k)
		default:
			t.Fatalf("instruction %#x", code)
		}
	}
}

const (
	allow  = uint32(unix.SECCOMP_RET_ALLOW)
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	x64    = uint32(unix.AUDIT_ARCH_X86_64)
	x86    = uint32(unix.AUDIT_ARCH_I386)
	x32Bit = 0x40000000
)

func needAMD64(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the table of expectations is amd64's")
	}
}

func resolved(t *testing.T, o Options) Policy {
	t.Helper()
	p, err := Resolve(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDefault is row S26 of the security table, but for the kernel's part.
func TestDefault(t *testing.T) {
	needAMD64(t)
	plain := resolved(t, Options{Caps: dockerCaps})
	admin := resolved(t, Options{Caps: append([]string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_TIME"}, dockerCaps...)})
	strict := resolved(t, Options{Caps: dockerCaps, Socketcall: Refuse})
	for _, c := range []struct {
		name     string
		policy   Policy
		arch, nr uint32
		args     []uint64
		want     uint32
	}{
		{"read", plain, x64, unix.SYS_READ, nil, allow},
		{"execve", plain, x64, unix.SYS_EXECVE, nil, allow},
		{"mount", plain, x64, unix.SYS_MOUNT, nil, eperm},
		{"mount, admin", admin, x64, unix.SYS_MOUNT, nil, allow},
		{"unshare", plain, x64, unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, eperm},
		{"clone of a thread", plain, x64, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow},
		{"clone of a user namespace", plain, x64, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | unix.CLONE_VM}, eperm},
		{"clone of a user namespace, admin", admin, x64, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, allow},
		{"clone3", plain, x64, unix.SYS_CLONE3, nil, enosys},
		{"clone3, admin", admin, x64, unix.SYS_CLONE3, nil, allow},
		{"io_uring_setup", plain, x64, unix.SYS_IO_URING_SETUP, nil, eperm},
		{"io_uring_enter, admin", admin, x64, unix.SYS_IO_URING_ENTER, nil, eperm},
		{"userfaultfd", plain, x64, unix.SYS_USERFAULTFD, nil, eperm},
		{"keyctl", plain, x64, unix.SYS_KEYCTL, nil, eperm},
		{"bpf", plain, x64, unix.SYS_BPF, nil, eperm},
		{"kexec_load", admin, x64, unix.SYS_KEXEC_LOAD, nil, eperm},
		{"settimeofday, admin", admin, x64, unix.SYS_SETTIMEOFDAY, nil, allow},
		{"settimeofday", plain, x64, unix.SYS_SETTIMEOFDAY, nil, eperm},
		{"socket unix", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, allow},
		{"socket inet", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_INET}, allow},
		{"socket netlink", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK}, allow},
		{"socket alg", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_ALG}, eperm},
		{"socket nfc", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_NFC}, allow},
		{"socket vsock", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, eperm},
		{"socket vsock, admin", admin, x64, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, eperm},
		{"socket alg with a high half", plain, x64, unix.SYS_SOCKET, []uint64{1<<32 | unix.AF_ALG}, eperm}, // the kernel looks at the low half
		{"socket vsock with a high half", plain, x64, unix.SYS_SOCKET, []uint64{1<<63 | unix.AF_VSOCK}, eperm},
		{"socket xdp", plain, x64, unix.SYS_SOCKET, []uint64{unix.AF_XDP}, allow},
		{"socket of a family to come", plain, x64, unix.SYS_SOCKET, []uint64{63}, allow},
		{"socket alg, x86", plain, x86, 359, []uint64{unix.AF_ALG}, eperm},
		{"socket alg, x32", plain, x64, x32Bit | unix.SYS_SOCKET, []uint64{unix.AF_ALG}, eperm},
		{"personality", plain, x64, unix.SYS_PERSONALITY, []uint64{0}, allow},
		{"personality query", plain, x64, unix.SYS_PERSONALITY, []uint64{0xffffffff}, allow},
		{"personality without randomisation", plain, x64, unix.SYS_PERSONALITY, []uint64{0x40000}, eperm},
		{"a number nobody knows", plain, x64, 9999, nil, enosys},
		{"a number nobody knows, x86", plain, x86, 9999, nil, enosys},
		{"a number nobody knows, x32", plain, x64, x32Bit | 9999, nil, enosys},
		{"minus one", plain, x64, 0xffffffff, nil, enosys},
		{"x86 mount", plain, x86, 21, nil, eperm},
		{"x86 write", plain, x86, 4, nil, allow},
		{"x86 socketcall", plain, x86, 102, nil, allow},
		{"x86 socketcall, refused", strict, x86, 102, nil, eperm},
		{"read, socketcall refused", strict, x64, unix.SYS_READ, nil, allow},
		{"arm's read", plain, unix.AUDIT_ARCH_AARCH64, 63, nil, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		if got := eval(t, c.policy, c.arch, c.nr, c.args...); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
}

// TestSocketForOtherRuntimes checks the policy as another runtime compiles it,
// which compares all 64 bits of an argument: no entry may allow what the kernel
// takes for AF_ALG or AF_VSOCK.
func TestSocketForOtherRuntimes(t *testing.T) {
	p := resolved(t, Options{Caps: dockerCaps})
	allowed := func(v uint64) bool {
		for _, s := range p.Spec.Syscalls {
			if s.Action != specs.ActAllow || len(s.Names) != 1 || s.Names[0] != "socket" || len(s.Args) != 1 {
				continue
			}
			a := s.Args[0]
			switch {
			case a.Op == specs.OpLessThan && v < a.Value, a.Op == specs.OpEqualTo && v == a.Value,
				a.Op == specs.OpGreaterThan && v > a.Value, a.Op == specs.OpMaskedEqual && v&a.Value == a.ValueTwo:
				return true
			}
		}
		return false
	}
	for family := range uint64(64) {
		want := family != unix.AF_ALG && family != unix.AF_VSOCK
		if got := allowed(family); got != want {
			t.Errorf("family %d: allowed is %v", family, got)
		}
		if !want && (allowed(1<<32|family) || allowed(1<<63|family)) {
			t.Errorf("family %d: the refusal can be got round with a high half", family)
		}
	}
}

func TestSources(t *testing.T) {
	c := New(2)
	if p, err := c.Get(Options{Source: Unconfined}); err != nil || len(p.BPF) != 0 || p.Spec != nil {
		t.Errorf("unconfined: %v, %v", p, err)
	}
	_, err := c.Get(Options{Source: "xx"})
	if want := "Decoding seccomp profile failed: invalid character 'x' looking for beginning of value"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	custom := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13},{"names":["rmdir"],"action":"SCMP_ACT_KILL_PROCESS"}]}`
	p, err := c.Get(Options{Source: custom, Caps: dockerCaps})
	if err != nil || p.Spec == nil {
		t.Fatal(err)
	}
	if runtime.GOARCH == "amd64" {
		for nr, want := range map[uint32]uint32{unix.SYS_MKDIR: unix.SECCOMP_RET_ERRNO | 13, unix.SYS_RMDIR: unix.SECCOMP_RET_KILL_PROCESS, unix.SYS_READ: allow, 9999: allow} {
			if got := eval(t, p, x64, nr); got != want {
				t.Errorf("custom, call %d: got %#x, want %#x", nr, got, want)
			}
		}
	}
	if _, err := c.Get(Options{Source: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`}); err == nil {
		t.Error("a listener was accepted")
	}
}

func TestCache(t *testing.T) {
	c := New(2)
	get := func(caps ...string) *specs.LinuxSeccomp {
		p, err := c.Get(Options{Caps: caps})
		if err != nil {
			t.Fatal(err)
		}
		return p.Spec
	}
	first := get("CAP_CHOWN", "CAP_KILL")
	if get("CAP_KILL", "CAP_CHOWN") != first {
		t.Error("the order of capabilities makes another policy")
	}
	get("CAP_SYS_ADMIN")
	get("CAP_CHOWN", "CAP_KILL")
	get("CAP_SYS_PTRACE") // pushes CAP_SYS_ADMIN out
	if get("CAP_CHOWN", "CAP_KILL") != first {
		t.Error("the policy used last was forgotten")
	}
	if n := len(c.by); n != 2 || c.use.Len() != 2 {
		t.Errorf("cache of 2 holds %d and %d", n, c.use.Len())
	}
}

// TestSize holds what a start pays: the kernel copies and verifies the program
// each time.
func TestSize(t *testing.T) {
	p := resolved(t, Options{Caps: dockerCaps})
	n := len(p.BPF) / 8
	t.Logf("%d instructions", n)
	if runtime.GOARCH == "amd64" && n > 420 {
		t.Errorf("the default profile takes %d instructions, more than 420", n)
	}
}

func BenchmarkResolve(b *testing.B) {
	for b.Loop() {
		if _, err := Resolve(Options{Caps: dockerCaps}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	c := New(1)
	for b.Loop() {
		if _, err := c.Get(Options{Caps: dockerCaps}); err != nil {
			b.Fatal(err)
		}
	}
}

// confinedEnv makes the test binary install the default filter and report what
// it may still do.
const confinedEnv = "GANTRY_TEST_CONFINED"

func TestMain(m *testing.M) {
	if os.Getenv(confinedEnv) != "" {
		confined()
	}
	os.Exit(m.Run())
}

// confined runs as its own process.
func confined() {
	p, err := Resolve(Options{Caps: dockerCaps})
	if err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	prog := unix.SockFprog{Len: uint16(len(p.BPF) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&p.BPF[0]))}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&prog))); e != 0 {
		os.Stdout.WriteString("seccomp: " + e.Error())
		os.Exit(1)
	}
	try := func(name string, nr uintptr, args ...uintptr) {
		var a [3]uintptr
		copy(a[:], args)
		_, _, e := unix.RawSyscall(nr, a[0], a[1], a[2])
		os.Stdout.WriteString(name + "=" + unix.ErrnoName(e) + "\n")
	}
	try("getpid", unix.SYS_GETPID)
	try("unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	try("vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	try("uring", unix.SYS_IO_URING_SETUP, 1, 0, 0)
	try("userns", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	try("clone3", unix.SYS_CLONE3)
	try("future", 5000)
	os.Exit(0)
}

// TestKernel installs the filter in a process of its own. It needs no root.
func TestKernel(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), confinedEnv+"=1")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := "getpid=\nunix=\nalg=EPERM\nvsock=EPERM\nuring=EPERM\nuserns=EPERM\nclone3=ENOSYS\nfuture=ENOSYS\n"
	if got := strings.ReplaceAll(out.String(), "errno 0", ""); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// TestEveryCall holds what the default profile makes of every system call and
// socket family (row S26), so that a new version of the profile shows what it
// opens. Read a change of the golden file as carefully as a change of code.
func TestEveryCall(t *testing.T) {
	needAMD64(t)
	p := resolved(t, Options{Caps: dockerCaps})
	names := map[uint32]string{
		allow: "allow", eperm: "EPERM", enosys: "ENOSYS", unix.SECCOMP_RET_KILL_PROCESS: "kill",
	}
	var out bytes.Buffer
	// Runs of numbers that come to the same are one line.
	list := func(title string, last uint32, of func(n uint32) uint32) {
		fmt.Fprintf(&out, "%s\n", title)
		for first, n := uint32(0), uint32(0); n <= last; n++ {
			if n == last || of(n+1) != of(first) {
				fmt.Fprintf(&out, "  %d-%d %s\n", first, n, names[of(first)])
				first = n + 1
			}
		}
	}
	list("amd64", 1100, func(n uint32) uint32 { return eval(t, p, x64, n) })
	list("x86", 1100, func(n uint32) uint32 { return eval(t, p, x86, n) })
	list("x32", 1100, func(n uint32) uint32 { return eval(t, p, x64, x32Bit|n) })
	list("socket families", 70, func(n uint32) uint32 { return eval(t, p, x64, unix.SYS_SOCKET, uint64(n)) })
	list("clone flags by bit", 31, func(n uint32) uint32 { return eval(t, p, x64, unix.SYS_CLONE, 1<<n) })
	const file = "testdata/default-amd64.txt"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("differs from %s; look at it with -update and git diff", file)
	}
}

func BenchmarkCompile(b *testing.B) {
	p, err := Resolve(Options{Caps: dockerCaps})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := compiler.Compile(p.Spec); err != nil {
			b.Fatal(err)
		}
	}
}
