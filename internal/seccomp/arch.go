package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// arch is one way in which programs call the kernel.
type arch struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_*, in seccomp_data.arch
	table string
	width width
	big   bool // big endian
	x32   bool // admit x32's calls too, which have this arch's number
}

// x32Bit marks the calls of x32, amd64's variant with short pointers
// (__X32_SYSCALL_BIT). Its numbers below x32Own are amd64's.
const (
	x32Bit = 0x40000000
	x32Own = 512
)

// arches are those with a table, with the GOARCH that runs them natively.
var arches = []struct {
	goarch string
	arch
}{
	{"amd64", arch{name: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, table: tableX8664, width: bits64}},
	{"386", arch{name: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, table: tableX86, width: bits32}},
	{"arm64", arch{name: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, table: tableARM64, width: bits64}},
	{"arm", arch{name: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, table: tableARM, width: bits32}},
	{"s390x", arch{name: specs.ArchS390X, audit: unix.AUDIT_ARCH_S390X, table: tableS390X, width: bits64, big: true}},
	{"ppc64le", arch{name: specs.ArchPPC64LE, audit: unix.AUDIT_ARCH_PPC64LE, table: tablePPC64LE, width: bits64}},
	{"riscv64", arch{name: specs.ArchRISCV64, audit: unix.AUDIT_ARCH_RISCV64, table: tableRISCV64, width: bits64}},
	{"loong64", arch{name: specs.ArchLOONGARCH64, audit: unix.AUDIT_ARCH_LOONGARCH64, table: tableLoong64, width: bits64}},
}

// pick returns the architectures of a policy, the machine's own first, which is
// always among them. Those without a table are left out: their calls are
// answered by death, as are those of any that the policy does not name.
func pick(names []specs.Arch, goarch string) ([]arch, error) {
	var out []arch
	for _, a := range arches {
		if a.goarch == goarch {
			out = append(out, a.arch)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("seccomp: no table of system calls for %s", goarch)
	}
	for _, a := range arches {
		if slices.Contains(names, a.name) && a.name != out[0].name && a.big == out[0].big {
			out = append(out, a.arch)
		}
	}
	for i := range out {
		out[i].x32 = out[i].name == specs.ArchX86_64 && slices.Contains(names, specs.ArchX32)
	}
	return out, nil
}

// numbers reads a table: names in order of number, with @n where a gap ends.
func (a arch) numbers() map[string]uint32 {
	out := make(map[string]uint32, 512)
	next := uint32(0)
	for word := range strings.FieldsSeq(a.table) {
		if word[0] == '@' {
			n, err := strconv.ParseUint(word[1:], 10, 32)
			if err != nil {
				panic("seccomp: table of " + string(a.name) + ": " + err.Error())
			}
			next = uint32(n)
			continue
		}
		out[word] = next
		next++
	}
	return out
}

// x32Numbers are the calls whose x32 form has a number of its own
// (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Numbers = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
	"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load", "waitid",
	"set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg",
	"sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit", "execveat",
	"preadv2", "pwritev2",
}
