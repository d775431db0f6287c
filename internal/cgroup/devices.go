package cgroup

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// deviceLine renders a rule for devices.allow and devices.deny (cgroup-v1,
// devices.rst): "type major:minor access".
func deviceLine(r specs.LinuxDeviceCgroup) (string, error) {
	typ, access := r.Type, r.Access
	if typ == "" {
		typ = "a"
	}
	if access == "" {
		access = "rwm"
	}
	if typ != "a" && typ != "b" && typ != "c" || strings.Trim(access, "rwm") != "" {
		return "", errs.New(errs.Invalid, "device rule %s %s: the type is a, b or c and the access made of r, w and m", r.Type, r.Access)
	}
	number := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return itoa(*n)
	}
	// The kernel takes "a" alone as everything; with a type, numbers follow.
	if typ == "a" && r.Major == nil && r.Minor == nil {
		return "a", nil
	}
	return typ + " " + number(r.Major) + ":" + number(r.Minor) + " " + access, nil
}

// eBPF instructions, struct bpf_insn of linux/bpf.h: opcode, registers
// (destination low, source high), jump offset, immediate.
type insn struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

const (
	opLoadWord = 0x61 // dst = *(u32 *)(src + off)
	opMovReg   = 0xbc // 32-bit dst = src
	opMovImm   = 0xb4 // 32-bit dst = imm
	opAndImm   = 0x54 // 32-bit dst &= imm
	opRshImm   = 0x74 // 32-bit dst >>= imm
	opJumpNe   = 0x56 // 32-bit if dst != imm skip off
	opJumpEq   = 0x16 // 32-bit if dst == imm skip off
	opExit     = 0x95
)

// Types and access bits in bpf_cgroup_dev_ctx.access_type.
const (
	devBlock, devChar          = 1, 2
	accMknod, accRead, accWrit = 1, 2, 4
)

// deviceProgram compiles OCI device rules to a BPF_PROG_TYPE_CGROUP_DEVICE
// program: the last rule that matches decides, and no match is a refusal.
//
// The context is struct bpf_cgroup_dev_ctx: access_type (access in the upper 16
// bits, device type in the lower), major, minor. A rule allows only if it
// covers all of the asked access; a deny rule matches if it covers any.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	prog := []insn{
		{op: opLoadWord, dst: 2, src: 1, off: 0},
		{op: opMovReg, dst: 3, src: 2},
		{op: opAndImm, dst: 2, imm: 0xffff}, // r2 = type
		{op: opRshImm, dst: 3, imm: 16},     // r3 = access
		{op: opLoadWord, dst: 4, src: 1, off: 4},
		{op: opLoadWord, dst: 5, src: 1, off: 8},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		block, err := deviceRule(rules[i])
		if err != nil {
			return nil, err
		}
		prog = append(prog, block...)
		if len(block) == 2 { // matches everything: what is before can't matter
			return encodeInsns(prog), nil
		}
	}
	prog = append(prog, insn{op: opMovImm, dst: 0, imm: 0}, insn{op: opExit})
	return encodeInsns(prog), nil
}

