package container

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// links is the part of the core that knows who is linked to whom: a link gives a
// container the addresses of another under names that it chose (--link).
type links struct{ *core }

// resolve looks up the containers that are to be linked. From then on they are
// known by their IDs.
func (c links) resolve(p *plan.Plan) (*plan.Plan, error) {
	if len(p.Links) == 0 {
		return p, nil
	}
	ids := make([]string, len(p.Links))
	for i, l := range p.Links {
		a, err := c.table.find(l.Container)
		if err != nil {
			return nil, errs.New(errs.Invalid, "could not get container for %s: %w", l.Container, err)
		}
		ids[i] = a.id
		for of := a.view().rec.Plan.Namespaces.Network; of.Mode == plan.Container || of.Mode == plan.Host; {
			if of.Mode == plan.Host {
				return nil, errs.New(errs.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
			}
			next, err := c.table.find(of.Container)
			if err != nil {
				break
			}
			of = next.view().rec.Plan.Namespaces.Network
		}
	}
	return p.WithLinked(ids), nil
}

// linked is what the links of a record give it now: records for its /etc/hosts,
// and variables if the daemon is to set them. It is an error if one of them does
// not run.
func (c links) linked(rec *Record, env bool) (hosts []launch.HostRecord, vars []string, err error) {
	for _, l := range rec.Plan.Links {
		a, err := c.table.find(l.Container)
		if err != nil {
			continue // it was removed, and its link with it
		}
		s := a.view()
		if !s.state.Phase.live() || s.sandbox == nil {
			return nil, nil, errs.New(errs.Unknown, "Cannot link to a non running container: /%s AS /%s/%s", s.rec.Name, rec.Name, l.Alias)
		}
		found, ok := linkRecords(l.Alias, s.rec, s.sandbox, rec.Plan)
		if !ok {
			return nil, nil, errs.New(errs.Unknown, "Cannot link to /%s, as it does not belong to the default network", s.rec.Name)
		}
		hosts = append(hosts, found...)
		if env {
			vars = append(vars, linkVars(rec.Name, l.Alias, s.rec, found[0].Addr)...)
		}
	}
	return hosts, vars, nil
}

// reaches are the exposed ports of those that a record's links lead to.
func (c links) reaches(rec *Record) map[string]wire.PortSet {
	var out map[string]wire.PortSet
	for _, l := range rec.Plan.Links {
		a, err := c.table.find(l.Container)
		if err != nil {
			continue
		}
		if out == nil {
			out = map[string]wire.PortSet{}
		}
		out[a.id] = a.view().rec.Plan.Exposed
	}
	return out
}

// linkRecords are the lines by which the container of plan p finds another: its
// addresses in the networks that both are in. It is pure.
func linkRecords(alias string, target *Record, at *launch.Sandbox, p *plan.Plan) ([]launch.HostRecord, bool) {
	names := []string{alias, target.Plan.Hostname(target.ID)}
	if target.Name != alias {
		names = append(names, target.Name)
	}
	var out []launch.HostRecord
	for _, e := range at.Endpoints {
		if _, common := p.Endpoints[e.NetworkName]; !common && p.Endpoints[e.NetworkID] == nil {
			continue
		}
		for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
			if a.IsValid() {
				out = append(out, launch.HostRecord{Addr: a.Addr(), Names: names})
			}
		}
	}
	return out, len(out) > 0
}

// linkVars are the variables of a link, as Docker has set them since its first
// versions. It is pure.
func linkVars(parent, alias string, target *Record, at netip.Addr) []string {
	name := strings.ToUpper(strings.ReplaceAll(alias, "-", "_"))
	out := []string{name + "_NAME=/" + parent + "/" + alias}
	ports := make([]wire.Port, 0, len(target.Plan.Exposed))
	for p := range target.Plan.Exposed {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b wire.Port) int {
		if d := int(a.Num()) - int(b.Num()); d != 0 {
			return d
		}
		return -strings.Compare(string(a.Proto()), string(b.Proto())) // tcp first, for then it is the main one
	})
	for i, p := range ports {
		num, proto := strconv.Itoa(int(p.Num())), string(p.Proto())
		full := proto + "://" + netip.AddrPortFrom(at, p.Num()).String()
		if i == 0 {
			out = append(out, name+"_PORT="+full)
		}
		key := name + "_PORT_" + num + "_" + strings.ToUpper(proto)
		out = append(out, key+"="+full, key+"_ADDR="+at.String(), key+"_PORT="+num, key+"_PROTO="+proto)
	}
	for _, kv := range target.Plan.Process.Env {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "HOME" && k != "PATH" {
			out = append(out, name+"_ENV_"+k+"="+v)
		}
	}
	return out
}

