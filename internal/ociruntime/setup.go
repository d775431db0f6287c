package ociruntime

import (
	"encoding/binary"
	"errors"
)

// A setup is the payload of the setup frame. Descriptors are indexes into those
// that come with the frame.
type setup struct {
	exec      bool // job is a process to put into the joined namespaces
	userNS    bool // in a user namespace that is not the host's
	cgroupNS  bool // make a cgroup namespace
	joinMount bool // join the mount namespace mountNS
	gateFifo  bool // wait at fifo, not at the socket
	hooks     bool // the parent has hooks to run before pivot_root
	edit      bool // job is an edit of the mount namespace mountNS

	mountNS int32
	procfs  int32 // for an edit: a procfs of the parent's pid namespace
	fifo    int32
	exe     int32
	root    int32 // a detached mount
	stdio   [3]int32
	extra   []int32
	mounts  []int32 // for each of the job's mounts: a detached mount, or -1
	job     []byte  // encoded job, process or edit
}

func (s *setup) encode() []byte {
	b := make([]byte, 0, 128+4*len(s.mounts)+len(s.job))
	for _, f := range s.flags() {
		v := byte(0)
		if *f {
			v = 1
		}
		b = append(b, v)
	}
	for _, n := range s.numbers() {
		b = binary.NativeEndian.AppendUint32(b, uint32(*n))
	}
	for _, l := range [][]int32{s.extra, s.mounts} {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(l)))
		for _, n := range l {
			b = binary.NativeEndian.AppendUint32(b, uint32(n))
		}
	}
	return append(b, s.job...)
}

func (s *setup) flags() []*bool {
	return []*bool{&s.exec, &s.userNS, &s.cgroupNS, &s.joinMount, &s.gateFifo, &s.hooks, &s.edit}
}

func (s *setup) numbers() []*int32 {
	return []*int32{&s.mountNS, &s.procfs, &s.fifo, &s.exe, &s.root, &s.stdio[0], &s.stdio[1], &s.stdio[2]}
}

// decodeSetup parses a payload that came with the descriptors fds and puts them
// in place of their indexes.
func decodeSetup(b []byte, fds []int) (*setup, error) {
	s := new(setup)
	bad := errors.New("the setup message is malformed")
	next := func() (int32, bool) {
		if len(b) < 4 {
			return 0, false
		}
		n := int32(binary.NativeEndian.Uint32(b))
		b = b[4:]
		return n, true
	}
	if len(b) < len(s.flags()) {
		return nil, bad
	}
	for i, f := range s.flags() {
		*f = b[i] != 0
	}
	b = b[len(s.flags()):]
	fd := func() (int32, bool) {
		n, ok := next()
		if !ok || int(n) >= len(fds) {
			return -1, ok && len(fds) == 0
		}
		if n < 0 {
			return -1, true
		}
		return int32(fds[n]), true
	}
	for _, p := range s.numbers() {
		n, ok := fd()
		if !ok {
			return nil, bad
		}
		*p = n
	}
	for _, l := range []*[]int32{&s.extra, &s.mounts} {
		n, ok := next()
		if !ok || n < 0 || int(n) > len(b)/4 {
			return nil, bad
		}
		for range n {
			v, ok := fd()
			if !ok {
				return nil, bad
			}
			*l = append(*l, v)
		}
	}
	s.job = b
	return s, nil
}
