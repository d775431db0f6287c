package seccomp

import (
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The instructions used (linux/bpf_common.h).
const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRet  = unix.BPF_RET | unix.BPF_K
	opJa   = unix.BPF_JMP | unix.BPF_JA
	opJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJge  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opJgt  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
)

// Offsets in struct seccomp_data.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// enosys is the answer to a call that nobody knows.
const enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// label names an instruction by its distance from the program's end.
type label int

// builder writes a program from its end, since jumps only go forward: what is
// jumped to exists when the jump is written.
type builder struct {
	rev  []Instruction
	rets map[uint32]label // the latest return of each value
}

func (b *builder) emit(i Instruction) label {
	b.rev = append(b.rev, i)
	return label(len(b.rev) - 1)
}

// ret gives a return of value that the next instruction can jump to.
func (b *builder) ret(value uint32) label {
	if l, ok := b.rets[value]; ok && b.reaches(l) {
		return l
	}
	l := b.emit(Instruction{Code: opRet, K: value})
	b.rets[value] = l
	return l
}

// reaches tells whether the instructions to be written next can jump to l. A
// conditional jump has 8 bits; some are kept for what gets written in between.
func (b *builder) reaches(l label) bool { return len(b.rev)-1-int(l) < math.MaxUint8-4 }

// near gives a label within reach that leads to l.
func (b *builder) near(l label) label {
	if b.reaches(l) {
		return l
	}
	if to := b.rev[l]; to.Code == opRet {
		return b.ret(to.K)
	}
	return b.emit(Instruction{Code: opJa, K: uint32(len(b.rev) - 1 - int(l))})
}

// branch writes: if A op k goto yes else goto no.
func (b *builder) branch(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes, no = b.near(yes), b.near(no)
	at := len(b.rev)
	return b.emit(Instruction{Code: op, Jt: uint8(at - 1 - int(yes)), Jf: uint8(at - 1 - int(no)), K: k})
}

// load writes: A = 32 bits of seccomp_data at off, then goto next.
func (b *builder) load(off uint32, next label) label {
	b.follow(next)
	return b.emit(Instruction{Code: opLoad, K: off})
}

// follow makes sure that what is written next is followed by l.
func (b *builder) follow(l label) {
	switch {
	case int(l) == len(b.rev)-1:
	case b.rev[l].Code == opRet:
		b.emit(b.rev[l])
	default:
		b.emit(Instruction{Code: opJa, K: uint32(len(b.rev) - 1 - int(l))})
	}
}

// program is what was written, from its beginning.
func (b *builder) program() []Instruction {
	slices.Reverse(b.rev)
	return b.rev
}

// assemble writes the program for all architectures, the first one's calls
// being found first.
func assemble(list []arch, def uint32, rules map[string]*rule) []Instruction {
	b := &builder{rets: map[uint32]label{}}
	sections := make([]label, len(list))
	for i := len(list) - 1; i >= 0; i-- {
		sections[i] = section(b, list[i], def, rules)
	}
	next := b.emit(Instruction{Code: opRet, K: unix.SECCOMP_RET_KILL_PROCESS})
	for i := len(list) - 1; i >= 0; i-- {
		next = b.branch(opJeq, list[i].audit, sections[i], next)
	}
	b.load(offArch, next)
	return b.program()
}

// section writes what is done with the calls of one architecture.
func section(b *builder, a arch, def uint32, rules map[string]*rule) label {
	known := a.numbers()
	h := &handlers{b: b, width: a.width, big: a.big, def: def, chains: map[string]label{}}
	tree := b.tree(ranges(h, known, def, rules))
	if !a.x32 {
		return b.load(offNumber, tree)
	}
	own := map[string]uint32{}
	for i, name := range x32Numbers {
		own[name] = x32Own + uint32(i)
	}
	ownTree := b.tree(ranges(h, own, def, rules))
	// if A >= x32Bit { A &^= x32Bit; if A >= x32Own goto ownTree }; goto tree
	split := b.branch(opJge, x32Own, ownTree, tree)
	b.follow(split)
	strip := b.emit(Instruction{Code: opAnd, K: ^uint32(x32Bit)})
	return b.load(offNumber, b.branch(opJge, x32Bit, strip, tree))
}

// span is the numbers from First up to the next span's, and where they lead.
type span struct {
	first uint32
	to    label
}

// handlers writes what is done with a call once its number is known.
type handlers struct {
	b      *builder
	width  width
	big    bool
	def    uint32
	chains map[string]label // written argument checks, by their text
}

// width is how much of an argument counts.
type width int

const (
	bits32 width = 32
	bits64 width = 64
)

// ranges lists all numbers, in order, with what becomes of each. known are the
// numbers of an architecture's calls.
func ranges(h *handlers, known map[string]uint32, def uint32, rules map[string]*rule) []span {
	unknown := h.b.ret(def)
	if refusal(def) {
		unknown = h.b.ret(enosys)
	}
	highest := uint32(0) // of those that the policy names
	for name := range rules {
		if n, ok := known[name]; ok {
			highest = max(highest, n)
		}
	}
	type call struct {
		number uint32
		name   string
	}
	calls := make([]call, 0, len(known))
	for name, n := range known {
		if n <= highest || !refusal(def) {
			calls = append(calls, call{n, name})
		}
	}
	slices.SortFunc(calls, func(x, y call) int { return int(x.number) - int(y.number) })
	var out []span
	places := map[Instruction]label{} // one label for all returns of a value
	add := func(first uint32, to label) {
		if at := h.b.rev[to]; at.Code == opRet {
			if l, ok := places[at]; ok {
				to = l
			}
			places[at] = to
		}
		if n := len(out); n == 0 || out[n-1].to != to {
			out = append(out, span{first, to})
		}
	}
	next := uint32(0)
	for _, c := range calls {
		if c.number > next {
			add(next, unknown)
		}
		to := h.b.ret(def)
		if r := rules[c.name]; r != nil {
			to = h.of(c.name, r)
		}
		add(c.number, to)
		next = c.number + 1
	}
	add(next, unknown)
	return out
}

