package server

import (
	"maps"
	"slices"
	"sync"

	"gantry/internal/errs"
	"gantry/internal/ociruntime"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// mounts are the container's mounts that a user may have asked for. The daemon
// knows what they are for; the shim, which lives as long as they do, knows which
// of the container's mounts they are.
type mounts struct {
	mu sync.Mutex // one change at a time
	at map[string]madeMount
}

type madeMount struct {
	id   ociruntime.MountID
	tag  string // of one that was added later
	bind bool
}

// newMounts notes what was made at the start.
func newMounts(list []job.Mount, ids []ociruntime.MountID) *mounts {
	m := &mounts{at: map[string]madeMount{}}
	for i := range min(len(list), len(ids)) {
		if t := list[i].Type; t == "bind" || t == "tmpfs" {
			m.at[list[i].Target] = madeMount{id: ids[i], bind: t == "bind"}
		}
	}
	return m
}

// changeMounts serves the calls about mounts. It gets a goroutine: a source may
// take its time to answer.
func (k *control) changeMounts(call uint32, op protocol.Op, r *protocol.Reader) {
	var tag, at string
	var wire []byte
	switch op {
	case protocol.OpMount:
		tag, wire = r.String(), r.Bytes()
	case protocol.OpUnmount:
		at = r.String()
	}
	if err := r.Done(); err != nil {
		k.fail(call, err)
		return
	}
	m := k.s.runtime.mounts()
	if started, exited := k.s.main.status(); !started || exited {
		k.fail(call, errs.New(errs.Unavailable, "container %s is not running", k.s.id))
		return
	}
	if m == nil {
		k.fail(call, errs.New(errs.Unsupported, "the mounts of a container that another runtime, or criu, has made can not be changed while it runs"))
		return
	}
	target := ociruntime.Target{Pid: k.s.main.task.Pid()}
	switch op {
	case protocol.OpMounts:
		k.send(call, protocol.OpAnswer, m.list())
	case protocol.OpMount:
		k.reply(call, k.s.helped(func() error { return m.add(target, tag, wire) }))
	default:
		k.reply(call, k.s.helped(func() error { return m.remove(target, at) }))
	}
}

// helped calls f, which starts and waits for helpers of its own.
func (s *server) helped(f func() error) error {
	return s.reaper.spawn(func() (int, error) { return 0, f() }, nil)
}

func (m *mounts) list() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := protocol.AppendU32(nil, uint32(len(m.at)))
	for _, at := range slices.Sorted(maps.Keys(m.at)) {
		b = protocol.AppendString(protocol.AppendString(b, at), m.at[at].tag)
	}
	return b
}

func (m *mounts) add(t ociruntime.Target, tag string, wire []byte) error {
	j, err := job.DecodeMount(wire)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.at[j.Target]; there {
		return errs.New(errs.Conflict, "there is a mount at %s", j.Target)
	}
	id, err := ociruntime.Mount(t, j)
	if err != nil {
		return err
	}
	m.at[j.Target] = madeMount{id, tag, j.Type == "bind"}
	return nil
}

func (m *mounts) remove(t ociruntime.Target, at string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	made, there := m.at[at]
	if !there {
		return errs.New(errs.NotFound, "no mount was made at %s for the container", at)
	}
	if err := ociruntime.Unmount(t, at, made.id); err != nil {
		return err
	}
	delete(m.at, at)
	return nil
}
