package nat

import (
	"encoding/binary"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Legacy reports whether this host has filters of iptables-legacy, which nf_tables
// does not show.
func Legacy() bool {
	b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	return err == nil && strings.Contains(string(b), "filter")
}

// LegacyDropsForwarding reports whether the filters of iptables-legacy drop
// forwarded packets that none of their rules accepts. Where there are none it
// does not bring them about. What can't be found out is no.
func LegacyDropsForwarding() bool {
	if !Legacy() {
		return false
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if ask(fd, getInfo, info) != nil {
		return false
	}
	policy, size := binary.NativeEndian.Uint32(info[infoPolicy:]), binary.NativeEndian.Uint32(info[infoBytes:])
	entries := make([]byte, entriesHead+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[nameSize:], size)
	if ask(fd, getEntries, entries) != nil { // changed meanwhile, or not ours to see
		return false
	}
	return drops(entries[entriesHead:], int(policy))
}

// What is asked of the kernel, and where in the answers is what: struct
// ipt_getinfo and ipt_get_entries of <linux/netfilter_ipv4/ip_tables.h>.
const (
	getInfo, getEntries = 64, 65
	nameSize            = 32
	infoSize            = nameSize + 4 + 5*4 + 5*4 + 2*4
	infoPolicy          = nameSize + 4 + 5*4 + 2*4 // underflow[NF_INET_FORWARD]
	infoBytes           = infoSize - 4
	entriesHead         = nameSize + 8
)

// drops reports whether the rule at the given place, a chain's policy, drops.
// Pure.
func drops(entries []byte, at int) bool {
	const targetOffset, verdict = 88, 32 // in struct ipt_entry, in struct xt_standard_target
	if at < 0 || at+targetOffset+2 > len(entries) {
		return false
	}
	at += int(binary.NativeEndian.Uint16(entries[at+targetOffset:])) + verdict
	if at+4 > len(entries) {
		return false
	}
	const drop = -1 // -NF_DROP - 1
	return int32(binary.NativeEndian.Uint32(entries[at:])) == drop
}

// ask is getsockopt(2) with an answer in place of the question.
func ask(fd, option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
