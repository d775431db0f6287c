package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/launch/rootfs"
	"gantry/internal/network"
	"gantry/internal/ociruntime/job"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/volume"
)

// build is one launch under way: what its steps have made so far.
type build struct {
	l       *Launcher
	in      Input
	view    *rootfs.View      // the image's files with the container's own over them
	sources map[string]string // host path by mount target
	open    []*os.File        // held until the process is prepared
	users   UserNamespace     // the host's unless User is set
	mapped  map[string]bool   // mount targets whose owners are mapped
	half    *network.Half
	sandbox *network.Sandbox // once the links are made
	job     *job.Job
	client  shim.Client

	// What steps beside the others leave behind, and the channels that are
	// closed when they have ended.
	nascent         *shim.Nascent // until the process has taken it over
	spawnErr        error
	spawned, linked chan struct{}
}

func newBuild(l *Launcher, in Input) *build {
	return &build{l: l, in: in, sources: map[string]string{}, mapped: map[string]bool{}, spawned: make(chan struct{}), linked: make(chan struct{})}
}

// steps are the steps of a launch, in order.
//
//	shim     its program is started, and begins while the rest goes on
//	rootfs   containers/<id>/{upper,work}; the overlay itself is mounted by
//	         the shim, detached, so that no mount outlives it
//	users    a user namespace, if ids are to be mapped
//	volumes  directories of volumes and binds; what the image has goes into
//	         fresh volumes
//	network  addresses and ports are chosen, the namespace is made
//	links    the links are made in it while the rest goes on
//	files    /etc/hosts, /etc/hostname, /etc/resolv.conf
//	bundle   user, devices, filter → OCI spec → job
//	process  shim → init, blocked before the user's program
func (b *build) steps() []step {
	id := b.in.ID
	return []step{
		{name: "shim", do: b.spawnShim, beside: true}, // close ends it
		{name: "rootfs", do: b.makeRootfs},            // its files stay with the container
		{name: "users", do: b.openUsers, undo: func(context.Context) error { return b.l.releaseUsers(id) }},
		{name: "volumes", do: b.mountVolumes, undo: b.unmountVolumes},
		{name: "network", do: b.attachNetwork, undo: func(ctx context.Context) error { return b.l.o.Networks.Detach(ctx, id) }},
		{name: "links", do: b.makeLinks, beside: true}, // undone with the network
		{name: "files", do: b.writeFiles},
		{name: "bundle", do: b.makeJob},
		{name: "process", do: b.makeProcess, undo: func(ctx context.Context) error { return b.l.endProcess(ctx, id) }},
	}
}

// close gives back what only the launch itself needed.
func (b *build) close() {
	if b.view != nil {
		b.view.Close()
	}
	if b.nascent != nil {
		b.nascent.Close()
	}
	if b.half != nil {
		b.half.Close()
	}
	b.users.Close()
	_ = unmountImages(b.l.runDir(b.in.ID)) // the container has its own; a teardown tries again
	b.letGo()
}

// letGo closes what of volumes and images was opened: a volume can't be unmounted
// before that.
func (b *build) letGo() {
	for _, f := range b.open {
		f.Close()
	}
	b.open = nil
}

func (b *build) makeRootfs(ctx context.Context) error {
	dir := b.l.dir(b.in.ID)
	if r := b.in.Root; r != nil {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			b.view, err = rootfs.Open(r.Upper, b.in.below())
		}
		if err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		return nil
	}
	if len(b.in.Lower) == 0 {
		return errs.New(errs.Invalid, runtimeFailed+"the container has no image")
	}
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{dir, 0o700}, {filepath.Join(dir, "work"), 0o700}} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
	}
	upper := filepath.Join(dir, "upper")
	var err error
	fresh := false
	if b.in.Whole {
		fresh, err = rootfs.CloneTree(ctx, upper, b.in.Lower[0])
	} else {
		err = rootfs.MakeUpper(upper, b.in.Lower[0])
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if size := b.in.Plan.RootSize; size > 0 && b.l.o.Quota != nil {
		if err := b.l.o.Quota.Set(b.in.ID, uint64(size), upper, filepath.Join(dir, "work")); err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
	}
	if b.view, err = rootfs.Open(upper, b.in.below()); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if b.view.Fresh && !b.in.Whole || fresh {
		return rootfs.Mark(upper)
	}
	return nil
}

// below are the directories that the container's own lies over.
func (in *Input) below() []string {
	if in.Whole {
		return nil
	}
	return in.Lower
}

