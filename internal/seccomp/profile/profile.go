// Package profile gives the seccomp policies that containers run with: Docker's
// default one and those that users bring, resolved for a set of capabilities,
// this machine and its kernel, and compiled. It keeps what it compiled.
//
// The engine's launch package calls it at every start. It reads the kernel's
// version, and writes nothing. It must stay out of the shim, which gets the
// compiled program.
//
// Source of the default: github.com/moby/profiles/seccomp. It has no rule for
// io_uring, which is therefore off, and refuses the socket families AF_ALG and
// AF_VSOCK. On x86 of 32 bits sockets are also made by socketcall(2), whose
// arguments a filter can't read; Options.Socketcall says what becomes of that.
package profile

import (
	"container/list"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	compiler "gantry/internal/seccomp"
)

// Builtin and Unconfined are values of Options.Source beside a profile's JSON
// text.
const (
	Builtin    = "builtin"
	Unconfined = "unconfined"
)

// Socketcall says whether programs of 32 bits may make sockets by socketcall.
type Socketcall int

// The choices. With Permit a program can reach the families that the default
// profile refuses, as with Docker; with Refuse it can't, but programs of 32
// bits linked with the GNU C library make no sockets at all.
const (
	Permit Socketcall = iota
	Refuse
)

// Options names a policy.
type Options struct {
	// Source is Builtin (or empty), Unconfined, or a profile's JSON text.
	Source string
	// Caps are the capabilities in the container's bounding set, CAP_X.
	Caps       []string
	Socketcall Socketcall // of Builtin only
}

// Policy is a resolved policy.
type Policy struct {
	Spec  *specs.LinuxSeccomp // nil for none
	BPF   []byte              // as the kernel takes it; empty for none
	Flags uint32              // to install it with
}

// Cache resolves policies and keeps the latest. The zero value is not usable;
// New makes one. It may be used at once from several goroutines.
type Cache struct {
	size int
	mu   sync.Mutex
	by   map[key]*list.Element
	use  *list.List // of entry, the latest used first
}

type key [sha256.Size]byte

type entry struct {
	key    key
	policy Policy
}

// New returns a cache of at most size policies, at least one.
func New(size int) *Cache {
	return &Cache{size: max(size, 1), by: map[key]*list.Element{}, use: list.New()}
}

// Get returns the policy for o. What it returns is shared and must not be
// changed. Errors carry Docker's texts and no kind: they come at start.
func (c *Cache) Get(o Options) (Policy, error) {
	if o.Source == Unconfined {
		return Policy{}, nil
	}
	k := o.key()
	if p, ok := c.look(k); ok {
		return p, nil
	}
	p, err := Resolve(o)
	if err != nil {
		return Policy{}, err
	}
	c.keep(k, p)
	return p, nil
}

func (c *Cache) look(k key) (Policy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[k]
	if !ok {
		return Policy{}, false
	}
	c.use.MoveToFront(e)
	return e.Value.(entry).policy, true
}

func (c *Cache) keep(k key, p Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[k]; ok {
		return
	}
	c.by[k] = c.use.PushFront(entry{k, p})
	if c.use.Len() > c.size {
		old := c.use.Remove(c.use.Back()).(entry)
		delete(c.by, old.key)
	}
}

// key identifies what Resolve depends on.
func (o Options) key() key {
	caps := slices.Clone(o.Caps)
	slices.Sort(caps)
	return sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s", o.Socketcall, strings.Join(caps, ","), o.Source))
}

// Resolve is Cache.Get without a cache.
func Resolve(o Options) (Policy, error) {
	spec, err := resolve(o)
	if err != nil {
		return Policy{}, err
	}
	bpf, flags, err := compiler.Compile(spec)
	if err != nil {
		return Policy{}, err
	}
	return Policy{Spec: spec, BPF: bpf, Flags: flags}, nil
}

func resolve(o Options) (*specs.LinuxSeccomp, error) {
	// The resolver looks at the capabilities in a spec, and nothing else.
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: o.Caps}}}
	switch o.Source {
	case Unconfined:
		return nil, nil
	case "", Builtin:
		p, err := seccomp.GetDefaultProfile(spec)
		if err != nil {
			return nil, err
		}
		closeHighFamilies(p)
		if o.Socketcall == Refuse {
			withoutSocketcall(p)
		}
		return p, nil
	}
	return seccomp.LoadProfile(o.Source, spec)
}

// closeHighFamilies replaces the entry that allows every socket family above
// AF_VSOCK. A runtime compares all 64 bits of an argument and the kernel uses
// 32, so with that entry the family 1<<32|AF_ALG would pass and be AF_ALG. Our
// own compiler knows better; other runtimes get the policy as it is written.
func closeHighFamilies(p *specs.LinuxSeccomp) {
	var out []specs.LinuxSyscall
	for _, s := range p.Syscalls {
		if len(s.Args) != 1 || !slices.Contains(s.Names, "socket") || s.Args[0].Op != specs.OpGreaterThan {
			out = append(out, s)
			continue
		}
		// The families from the next one up to 63, as aligned blocks of a
		// power of two. The kernel has fewer than 50.
		for first := s.Args[0].Value + 1; first < 64; {
			size := first & -first
			arg := specs.LinuxSeccompArg{Index: s.Args[0].Index, Op: specs.OpMaskedEqual, Value: ^(size - 1), ValueTwo: first}
			out = append(out, specs.LinuxSyscall{Names: s.Names, Action: s.Action, ErrnoRet: s.ErrnoRet, Args: []specs.LinuxSeccompArg{arg}})
			first += size
		}
	}
	p.Syscalls = out
}

// withoutSocketcall takes socketcall out of the list of what is allowed. It
// then answers EPERM like other calls that are not listed.
func withoutSocketcall(p *specs.LinuxSeccomp) {
	for i, s := range p.Syscalls {
		if slices.Contains(s.Names, "socketcall") {
			p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return n == "socketcall" })
		}
	}
}
