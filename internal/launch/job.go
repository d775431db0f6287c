package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/launch/lookup"
	"gantry/internal/launch/rootfs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/ocispec"
	"gantry/internal/plan"
	"gantry/internal/shim"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// makeJob renders the plan, with what the steps before have found and made.
func (b *build) makeJob(context.Context) error {
	in, err := b.inputs()
	if err != nil {
		return err
	}
	p := b.in.Plan
	filter, err := b.l.filters.For(p.Security, p.Security.Capabilities(in.Caps))
	if err != nil {
		return err
	}
	in.Seccomp = filter.Spec
	spec, err := ocispec.Render(p, in)
	if err != nil {
		return err
	}
	if len(p.DeviceRequests) > 0 {
		if b.l.o.Devices == nil {
			return errs.New(errs.Unsupported, "devices of vendors are not supported")
		}
		if err := b.l.o.Devices.Add(spec, p); err != nil {
			return err
		}
	}
	if len(b.l.runtime(p)) > 0 {
		if err := b.writeBundle(spec); err != nil {
			return err
		}
	}
	b.job, err = job.FromSpec(spec, job.Options{
		ID: b.in.ID, Bundle: b.l.runDir(b.in.ID), Overlay: b.overlay(), Filter: filter.BPF, FilterFlags: filter.Flags,
		Reaper: spec.Annotations[ocispec.AnnotationInit] == "1", StdinOpen: p.Process.OpenStdin,
	})
	if err != nil {
		return startError(err)
	}
	return nil
}

