package nat

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A legacyTable is the filter table of iptables-legacy of one family: how it is
// asked for, and where in the answers is what, of struct ipt_getinfo and
// ipt_get_entries of <linux/netfilter_ipv4/ip_tables.h> and of ip6_tables.h.
type legacyTable struct {
	names, program       string // the file that lists its tables, the tool that changes them
	domain, proto, level int    // of the socket, and of its options
	target               int    // of a rule's target_offset, in struct ipt_entry
}

var legacyTables = [...]legacyTable{
	{"ip_tables_names", "iptables-legacy", unix.AF_INET, unix.IPPROTO_RAW, unix.IPPROTO_IP, 88},
	{"ip6_tables_names", "ip6tables-legacy", unix.AF_INET6, unix.IPPROTO_RAW, unix.IPPROTO_IPV6, 140},
}

// exists reports whether there is such a table; asking for it would make one.
func (l legacyTable) exists() bool {
	b, err := os.ReadFile("/proc/thread-self/net/" + l.names)
	return err == nil && slices.Contains(strings.Fields(string(b)), "filter")
}

// Legacy reports whether this host has filters of iptables-legacy, which nf_tables
// does not show.
func Legacy() bool { return legacyTables[0].exists() || legacyTables[1].exists() }

// LegacyDropsForwarding returns which of iptables-legacy and ip6tables-legacy have
// filters that drop forwarded packets that none of their rules accepts. Where there
// are no filters it does not bring them about. What can't be found out is no.
func LegacyDropsForwarding() []string {
	var out []string
	for _, l := range legacyTables {
		if l.dropsForwarding() {
			out = append(out, l.program)
		}
	}
	return out
}

func (l legacyTable) dropsForwarding() bool {
	if !l.exists() {
		return false
	}
	fd, err := unix.Socket(l.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, l.proto)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if ask(fd, l.level, getInfo, info) != nil {
		return false
	}
	policy, size := binary.NativeEndian.Uint32(info[infoPolicy:]), binary.NativeEndian.Uint32(info[infoBytes:])
	entries := make([]byte, entriesHead+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[nameSize:], size)
	if ask(fd, l.level, getEntries, entries) != nil { // changed meanwhile, or not ours to see
		return false
	}
	return drops(entries[entriesHead:], int(policy), l.target)
}

const (
	getInfo, getEntries = 64, 65
	nameSize            = 32
	infoSize            = nameSize + 4 + 5*4 + 5*4 + 2*4
	infoPolicy          = nameSize + 4 + 5*4 + 2*4 // underflow[NF_INET_FORWARD]
	infoBytes           = infoSize - 4
	entriesHead         = nameSize + 8
)

// drops reports whether the rule at the given place, a chain's policy, drops;
// target is where rules of that family say where their target is. Pure.
func drops(entries []byte, at, target int) bool {
	const verdict = 32 // in struct xt_standard_target
	if at < 0 || at+target+2 > len(entries) {
		return false
	}
	at += int(binary.NativeEndian.Uint16(entries[at+target:])) + verdict
	if at+4 > len(entries) {
		return false
	}
	const drop = -1 // -NF_DROP - 1
	return int32(binary.NativeEndian.Uint32(entries[at:])) == drop
}

// legacyWait is how long the tool waits for another that changes the rules.
const legacyWait = "5"

// LegacyDrops returns the chains of LegacyDropsForwarding with the links whose
// packets their rules accept both ways. Where the tool of that name is not
// installed, or can't tell, none are known.
func LegacyDrops() []Chain {
	var out []Chain
	for _, program := range LegacyDropsForwarding() {
		list, _ := exec.Command(program, "-w", legacyWait, "-S", "FORWARD").Output()
		out = append(out, Chain{Family: program, Table: "filter", Name: "FORWARD", Hook: "forward", Passes: accepted(string(list))})
	}
	return out
}

// accepted returns the links that the output of `iptables -S FORWARD` accepts
// unconditionally, as what comes in and what goes out. Pure.
func accepted(list string) []string {
	var in, out []string
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != "-A" || f[4] != "-j" || f[5] != "ACCEPT" {
			continue
		}
		switch f[2] {
		case "-i":
			in = append(in, f[3])
		case "-o":
			out = append(out, f[3])
		}
	}
	return slices.DeleteFunc(in, func(l string) bool { return !slices.Contains(out, l) })
}

// letThroughLegacy is LetThrough of a chain of LegacyDrops, by the tool that made it.
func letThroughLegacy(ch Chain, links []string) error {
	for _, l := range links {
		if slices.Contains(ch.Passes, l) {
			continue
		}
		for _, way := range []string{"-i", "-o"} {
			if msg, err := exec.Command(ch.Family, "-w", legacyWait, "-A", ch.Name, way, l, "-j", "ACCEPT").CombinedOutput(); err != nil {
				return fmt.Errorf("let containers through %s: %w %s", ch, err, strings.TrimSpace(string(msg)))
			}
		}
	}
	return nil
}

// ask is getsockopt(2) with an answer in place of the question.
func ask(fd, level, option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