func (b *build) mountVolumes(ctx context.Context) error {
	for _, m := range b.in.Plan.Mounts {
		switch m.Type {
		case "bind":
			if err := bindSource(m); err != nil {
				return err
			}
		case "volume":
			if err := b.mountVolume(ctx, m); err != nil {
				return err
			}
		case "image":
			if err := b.mountImage(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *build) unmountVolumes(ctx context.Context) error {
	b.letGo()
	return b.l.o.Volumes.Unmount(ctx, b.in.ID)
}

// bindSource makes sure that the source of a bind mount exists.
func bindSource(m plan.Mount) error {
	if m.Within != "" {
		return boundedSource(m)
	}
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("error while checking mount source path '%s': %w", m.Source, err)
	case !m.CreateSource:
		return plan.SourceMissing(m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// boundedSource is bindSource for a source that must be beneath a directory:
// no link leads out of that, now or when the source is opened (src-beneath).
func boundedSource(m plan.Mount) error {
	rel, err := filepath.Rel(m.Within, m.Source)
	if err != nil || !filepath.IsLocal(rel) {
		return errs.New(errs.Denied, "mount source path '%s' is not beneath %s", m.Source, m.Within)
	}
	root, err := os.OpenRoot(m.Within)
	if err != nil {
		return fmt.Errorf("error while checking mount source path '%s': %w", m.Source, err)
	}
	defer root.Close()
	_, err = root.Stat(rel)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && m.CreateSource:
		err = root.MkdirAll(rel, 0o755)
	case errors.Is(err, fs.ErrNotExist):
		return plan.SourceMissing(m.Source)
	}
	if err != nil {
		return fmt.Errorf("mount source path '%s' must be found beneath %s: %w", m.Source, m.Within, err)
	}
	return nil
}

func (b *build) mountVolume(ctx context.Context, m plan.Mount) error {
	v, err := b.l.o.Volumes.MountAs(ctx, volume.MountRequest{
		Container: b.in.ID, Name: m.Name, Destination: m.Target, ReadOnly: m.ReadOnly, Propagation: string(m.Propagation),
	})
	if err != nil {
		return err
	}
	source := v.Path
	if v.File != nil {
		b.open = append(b.open, v.File)
		source = rootfs.Name(v.File)
	}
	if v.Fresh {
		if !m.NoCopy && m.Subpath == "" {
			if err := b.view.CopyUp(ctx, m.Target, source); err != nil {
				return fmt.Errorf("copy the image's %s into volume %s: %w", m.Target, v.Name, err)
			}
		}
		if err := b.l.o.Volumes.MarkUsed(ctx, v.Name); err != nil {
			return err
		}
	}
	b.sources[m.Target] = source
	b.mapped[m.Target] = !v.Device // what is on a device has the ids of wherever it comes from
	if m.Subpath == "" {
		return nil
	}
	// The volume's content is anybody's who mounts it: the place below it is
	// found by descriptor and given to the shim as one.
	f, err := rootfs.Sub(source, m.Subpath)
	if err != nil {
		return errs.New(errs.Invalid, "cannot access path %q in volume %s: %w", m.Subpath, v.Name, err)
	}
	b.open = append(b.open, f)
	b.sources[m.Target] = rootfs.Name(f)
	return nil
}

func (b *build) attachNetwork(ctx context.Context) error {
	r := attachRequest(b.in)
	if b.users.Net != nil {
		r.Namespace = rootfs.Name(b.users.Net)
	}
	h, err := b.l.o.Networks.Begin(ctx, r)
	if err != nil {
		return err // says already that it is about networking
	}
	b.half = h
	return nil
}

func attachRequest(in Input) network.AttachRequest {
	p := in.Plan
	return network.AttachRequest{
		ID: in.ID, Name: in.Name, Hostname: p.Hostname(in.ID), Mode: networkMode(p, in.Joins), SharedWith: in.Joins.Network,
		Endpoints: p.Endpoints, Ports: p.Ports, Exposed: p.Exposed, PublishAll: p.PublishAll, Rate: p.NetRate,
		DNS: p.DNS, DNSOptions: p.DNSOptions, Reaches: in.Reaches,
	}
}

func (b *build) makeLinks(ctx context.Context) error {
	defer close(b.linked)
	var err error
	b.sandbox, err = b.half.Finish(ctx)
	return err
}

// needsLinks reports whether the process can't be prepared before its network
// is whole: another runtime may look at the links, a sysctl may name one, and what
// is restored runs at once.
func (b *build) needsLinks() bool {
	if len(b.l.runtime(b.in.Plan)) > 0 || b.in.Restore != nil {
		return true
	}
	for name := range b.in.Plan.Sysctls {
		if strings.HasPrefix(plan.SysctlName(name), "net.") {
			return true
		}
	}
	return false
}

// networkMode is the mode in the words of package network.
func networkMode(p *plan.Plan, j Joins) string {
	switch n := p.Namespaces.Network; n.Mode {
	case plan.Container:
		return "container:" + j.Network
	case plan.Network:
		return n.Network
	default:
		return string(n.Mode)
	}
}

// files are the names of what a container finds in /etc of ours, by the name it
// has there.
var files = [...]string{"hosts", "hostname", "resolv.conf"}

func (b *build) writeFiles(context.Context) error {
	if b.in.Joins.Network != "" {
		return nil // it has the other container's
	}
	p := b.in.Plan
	hostname := b.hostname()
	f := hostFiles(p, hostname)
	content := map[string][]byte{"hostname": []byte(hostname + "\n")}
	var err error
	if content["hosts"], content["resolv.conf"], err = b.l.o.Networks.Files(&b.half.Sandbox, f); err != nil {
		return err
	}
	for _, r := range b.in.Linked {
		content["hosts"] = append(content["hosts"], r.String()+"\n"...)
	}
	for _, name := range files {
		if err := keepOrWrite(filepath.Join(b.l.dir(b.in.ID), name), content[name]); err != nil {
			return fmt.Errorf("file /etc/%s: %w", name, err)
		}
	}
	return nil
}

func hostFiles(p *plan.Plan, hostname string) network.HostFiles {
	return network.HostFiles{
		Hostname: hostname, Domainname: p.Domainname, ExtraHosts: p.ExtraHosts,
		DNS: p.DNS, DNSSearch: p.DNSSearch, DNSOptions: p.DNSOptions,
	}
}

// keepOrWrite writes a file unless it has that content already, so that its
// inode stays and a start costs no write.
func keepOrWrite(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	return durable.Replace(path, content, 0o644)
}

// filesDir is where the container's files of /etc are: its own directory, or
// that of the container whose network it joins.
func (b *build) filesDir() string {
	if b.in.Joins.Network != "" {
		return b.l.dir(b.in.Joins.Network)
	}
	return b.l.dir(b.in.ID)
}

// hostname is the container's own host name.
func (b *build) hostname() string {
	if h := b.in.Plan.Hostname(b.in.ID); h != "" {
		return h
	}
	return b.in.ID[:12]
}