// narrow are the arguments that the kernel takes as 32 bits of the register and
// that policies look at. Comparing more would let a program choose: the other
// half is its own to fill (CVE-2019-10063 was that of ioctl).
var narrow = map[string][]uint{
	"socket": {0, 1, 2}, "socketpair": {0, 1, 2}, "socketcall": {0}, "ioctl": {0, 1}, "fcntl": {0, 1}, "personality": {0},
	"prctl": {0}, "unshare": {0}, "setns": {0, 1}, "keyctl": {0}, "bpf": {0, 2}, "setsockopt": {0, 1, 2}, "getsockopt": {0, 1, 2},
}

// of gives the place where r, the rule of the call of that name, is carried out.
func (h *handlers) of(name string, r *rule) label {
	if r.always {
		return h.b.ret(r.value)
	}
	key := fmt.Sprint(narrow[name], r.when)
	if l, ok := h.chains[key]; ok {
		return l
	}
	next := h.b.ret(h.def)
	for i := len(r.when) - 1; i >= 0; i-- {
		to := h.b.ret(r.when[i].value)
		for _, c := range slices.Backward(r.when[i].conds) {
			w := h.width
			if slices.Contains(narrow[name], c.Index) {
				w = bits32
			}
			to = h.cond(c, w, to, next)
		}
		next = to
	}
	h.chains[key] = next
	return next
}

// cond writes: if the argument fulfils c goto yes else goto no. Wide arguments
// are compared in two halves; of others only the low half exists, and only
// that of the wanted value counts, as in libseccomp.
func (h *handlers) cond(c specs.LinuxSeccompArg, w width, yes, no label) label {
	lo := offArgs + 8*uint32(c.Index)
	hi := lo + 4
	if h.big {
		lo, hi = hi, lo
	}
	b := h.b
	v := c.Value
	switch c.Op {
	case specs.OpNotEqual:
		yes, no = no, yes
		fallthrough
	case specs.OpEqualTo:
		l := b.load(lo, b.branch(opJeq, uint32(v), yes, no))
		if w == bits64 {
			l = b.load(hi, b.branch(opJeq, uint32(v>>32), l, no))
		}
		return l
	case specs.OpLessEqual:
		yes, no = no, yes
		fallthrough
	case specs.OpGreaterThan:
		return b.ordered(opJgt, c.Value, lo, hi, w, yes, no)
	case specs.OpLessThan:
		yes, no = no, yes
		fallthrough
	case specs.OpGreaterEqual:
		return b.ordered(opJge, c.Value, lo, hi, w, yes, no)
	}
	// Masked equality: Value is the mask, ValueTwo what must remain.
	l := b.masked(lo, uint32(v), uint32(c.ValueTwo), yes, no)
	if w == bits64 {
		l = b.masked(hi, uint32(v>>32), uint32(c.ValueTwo>>32), l, no)
	}
	return l
}

func (b *builder) ordered(op uint16, v uint64, lo, hi uint32, w width, yes, no label) label {
	l := b.load(lo, b.branch(op, uint32(v), yes, no))
	if w == bits64 {
		l = b.branch(opJeq, uint32(v>>32), l, no)
		l = b.load(hi, b.branch(opJgt, uint32(v>>32), yes, l))
	}
	return l
}

func (b *builder) masked(off, mask, want uint32, yes, no label) label {
	switch {
	case mask == 0 && want == 0:
		return yes
	case want&^mask != 0:
		return no
	}
	next := b.branch(opJeq, want, yes, no)
	if mask != math.MaxUint32 {
		b.follow(next)
		next = b.emit(Instruction{Code: opAnd, K: mask})
	}
	return b.load(off, next)
}

// tree writes a search for the span that A is in.
func (b *builder) tree(list []span) label { return b.search(units(list)) }

// unit is a span, with some single numbers in it that lead elsewhere.
type unit struct {
	first   uint32
	to      label
	singles []span
}

// maxSingles bounds how long a search can take in one unit.
const maxSingles = 4

// units joins spans that lead to the same place but for single numbers between
// them: testing for one number takes one instruction, where a search by ranges
// takes two.
func units(list []span) []unit {
	var out []unit
	for i := 0; i < len(list); {
		u := unit{first: list[i].first, to: list[i].to}
		for i+2 < len(list) && list[i+2].to == u.to && list[i+2].first == list[i+1].first+1 && len(u.singles) < maxSingles {
			u.singles = append(u.singles, list[i+1])
			i += 2
		}
		out = append(out, u)
		i++
	}
	return out
}

func (b *builder) search(list []unit) label {
	if len(list) == 1 {
		u := list[0]
		next := u.to
		for _, s := range u.singles {
			next = b.branch(opJeq, s.first, s.to, next)
		}
		return next
	}
	mid := len(list) / 2
	high := b.search(list[mid:])
	low := b.search(list[:mid])
	return b.branch(opJge, list[mid].first, high, low)
}
