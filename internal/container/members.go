package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// Connect puts a container on a network: at once if it runs, else from its next
// start on.
//
// What runs is connected first and then written down; a disconnection goes the
// other way. So after a crash an endpoint that the record does not have is one
// that nobody was told of, or that shall be no more, and goes.
func (c *Members) Connect(ctx context.Context, ref string, r wire.NetworkConnect) error {
	a, err := c.member(r.Container)
	if err != nil {
		return err
	}
	s := r.EndpointConfig.Copy()
	if s == nil {
		s = &wire.EndpointSettings{}
	}
	return c.change(ctx, a, func(ctx context.Context) error {
		n, err := c.o.Networks.Network(ref)
		if errs.Is(err, errs.NotFound) {
			return errs.New(errs.Unknown, "invalid cluster node while attaching to network") // as recorded
		}
		if err != nil {
			return err
		}
		if err := plan.CheckEndpoint(n.Name, s); err != nil {
			return err
		}
		if !a.now.state.Phase.live() || a.running == nil {
			return c.note(a, n, s)
		}
		return c.join(ctx, a, n, s)
	})
}

// note writes down that a container which is down is on a network from its next
// start on.
func (c *Members) note(a *actor, n wire.Network, s *wire.EndpointSettings) error {
	p := a.now.rec.Plan
	if _, there := p.Endpoints[n.Name]; there || p.Endpoints[n.ID] != nil {
		return nil
	}
	if err := joinable(p, n); err != nil {
		return err
	}
	return c.put(a, p.WithEndpoint(n.Name, s))
}

// joinable returns why a container that is down can't be put on a network. Pure.
func joinable(p *plan.Plan, n wire.Network) error {
	_, none := p.Endpoints["none"]
	switch mode := p.Namespaces.Network.Mode; {
	case mode == plan.Container, mode == plan.Host && n.Name != "host":
		return errs.New(errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case n.Name == "host":
		return errs.New(errs.Invalid, "cannot connect container to host network - container must be created in host network mode")
	case len(p.Endpoints) > 0 && (none || n.Name == "none"):
		return errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

func (c *Members) join(ctx context.Context, a *actor, n wire.Network, s *wire.EndpointSettings) error {
	before := a.now.sandbox
	now, err := c.o.Networks.Connect(ctx, launch.AttachmentOf(c.plainInput(a.now.rec)), n.Name, s)
	if err != nil {
		return err
	}
	p := a.now.rec.Plan
	if before != nil {
		for _, e := range before.Endpoints { // a start without any had the default one
			if _, there := p.Endpoints[e.NetworkName]; !there && p.Endpoints[e.NetworkID] == nil {
				p = p.WithEndpoint(e.NetworkName, &wire.EndpointSettings{})
			}
		}
	}
	if err := c.put(a, p.WithEndpoint(n.Name, s)); err != nil {
		_, back := c.o.Networks.Disconnect(context.WithoutCancel(ctx), launch.AttachmentOf(c.plainInput(a.now.rec)), n.ID)
		return errors.Join(err, back)
	}
	c.show(a, now)
	return nil
}

// Disconnect takes a container off a network: at once if it runs, else before
// its next start.
func (c *Members) Disconnect(ctx context.Context, ref string, r wire.NetworkDisconnect) error {
	a, err := c.member(r.Container)
	if errs.Is(err, errs.NotFound) && r.Force {
		return c.o.Networks.Stale(ctx, ref, r.Container)
	}
	if err != nil {
		return err
	}
	return c.change(ctx, a, func(ctx context.Context) error {
		n, err := c.o.Networks.Network(ref)
		live := a.now.state.Phase.live() && a.running != nil
		if err != nil && (live || !errs.Is(err, errs.NotFound)) {
			return err
		}
		if err != nil {
			n.Name = ref // one that has been removed: the record may still have it
		}
		p := a.now.rec.Plan
		there := len(p.Endpoints) - len(p.WithoutEndpoint(n.Name, n.ID).Endpoints)
		if !live {
			return c.forget(a, n, there, err)
		}
		if p.Namespaces.Network.Mode == plan.Host && n.Name == "host" {
			return errs.New(errs.Invalid, "cannot disconnect container from host network - container was created in host network mode")
		}
		if there == 0 && !has(a.now.sandbox, n.ID) {
			return fmt.Errorf("container %s is not connected to network %s", a.id, n.Name) // 500, as recorded
		}
		return c.part(ctx, a, n)
	})
}

// forget takes a container that is down off a network, which its record has
// there times; missing is why that network was not found.
func (c *Members) forget(a *actor, n wire.Network, there int, missing error) error {
	if there == 0 && missing != nil {
		return missing
	}
	if there == 0 {
		return fmt.Errorf("container %s is not connected to the network %s", a.id, n.Name) // 500, as Docker
	}
	if err := c.put(a, a.now.rec.Plan.WithoutEndpoint(n.Name, n.ID)); err != nil {
		return err
	}
	if n.ID != "" {
		c.o.Events.Publish(wire.Event{Type: "network", Action: "disconnect", Actor: wire.EventActor{
			ID: n.ID, Attributes: map[string]string{"name": n.Name, "type": n.Driver, "container": a.id},
		}})
	}
	return nil
}

// part takes a container that runs off a network.
func (c *Members) part(ctx context.Context, a *actor, n wire.Network) error {
	was := a.now.rec.Plan
	if err := c.put(a, was.WithoutEndpoint(n.Name, n.ID)); err != nil {
		return err
	}
	now, err := c.o.Networks.Disconnect(ctx, launch.AttachmentOf(c.plainInput(a.now.rec)), n.ID)
	if err != nil {
		return errors.Join(err, c.put(a, was))
	}
	c.show(a, now)
	return nil
}

// member finds a container by what a request names it.
func (c *Members) member(ref string) (*actor, error) {
	if ref == "" {
		return nil, errs.New(errs.Invalid, `invalid name or ID supplied: ""`)
	}
	return c.table.find(ref)
}

// change runs fn as the actor of a container that is neither starting nor
// ending, with nobody else changing it.
func (c *Members) change(ctx context.Context, a *actor, fn func(context.Context) error) error {
	return editing(ctx, a, func() error {
		for {
			busy := false
			err := a.as(ctx, func() error {
				switch a.now.state.Phase {
				case Removing, Removed, Dead:
					return errs.New(errs.Conflict, "container %s is marked for removal and cannot be connected or disconnected to the network", a.id)
				case Starting, Ending:
					busy = true
					return nil
				}
				// What has begun comes to an end whether or not the client waits.
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeWait)
				defer cancel()
				return fn(ctx)
			})
			if !busy || err != nil {
				return err
			}
			if !sleep(ctx, phasePause) {
				return context.Cause(ctx)
			}
		}
	})
}

// put stores a plan. It is called as the actor.
func (c *Members) put(a *actor, p *plan.Plan) error {
	rec := *a.now.rec
	rec.Plan = p
	if err := c.putRecord(&rec); err != nil {
		return err
	}
	a.now.rec = &rec
	return nil
}

// show takes over how a sandbox is now: what inspect shows, and the lines of its
// own addresses in the container's hosts file.
func (c *Members) show(a *actor, now *launch.Sandbox) {
	if now == nil || a.running == nil {
		return
	}
	was := a.now.sandbox
	gone, come := addresses(was), addresses(now)
	r := *a.running
	r.Sandbox = now
	a.running = &r
	a.observe()
	p := a.now.rec.Plan
	var lines []launch.HostRecord
	for _, x := range come {
		if !slices.Contains(gone, x) {
			lines = append(lines, launch.HostRecord{Addr: x, Names: launch.HostNames(p.Hostname(a.id), p.Domainname)})
		}
	}
	gone = slices.DeleteFunc(gone, func(x netip.Addr) bool { return slices.Contains(come, x) })
	err := c.editHosts(a.id, func(old []byte) []byte { return replaceAddresses(old, gone, lines) })
	if err != nil {
		c.log.Warn("a container's hosts file can't be brought up to date", "id", a.id, "error", err)
	}
	if err := c.o.Launcher.Resolv(c.plainInput(a.now.rec), was, now); err != nil {
		c.log.Warn("a container's resolv.conf can't be brought up to date", "id", a.id, "error", err)
	}
	links{c.core}.follow(a.now.rec, now)
}

// addresses are those of a sandbox. Pure.
func addresses(s *launch.Sandbox) []netip.Addr {
	var out []netip.Addr
	if s == nil {
		return nil
	}
	for _, e := range s.Endpoints {
		for _, x := range []netip.Prefix{e.IPv4, e.IPv6} {
			if x.IsValid() {
				out = append(out, x.Addr())
			}
		}
	}
	return out
}

func has(s *launch.Sandbox, networkID string) bool {
	return s != nil && slices.ContainsFunc(s.Endpoints, func(e launch.Endpoint) bool { return e.NetworkID == networkID })
}

// replaceAddresses takes the lines of some addresses out of a hosts file and
// adds others. Pure.
func replaceAddresses(file []byte, gone []netip.Addr, come []launch.HostRecord) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(file) {
		if f := strings.Fields(string(line)); len(f) >= 2 {
			if x, err := netip.ParseAddr(f[0]); err == nil && slices.Contains(gone, x) {
				continue
			}
		}
		out.Write(line)
	}
	if b := out.Bytes(); len(come) > 0 && len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n')
	}
	for _, r := range come {
		out.WriteString(r.String() + "\n")
	}
	return out.Bytes()
}