// overlay says which directories make the root.
func (b *build) overlay() *job.Overlay {
	dir := b.l.dir(b.in.ID)
	root := Root{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	if b.in.Root != nil {
		root = *b.in.Root
	}
	return &job.Overlay{
		Lower: b.in.below(), Upper: root.Upper, Work: root.Work, Options: rootfs.Options(),
		Mapped: b.users.User != nil, Bounded: b.in.Plan.RootSize > 0,
	}
}

func (b *build) inputs() (ocispec.Inputs, error) {
	p, dir := b.in.Plan, b.filesDir()
	in := ocispec.Inputs{
		ID: b.in.ID, Hostname: b.hostname(), RootPath: "rootfs",
		CgroupPath: b.l.cgroupPath(b.in.ID, p), CgroupV2: b.l.o.Cgroups.Mode == cgroup.V2,
		Sources: b.sources, LinkEnv: b.in.LinkEnv,
		HostsPath: filepath.Join(dir, "hosts"), HostnamePath: filepath.Join(dir, "hostname"), ResolvConfPath: filepath.Join(dir, "resolv.conf"),
		RecursiveReadOnly: true,
	}
	in.NetNS = b.half.Sandbox.Path
	if b.users.User != nil {
		in.UserNS, in.UIDMap, in.GIDMap, in.Mapped = rootfs.Name(b.users.User), b.users.UID, b.users.GID, b.mapped
	}
	for _, j := range []struct {
		pid  int
		name string
		path *string
	}{{b.in.Joins.PID, "pid", &in.PIDNS}, {b.in.Joins.IPC, "ipc", &in.IPCNS}, {b.in.Joins.UTS, "uts", &in.UTSNS}} {
		if j.pid > 0 {
			*j.path = fmt.Sprintf("/proc/%d/ns/%s", j.pid, j.name)
		}
	}
	if pid := b.in.Joins.IPC; pid > 0 {
		in.ShmPath = fmt.Sprintf("/proc/%d/root/dev/shm", pid)
	}
	var err error
	if in.Caps, err = lookup.Bounding(); err != nil {
		return in, err
	}
	in.AppArmor = lookup.AppArmor("/sys")
	if in.User, err = lookup.User(p.Process, b.view); err != nil {
		return in, err
	}
	if !b.users.Has(in.User.UID, in.User.GID) {
		return in, errs.New(errs.Invalid, initFailed+"cannot set user %d:%d: it is not mapped in the container's user namespace", in.User.UID, in.User.GID)
	}
	if in.Owners, err = b.owners(in.User); err != nil {
		return in, err
	}
	in.Devices, in.BlockDevice, err = lookup.Devices(p)
	return in, err
}

// runtime is the program of the OCI runtime that the plan names, nil for ours.
func (l *Launcher) runtime(p *plan.Plan) []string {
	if l.o.Runtime == nil {
		return nil
	}
	return l.o.Runtime(p.Runtime)
}

// writeBundle writes the bundle that another runtime reads.
func (b *build) writeBundle(spec *specs.Spec) error {
	dir := filepath.Join(b.l.runDir(b.in.ID), "bundle")
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	data, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// makeProcess starts the shim, which prepares the process.
func (b *build) makeProcess(ctx context.Context) error {
	p, id := b.in.Plan, b.in.ID
	limits, err := p.Log.Limits()
	if err != nil {
		return err
	}
	dir := b.l.runDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if err := b.l.noteCgroup(id, p); err != nil {
		return err
	}
	attrs, err := p.LogInfo(id, b.in.Name).Attrs()
	if err != nil {
		return plan.LogError(err)
	}
	record := p.Log.Record()
	req := shim.Request{
		ID: id, Dir: dir, Job: b.job,
		Log: shim.LogConfig{
			Driver: record.Form, Path: filepath.Join(b.l.dir(id), record.File(id)),
			MaxSize: limits.MaxSize, MaxFile: limits.MaxFile, Compress: limits.Compress, Attrs: attrs,
		},
		OpenStdin: p.Process.OpenStdin, StdinOnce: p.Process.StdinOnce, Restore: b.in.Restore,
		Keep: b.half.Keep(),
	}
	if record.Hold {
		req.Log.Cursor = req.Log.Path + ".cursor" // files.Cursor
	}
	if program := b.l.runtime(p); len(program) > 0 {
		req.Runtime, req.Bundle = withDriver(b.l, program), filepath.Join(dir, "bundle")
	}
	n, err := b.shim(ctx)
	if err != nil {
		return err
	}
	if b.client, err = n.Create(ctx, req); err != nil {
		return startError(err)
	}
	return nil
}

func (b *build) spawnShim(context.Context) error {
	defer close(b.spawned)
	b.nascent, b.spawnErr = b.l.o.Shims.Spawn(b.in.ID)
	return b.spawnErr
}

// shim returns the shim when it is there and the process may be prepared. It is
// then the caller's.
func (b *build) shim(ctx context.Context) (*shim.Nascent, error) {
	<-b.spawned
	if b.needsLinks() {
		<-b.linked
	}
	if b.spawnErr != nil {
		return nil, b.spawnErr
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err // what made another step fail
	}
	n := b.nascent
	b.nascent = nil
	return n, nil
}

// Process decides all about a further process in a running container, whose
// first process has the host pid given.
func (l *Launcher) Process(_ context.Context, in Input, pid int, e *plan.ExecPlan) (*job.Process, error) {
	root, err := rootfs.OpenLive("/proc/" + strconv.Itoa(pid) + "/root")
	if err != nil {
		return nil, fmt.Errorf("root file system of the container: %w", err)
	}
	defer root.Close()
	var i ocispec.Inputs
	if i.Caps, err = lookup.Bounding(); err != nil {
		return nil, err
	}
	i.AppArmor = lookup.AppArmor("/sys")
	if i.User, err = lookup.User(e.Process, root); err != nil {
		return nil, err
	}
	spec, err := ocispec.Process(in.Plan, e, i)
	if err != nil {
		return nil, err
	}
	sec := in.Plan.Security
	sec.Privileged = sec.Privileged || e.Privileged
	filter, err := l.filters.For(sec, sec.Capabilities(i.Caps))
	if err != nil {
		return nil, err
	}
	return job.ProcessFromSpec(spec, job.ProcessOptions{Filter: filter.BPF, FilterFlags: filter.Flags})
}

// Limit changes the limits of a running container to those of p.
func (l *Launcher) Limit(_ context.Context, id string, p *plan.Plan) error {
	numbers, err := lookup.Numbers(p)
	if err != nil {
		return err
	}
	res, err := ocispec.Resources(p, ocispec.Inputs{CgroupV2: l.o.Cgroups.Mode == cgroup.V2, BlockDevice: numbers})
	if err != nil {
		return err
	}
	res.Devices = nil // they do not change
	return l.Cgroup(id, p).Update(res)
}
