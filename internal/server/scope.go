package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/server/policy"
	"gantry/internal/wire"
)

// A Scoped serves the API as far as a policy allows. Its routes and handlers
// are the full API's; the policy is asked twice:
//
//	request ─▶ route ─▶ admit: operation, target container ─▶ handler decodes
//	        ─▶ guard: the very value that the engine is handed ─▶ engine
//
// No byte is parsed for the policy alone, so that it can't see anything else
// than the handler (row S11 of the threat model). What one request may carry
// over an upgraded connection is bytes of a stream, never a further request.
type Scoped struct {
	*Server
	policy atomic.Pointer[policy.Policy]
}

// Scoped returns a server with the same parts, bounded by a policy. The parent
// closes it.
func (s *Server) Scoped(p *policy.Policy) *Scoped {
	o := s.Options
	sc := &Scoped{}
	sc.policy.Store(p)
	w := world{o.Views, o.Execs, o.Volumes, &sc.policy}
	o.Lifecycle = guardedLife{o.Lifecycle, w}
	o.States = guardedStates{o.States, w}
	o.Views = guardedViews{o.Views, w}
	o.Execs = guardedExecs{o.Execs, w}
	o.Networks = guardedNetworks{o.Networks, w}
	o.Members = guardedMembers{o.Members, w}
	o.Volumes = guardedVolumes{o.Volumes, w}
	o.Builds = guardedBuilds{o.Builds, w}
	o.Transfers = guardedTransfers{o.Transfers, w}
	o.Checkpoints = guardedCheckpoints{o.Checkpoints}
	inner := &Server{Options: o, ctx: s.ctx, cancel: s.cancel, scope: &scope{w}, parent: s}
	inner.route(w.visible)
	sc.Server = inner
	return sc
}

// SetPolicy replaces the policy, for requests from now on.
func (s *Scoped) SetPolicy(p *policy.Policy) { s.policy.Store(p) }

// Operations returns the class of every operation.
func Operations() map[string]string {
	all := map[string]string{"image.import": string(classWrite)}
	for _, o := range operations {
		all[o.name] = string(o.class)
	}
	return all
}

// world is what there is, as policies ask for it.
type world struct {
	views   Views
	execs   Execs
	volumes Volumes
	policy  *atomic.Pointer[policy.Policy]
}

// Labels returns a container's labels.
func (w world) Labels(ctx context.Context, ref string) (map[string]string, error) {
	_, labels, err := w.container(ctx, ref)
	return labels, err
}

// Volume returns a volume's driver and its options.
func (w world) Volume(ctx context.Context, name string) (string, map[string]string, bool) {
	v, err := w.volumes.Inspect(ctx, name)
	return v.Driver, v.Options, err == nil
}

func (w world) container(ctx context.Context, ref string) (id string, labels map[string]string, err error) {
	c, err := w.views.Inspect(ctx, ref, container.InspectOptions{})
	if err != nil {
		return "", nil, err
	}
	if c.Config != nil {
		labels = c.Config.Labels
	}
	return c.ID, labels, nil
}

// visible says whether an event is for the clients of the socket.
func (w world) visible(e wire.Event) bool {
	p := w.policy.Load()
	return len(p.Labels) == 0 || e.Type == "container" && p.Touches(e.Actor.Attributes)
}

// scope admits requests.
type scope struct{ world }

// admit decides by operation and by the container that is the target. The
// handler is given that container's ID, so that no renaming comes in between.
func (s *scope) admit(r *request, route *compiled) error {
	p := s.policy.Load()
	o, _ := operationOf(route.method, route.pattern)
	if o.name == "image.pull" && r.query.Get("fromImage") == "" {
		o.name = "image.import"
	}
	if err := p.Operation(o.name, string(o.class)); err != nil {
		return err
	}
	if err := s.content(p, o, r); err != nil {
		return err
	}
	if len(p.Labels) == 0 {
		return nil
	}
	return s.target(p, o, r, route)
}

// content decides about what is in the path or the query.
func (s *scope) content(p *policy.Policy, o operation, r *request) error {
	switch o.name {
	case "image.pull":
		ref := r.query.Get("fromImage")
		if tag := r.query.Get("tag"); tag != "" {
			sep := ":"
			if strings.Contains(tag, ":") {
				sep = "@"
			}
			ref += sep + tag
		}
		return p.Image(o.name, ref)
	case "image.import":
		return policy.Import(p, joined(r.query.Get("repo"), r.query.Get("tag")), r.query.Get("fromSrc"))
	case "container.commit":
		return p.Image(o.name, joined(r.query.Get("repo"), r.query.Get("tag")))
	case "image.tag":
		if err := p.Image(o.name, r.name); err != nil {
			return err
		}
		return p.Image(o.name, joined(r.query.Get("repo"), r.query.Get("tag")))
	case "image.push", "image.remove", "image.distribution", "image.pin", "image.unpin":
		return p.Image(o.name, r.name)
	case "build.run":
		b := policy.BuildRequest{Network: r.query.Get("networkmode"), Remote: r.query.Get("remote"), CgroupParent: r.query.Get("cgroupparent"), Tags: r.query["t"]}
		return p.RunBuild(b)
	case "image.save":
		for _, name := range append(slices.Clone(r.query["names"]), r.name) {
			if err := p.Image(o.name, name); err != nil && name != "" {
				return err
			}
		}
	case "container.start":
		if r.query.Get("checkpoint") != "" {
			return p.Operation("checkpoint.create", string(classAdmin))
		}
	}
	return nil
}

func joined(repo, tag string) string {
	if tag == "" {
		return repo
	}
	return repo + ":" + tag
}

