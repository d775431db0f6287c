package server

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/ociruntime"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// own is our own runtime, and the container's cgroup.
type own struct {
	s   *server
	job *job.Job // until create has used it
	pid int      // of the first process
	has *mounts
	// frozen is the checkpoint that the processes are made of, or nil.
	frozen *protocol.Checkpoint
}

// newOwn makes the container's cgroup, as yet without limits. On v1 the first
// process need not be born in it: there it is made when the process exists, in
// the time that its program takes to begin.
func (s *server) newOwn(j *job.Job, from *protocol.Checkpoint) (*own, error) {
	if j.Cgroup.Path != "" {
		if s.cgroupsErr != nil {
			return nil, s.cgroupsErr
		}
		group, err := groupAt(s.cgroups, j.Cgroup.Path)
		if err != nil {
			return nil, err
		}
		if s.cgroups.Mode == cgroup.V2 {
			if err := group.Create(nil); err != nil {
				return nil, err
			}
		}
		s.group = group
	}
	return &own{s: s, job: j, frozen: from}, nil
}

// beginGroup makes the cgroup and puts its first process into it.
func (o *own) beginGroup(pid int) error {
	if err := o.s.group.Create(nil); err != nil {
		return err
	}
	return o.s.group.Add(pid)
}

// groupAt returns the group at a path, or a scope of systemd's if the path is of
// the form slice:prefix:name.
func groupAt(h *cgroup.Host, path string) (*cgroup.Group, error) {
	if strings.Count(path, ":") == 2 {
		return h.SystemdGroup(path)
	}
	return h.Group(path), nil
}

// options says how a process gets its streams and its place in the cgroup. The
// returned function frees what they hold.
func (o *own) options(stdio [3]*os.File) (ociruntime.Options, func(), error) {
	opts := ociruntime.Options{Stdio: stdio}
	if o.s.group == nil {
		return opts, func() {}, nil
	}
	dir, err := o.s.group.OpenDir()
	if err != nil {
		return opts, nil, err
	}
	if dir == nil { // not v2
		opts.Joined = o.s.group.Add
		return opts, func() {}, nil
	}
	opts.CgroupFD = int(dir.Fd())
	return opts, func() { dir.Close() }, nil
}

func (o *own) create(stdio [3]*os.File) (task, error) {
	opts, done, err := o.options(stdio)
	if err != nil {
		return nil, err
	}
	defer done()
	if opts.Joined != nil && o.s.cgroups.Mode != cgroup.V2 {
		opts.Joined = o.beginGroup
	}
	t, err := o.begin(opts, stdio)
	if err != nil {
		return nil, err
	}
	if o.s.group != nil {
		// Not before: a limit on the number of processes counts the
		// threads of the runtime's child half.
		if err := o.s.group.Update(o.job.Cgroup.Resources); err != nil {
			if i, ok := t.(ownTask); ok {
				i.Close()
			} else {
				unix.Kill(t.Pid(), unix.SIGKILL)
			}
			return nil, err
		}
		o.s.watchOOM()
	}
	o.pid = t.Pid()
	o.job = nil
	return t, nil
}

// begin makes the first process, of the job or of a checkpoint.
func (o *own) begin(opts ociruntime.Options, stdio [3]*os.File) (task, error) {
	if o.frozen != nil {
		if opts.Joined != nil && o.s.cgroups.Mode != cgroup.V2 {
			if err := o.s.group.Create(nil); err != nil {
				return nil, err
			}
		}
		return o.restore(stdio)
	}
	i, err := ociruntime.Create(o.job, opts)
	if err != nil {
		return nil, startError(err)
	}
	o.has = newMounts(o.job.Mounts, i.Mounts())
	return ownTask{i}, nil
}

func (o *own) exec(p *job.Process, stdio [3]*os.File) (task, error) {
	opts, done, err := o.options(stdio)
	if err != nil {
		return nil, err
	}
	defer done()
	i, err := ociruntime.Exec(ociruntime.Target{Pid: o.pid}, p, opts)
	if err != nil {
		return nil, startError(err)
	}
	return ownTask{i}, nil
}

// mounts: which of the mounts that criu has made is which is not known.
func (o *own) mounts() *mounts {
	if o.frozen != nil {
		return nil
	}
	return o.has
}

func (o *own) remove() {}

// ownTask is a process of our own runtime.
type ownTask struct{ *ociruntime.Init }

func (t ownTask) Start() error {
	err := t.Init.Start()
	t.Init.Close() // from here on the process is the reaper's
	return startError(err)
}

// startError makes the runtime's error for an unusable program the shim's.
func startError(err error) error {
	var e *ociruntime.ExecError
	if errors.As(err, &e) {
		return &protocol.StartError{ExitCode: e.Code, Text: e.Text}
	}
	return err
}