// deviceRule compiles one rule: tests that skip the verdict, then the verdict.
func deviceRule(r specs.LinuxDeviceCgroup) ([]insn, error) {
	if _, err := deviceLine(r); err != nil {
		return nil, err
	}
	var block []insn
	switch r.Type {
	case "b":
		block = append(block, insn{op: opJumpNe, dst: 2, imm: devBlock})
	case "c":
		block = append(block, insn{op: opJumpNe, dst: 2, imm: devChar})
	}
	if access := accessBits(r.Access); access != accMknod|accRead|accWrit {
		if r.Allow { // asked &^ allowed must be 0
			block = append(block, insn{op: opMovReg, dst: 0, src: 3},
				insn{op: opAndImm, dst: 0, imm: int32(^access & 7)},
				insn{op: opJumpNe, dst: 0, imm: 0})
		} else { // asked & denied must not be 0
			block = append(block, insn{op: opMovReg, dst: 0, src: 3},
				insn{op: opAndImm, dst: 0, imm: int32(access)},
				insn{op: opJumpEq, dst: 0, imm: 0}) // skip when nothing of it is asked
		}
	}
	if r.Major != nil && *r.Major >= 0 {
		block = append(block, insn{op: opJumpNe, dst: 4, imm: int32(uint32(*r.Major))})
	}
	if r.Minor != nil && *r.Minor >= 0 {
		block = append(block, insn{op: opJumpNe, dst: 5, imm: int32(uint32(*r.Minor))})
	}
	verdict := int32(0)
	if r.Allow {
		verdict = 1
	}
	block = append(block, insn{op: opMovImm, dst: 0, imm: verdict}, insn{op: opExit})
	for i := range block {
		if block[i].op == opJumpNe || block[i].op == opJumpEq {
			block[i].off = int16(len(block) - i - 1)
		}
	}
	return block, nil
}

func accessBits(s string) uint32 {
	if s == "" {
		return accMknod | accRead | accWrit
	}
	var bits uint32
	for _, c := range s {
		switch c {
		case 'm':
			bits |= accMknod
		case 'r':
			bits |= accRead
		case 'w':
			bits |= accWrit
		}
	}
	return bits
}

func encodeInsns(prog []insn) []byte {
	out := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		out = append(out, i.op, i.src<<4|i.dst)
		out = binary.NativeEndian.AppendUint16(out, uint16(i.off))
		out = binary.NativeEndian.AppendUint32(out, uint32(i.imm))
	}
	return out
}

// attachDeviceProgram replaces the device filter of the v2 group at dir by one
// for rules (bpf(2), BPF_PROG_LOAD, BPF_PROG_ATTACH). Programs of our own that
// were attached before are detached after, so that there is no moment without.
func attachDeviceProgram(dir string, rules []specs.LinuxDeviceCgroup) error {
	code, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("device filter: open %s: %w", dir, err)
	}
	defer unix.Close(cg)
	old, err := attachedPrograms(cg)
	if err != nil {
		return fmt.Errorf("device filter: %w", err)
	}
	prog, err := loadProgram(code)
	if err != nil {
		return fmt.Errorf("device filter: load program: %w", err)
	}
	defer unix.Close(prog)
	attr := progAttach{target: uint32(cg), prog: uint32(prog), typ: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("device filter: attach to %s: %w", dir, err)
	}
	for _, id := range old {
		if err := detachProgram(cg, id); err != nil {
			return fmt.Errorf("device filter: detach the former: %w", err)
		}
	}
	return nil
}

// The parts of union bpf_attr that the commands here use, as linux/bpf.h lays
// them out.
type (
	progLoad struct {
		typ, count     uint32
		insns, license uint64
		logLevel       uint32
		logSize        uint32
		logBuf         uint64
		kernVersion    uint32
		flags          uint32
		name           [16]byte
	}
	progAttach struct{ target, prog, typ, flags, replace uint32 }
	progQuery  struct {
		target, typ, queryFlags, attachFlags uint32
		ids                                  uint64
		count, _                             uint32
	}
	progByID struct{ id, next, openFlags uint32 }
)

func loadProgram(code []byte) (int, error) {
	license := []byte("Apache-2.0\x00")
	attr := progLoad{
		typ: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:], "gantry_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err
}

func attachedPrograms(cg int) ([]uint32, error) {
	ids := make([]uint32, 64) // the kernel's own limit for one group
	attr := progQuery{target: uint32(cg), typ: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, fmt.Errorf("query programs: %w", err)
	}
	return ids[:attr.count], nil
}

func detachProgram(cg int, id uint32) error {
	byID := progByID{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if err != nil {
		return os.NewSyscallError("bpf", err)
	}
	defer unix.Close(fd)
	attr := progAttach{target: uint32(cg), prog: uint32(fd), typ: unix.BPF_CGROUP_DEVICE}
	_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return -1, errno
		}
	}
}