// follow brings the /etc/hosts of those that are linked to a container in line
// with the addresses that it has got with a new start.
func (c links) follow(target *Record, at *launch.Sandbox) {
	for _, a := range c.table.all() {
		s := a.view()
		if !s.state.Phase.live() || s.rec.ID == target.ID {
			continue
		}
		for _, l := range s.rec.Plan.Links {
			if l.Container != target.ID {
				continue
			}
			found, _ := linkRecords(l.Alias, target, at, s.rec.Plan)
			if err := c.rewrite(s.rec.ID, l.Alias, found); err != nil {
				c.log.Warn("a link's addresses can't be brought up to date", "id", s.rec.ID, "link", l.Alias, "error", err)
			}
		}
	}
}

// maxHosts bounds what a container can make us read of its hosts file.
const maxHosts = 1 << 20

// rewrite changes the lines of a link in a container's hosts file. The file keeps
// its inode, which is mounted in the container, and all that others have written.
func (c links) rewrite(id, alias string, now []launch.HostRecord) error {
	return c.editHosts(id, func(old []byte) []byte { return replaceLink(old, alias, now) })
}

// replaceLink puts now in the place of the lines whose first name is alias. It
// is pure.
func replaceLink(file []byte, alias string, now []launch.HostRecord) []byte {
	var out bytes.Buffer
	put := func() {
		for _, r := range now {
			out.WriteString(r.String() + "\n")
		}
		now = nil
	}
	for line := range bytes.Lines(file) {
		if f := strings.Fields(string(line)); len(f) >= 2 && f[1] == alias && !strings.HasPrefix(f[0], "#") {
			put()
			continue
		}
		out.Write(line)
	}
	if b := out.Bytes(); len(now) > 0 && len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n')
	}
	put()
	return out.Bytes()
}

// names are the names of a container with those that links give it: "/db",
// "/web/mydb".
func (c links) names(rec *Record, byTarget map[string][]string) []string {
	return append([]string{"/" + rec.Name}, byTarget[rec.ID]...)
}

// byTarget are the names that links give to containers, by their IDs.
func (c links) byTarget() map[string][]string {
	var out map[string][]string
	for _, a := range c.table.all() {
		rec := a.view().rec
		for _, l := range rec.Plan.Links {
			if out == nil {
				out = map[string][]string{}
			}
			out[l.Container] = append(out[l.Container], "/"+rec.Name+"/"+l.Alias)
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

// shown are a record's links as inspect shows them: "/db:/web/mydb".
func (c links) shown(rec *Record) []string {
	var out []string
	for _, l := range rec.Plan.Links {
		if a, err := c.table.find(l.Container); err == nil {
			out = append(out, "/"+a.view().rec.Name+":/"+rec.Name+"/"+l.Alias)
		}
	}
	return out
}

// removeLink removes the link that ref names, "web/mydb", and nothing else.
func (c *Control) removeLink(ctx context.Context, ref string) error {
	name := strings.Trim(ref, "/")
	parent, alias, ok := strings.Cut(name, "/")
	if !ok {
		return errs.New(errs.Unknown, "Conflict, cannot remove the default link name of the container")
	}
	a := c.table.named(parent)
	if a == nil {
		return errs.New(errs.Unknown, "Cannot get parent /%s for link name /%s", parent, name)
	}
	return a.as(ctx, func() error {
		rec := *a.now.rec
		rec.Plan = rec.Plan.WithoutLink(alias)
		// First, so that no way is open that is on no record.
		if err := (links{c.core}).closeWay(ctx, a, &rec); err != nil {
			return err
		}
		if err := c.putRecord(&rec); err != nil {
			return errors.Join(err, links{c.core}.closeWay(ctx, a, a.now.rec))
		}
		a.now.rec = &rec
		if a.now.state.Phase.live() {
			return links{c.core}.rewrite(a.id, alias, nil)
		}
		return nil
	})
}

// closeWay makes what a running container reaches by links what rec says.
func (c links) closeWay(ctx context.Context, a *actor, rec *Record) error {
	if !a.now.state.Phase.live() || a.running == nil || a.running.Sandbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	in := c.plainInput(rec)
	in.Reaches = c.reaches(rec)
	sandbox, err := c.o.Launcher.Publish(ctx, in)
	if err == nil && sandbox != nil {
		a.running.Sandbox = sandbox
		a.observe()
	}
	return err
}