// target decides about the container that a request is for, under a policy that
// is for some containers alone.
func (s *scope) target(p *policy.Policy, o operation, r *request, route *compiled) error {
	ref := r.name
	switch kind := o.kind(); {
	case o.name == "container.create", o.name == "container.list":
		return nil // see guardedLife, guardedViews
	case o.name == "container.commit":
		ref = r.query.Get("container")
	case kind == "exec" && o.name != "exec.create":
		e, err := s.execs.ExecInspect(r.Context(), r.name)
		if err != nil {
			return err
		}
		ref = e.ContainerID
	case kind == "container", kind == "checkpoint", kind == "exec":
		if route.wild == 0 {
			return policy.Denial(p, o.name, "labels: it is about all containers")
		}
	case slices.Contains(aboutAll, o.name):
		return policy.Denial(p, o.name, "labels: it is about containers of others")
	default:
		return nil
	}
	id, labels, err := s.container(r.Context(), ref)
	if err != nil {
		return err
	}
	if err := p.Container(o.name, labels); err != nil {
		return err
	}
	switch {
	case o.name == "container.commit":
		r.query.Set("container", id)
	case o.kind() != "exec" || o.name == "exec.create":
		r.name = id
	}
	return nil
}

// aboutAll are operations of other kinds that reach every container.
var aboutAll = []string{"network.connect", "network.disconnect", "system.df", "system.mend", "volume.prune", "image.prune", "network.prune"}

// The guards stand before the engine and decide about the values that handlers
// made of requests.

type guardedLife struct {
	Lifecycle
	w world
}

// Create makes a container that the policy allows.
func (g guardedLife) Create(ctx context.Context, o container.CreateOptions) (wire.CreateResponse, error) {
	p := g.w.policy.Load()
	if o.Request.Config == nil || o.Request.HostConfig == nil {
		return wire.CreateResponse{}, errs.New(errs.Invalid, "config cannot be empty in order to create a container")
	}
	roots, err := p.CreateContainer(ctx, &o.Request, g.w)
	if err != nil {
		return wire.CreateResponse{}, err
	}
	if len(o.Extra.IDMaps) > 0 {
		return wire.CreateResponse{}, errs.New(errs.Denied, "idmap: this socket does not allow to change who owns files")
	}
	o.BindRoots = roots
	return g.Lifecycle.Create(ctx, o)
}

type guardedStates struct {
	States
	w world
}

// Update changes a container as far as the policy allows.
func (g guardedStates) Update(ctx context.Context, ref string, c wire.UpdateRequest) (wire.UpdateResponse, error) {
	if err := g.w.policy.Load().UpdateContainer(&c); err != nil {
		return wire.UpdateResponse{}, err
	}
	return g.States.Update(ctx, ref, c)
}

type guardedViews struct {
	Views
	w world
}

// List lists the containers that the policy is for.
func (g guardedViews) List(ctx context.Context, o container.ListOptions) ([]wire.ContainerSummary, error) {
	p := g.w.policy.Load()
	if len(p.Labels) == 0 {
		return g.Views.List(ctx, o)
	}
	limit := o.Limit
	if limit > 0 {
		o.Limit, o.All = 0, true
	}
	list, err := g.Views.List(ctx, o)
	list = slices.DeleteFunc(list, func(c wire.ContainerSummary) bool { return !p.Touches(c.Labels) })
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	return list, err
}

type guardedExecs struct {
	Execs
	w world
}

// ExecCreate makes a process that the policy allows.
func (g guardedExecs) ExecCreate(ctx context.Context, ref string, c wire.ExecCreate) (string, error) {
	if err := g.w.policy.Load().CreateExec(&c); err != nil {
		return "", err
	}
	return g.Execs.ExecCreate(ctx, ref, c)
}

type guardedNetworks struct {
	Networks
	w world
}

// Create makes a network that the policy allows.
func (g guardedNetworks) Create(ctx context.Context, c wire.NetworkCreate) (wire.NetworkCreated, error) {
	if err := g.w.policy.Load().CreateNetwork(&c); err != nil {
		return wire.NetworkCreated{}, err
	}
	return g.Networks.Create(ctx, c)
}

type guardedMembers struct {
	Members
	w world
}

// Connect puts a container on a network that the policy allows.
func (g guardedMembers) Connect(ctx context.Context, ref string, c wire.NetworkConnect) error {
	if err := g.w.policy.Load().Network("network.connect", ref); err != nil {
		return err
	}
	return g.Members.Connect(ctx, ref, c)
}

// Disconnect takes a container off a network that the policy allows.
func (g guardedMembers) Disconnect(ctx context.Context, ref string, d wire.NetworkDisconnect) error {
	if err := g.w.policy.Load().Network("network.disconnect", ref); err != nil {
		return err
	}
	return g.Members.Disconnect(ctx, ref, d)
}

type guardedVolumes struct {
	Volumes
	w world
}

// Create makes a volume that the policy allows.
func (g guardedVolumes) Create(ctx context.Context, c wire.VolumeCreate) (wire.Volume, error) {
	if err := g.w.policy.Load().Volume("volume.create", c.Name, c.Driver, c.DriverOpts); err != nil {
		return wire.Volume{}, err
	}
	return g.Volumes.Create(ctx, c)
}

// Remove removes a volume that the policy allows to be used.
func (g guardedVolumes) Remove(ctx context.Context, name string, o VolumeRemove) error {
	if err := g.w.policy.Load().Volume("volume.remove", name, "", nil); err != nil {
		return err
	}
	return g.Volumes.Remove(ctx, name, o)
}

var _ http.Handler = (*Scoped)(nil)