// editHosts changes a container's hosts file. The file keeps its inode, which is
// mounted in the container, and all that others have written.
func (c *core) editHosts(id string, change func([]byte) []byte) error {
	c.hosts.Lock()
	defer c.hosts.Unlock()
	f, err := os.OpenFile(filepath.Join(c.dir(id), "hosts"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has another's
	}
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err != nil {
		return err
	}
	if len(old) > maxHosts {
		return errs.New(errs.Invalid, "/etc/hosts is larger than %d bytes", maxHosts)
	}
	text := change(old)
	if bytes.Equal(text, old) {
		return nil
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// resumeMembers takes a container that was found running off the networks that
// its record does not have: an earlier daemon was killed while it connected or
// disconnected it.
func (c recovery) resumeMembers(ctx context.Context, a *actor) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m := &Members{c.core}
	err := a.as(ctx, func() error {
		p, s := a.now.rec.Plan, a.now.sandbox
		if s == nil || len(p.Endpoints) == 0 || p.Namespaces.Network.Mode == plan.Container {
			return nil
		}
		var all []error
		for _, e := range s.Endpoints {
			if _, there := p.Endpoints[e.NetworkName]; there || p.Endpoints[e.NetworkID] != nil || known(p, c.o.Networks, e.NetworkID) {
				continue
			}
			now, err := c.o.Networks.Disconnect(ctx, launch.AttachmentOf(c.plainInput(a.now.rec)), e.NetworkID)
			if err == nil {
				m.show(a, now)
			}
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	if err != nil {
		c.log.Warn("a container stays on a network that it was taken off", "id", a.id, "error", err)
	}
}

// known reports whether a plan has a network under whatever the user named it by.
func known(p *plan.Plan, nets Networks, networkID string) bool {
	for ref := range p.Endpoints {
		if n, err := nets.Network(ref); err == nil && n.ID == networkID {
			return true
		}
	}
	return false
}
