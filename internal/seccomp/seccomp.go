// Package seccomp compiles a seccomp policy of the OCI runtime spec into a
// program for the kernel's classic BPF machine. It owns the compiler and the
// tables of system call numbers.
//
// The engine compiles each policy once and sends the program to the shim; the
// shim's runtime command line compiles what it reads from a bundle. It is pure:
// installing the program is the runtime's part. It must know nothing of where a
// policy comes from (its child profile does), and import nothing but the
// standard library, x/sys and runtime-spec.
//
// What a program looks like (seccomp(2), struct seccomp_data):
//
//	ld arch ── amd64? ── ld nr ── x32 bit? ─┬─ tree of ranges of numbers ── action
//	        │                               └─ tree of x32's own numbers
//	        ├─ x86? ──── ld nr ── tree ── argument checks ── action
//	        └─ kill
//
// A number that the policy's author can't have known, because it is higher than
// all he names or belongs to no call at all, gives ENOSYS when the default is a
// refusal: programs then use what they used before the call existed.
package seccomp

//go:generate go run ./gen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Instruction is one of the kernel's struct sock_filter.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// Filter is a compiled policy.
type Filter struct {
	Program []Instruction
	Flags   uint32 // of seccomp(2), SECCOMP_FILTER_FLAG_*
}

// Bytes is the program as the kernel takes it: an array of struct sock_filter
// in the machine's byte order.
func (f Filter) Bytes() []byte {
	out := make([]byte, 0, 8*len(f.Program))
	for _, i := range f.Program {
		out = binary.NativeEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out
}

// Compile compiles p for this machine. It returns the program as Filter.Bytes
// gives it, and the flags to install it with. An empty program means that p
// permits everything.
//
// Names of system calls that an architecture does not have are left out, as
// Docker does. SCMP_ACT_NOTIFY is refused: nothing listens.
func Compile(p *specs.LinuxSeccomp) ([]byte, uint32, error) {
	f, err := CompileFor(p, runtime.GOARCH)
	return f.Bytes(), f.Flags, err
}

// CompileFor is Compile for a machine of that GOARCH.
func CompileFor(p *specs.LinuxSeccomp, goarch string) (Filter, error) {
	if p == nil {
		return Filter{}, nil
	}
	flags, err := filterFlags(p.Flags)
	if err != nil {
		return Filter{}, err
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return Filter{}, fmt.Errorf("seccomp: default action: %w", err)
	}
	rules, err := collect(p.Syscalls)
	if err != nil {
		return Filter{}, err
	}
	arches, err := pick(p.Architectures, goarch)
	if err != nil {
		return Filter{}, err
	}
	if def == unix.SECCOMP_RET_ALLOW && len(rules) == 0 {
		return Filter{Flags: flags}, nil
	}
	prog := assemble(arches, def, rules)
	if len(prog) > maxInstructions {
		return Filter{}, fmt.Errorf("seccomp: program has %d instructions, the kernel takes %d", len(prog), maxInstructions)
	}
	return Filter{Program: prog, Flags: flags}, nil
}

// filterFlags are those of the policy. Without any, speculative store bypass
// is left as the host has it, like runc does: the mitigation costs much and
// has not been the kernel's own default since 5.16.
func filterFlags(list []specs.LinuxSeccompFlag) (uint32, error) {
	if list == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var out uint32
	for _, f := range list {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The filter is installed by a process of one thread.
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return 0, errors.New("seccomp: flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a listener, which is not supported")
		default:
			return 0, fmt.Errorf("seccomp: unknown flag %q", f)
		}
	}
	return out, nil
}

// maxErrno is the highest error number that the kernel passes on.
const maxErrno = 4095

// action gives the value that a filter returns. ret is the error number, or
// the message of a trace; nil is EPERM.
func action(a specs.LinuxSeccompAction, ret *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if ret != nil {
		if *ret > maxErrno {
			return 0, fmt.Errorf("errnoRet %d is above %d", *ret, maxErrno)
		}
		data = uint32(*ret)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActNotify:
		return 0, errors.New("SCMP_ACT_NOTIFY needs a listener, which is not supported")
	}
	return 0, fmt.Errorf("unknown action %q", a)
}

// refusal tells whether an action keeps a call from being done, so that one
// that the author can't have known should look like one that does not exist.
func refusal(value uint32) bool {
	switch value & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ERRNO:
		return value&unix.SECCOMP_RET_DATA != uint32(unix.ENOSYS)
	case unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_TRAP:
		return true
	}
	return false
}

// rule is what a policy says of one system call.
type rule struct {
	always bool   // regardless of arguments
	value  uint32 // if always
	when   []alternative
}

// alternative is an action for certain arguments: all conditions hold.
type alternative struct {
	value uint32
	conds []specs.LinuxSeccompArg
}

// collect gathers the entries of each system call by name. As in libseccomp, an
// entry without conditions makes those with conditions moot, in whatever order
// they are, and the first of several such counts.
func collect(list []specs.LinuxSyscall) (map[string]*rule, error) {
	out := map[string]*rule{}
	for _, s := range list {
		value, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("seccomp: %v: %w", s.Names, err)
		}
		for _, a := range s.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("seccomp: %v: argument %d: there are six", s.Names, a.Index)
			}
			if !slices.Contains(operators, a.Op) {
				return nil, fmt.Errorf("seccomp: %v: unknown operator %q", s.Names, a.Op)
			}
		}
		for _, name := range s.Names {
			r := out[name]
			if r == nil {
				r = &rule{}
				out[name] = r
			}
			r.add(value, s.Args)
		}
	}
	return out, nil
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// add adds one entry. Conditions on different arguments must all hold; if one
// argument has several, each of the conditions suffices, as runc reads it.
func (r *rule) add(value uint32, args []specs.LinuxSeccompArg) {
	switch {
	case r.always:
	case len(args) == 0:
		*r = rule{always: true, value: value}
	case repeats(args):
		for _, a := range args {
			r.when = append(r.when, alternative{value, []specs.LinuxSeccompArg{a}})
		}
	default:
		r.when = append(r.when, alternative{value, args})
	}
}

func repeats(args []specs.LinuxSeccompArg) bool {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}
