package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/plan"
	"gantry/internal/store"
	"gantry/internal/volume"
	"gantry/internal/wire"
)

// Create makes a container. What it needs of images and volumes is claimed
// under its ID first and the record comes last: a crash in between leaves only
// what no record owns, and Open removes that.
func (c *Control) Create(ctx context.Context, o CreateOptions) (wire.CreateResponse, error) {
	var none wire.CreateResponse
	img, base, err := c.imageFor(ctx, o)
	if err != nil {
		return none, err
	}
	p, warnings, err := plan.New(o.Request, img, c.o.Defaults())
	if err != nil {
		return none, err
	}
	p = p.WithBindRoots(o.BindRoots)
	name, err := c.nameFor(o.Name)
	if err != nil {
		return none, err
	}
	if p, err = p.WithExtra(o.Extra); err != nil {
		return none, err
	}
	more, err := order{c.core}.checkAfter(name, p.After)
	if err != nil {
		return none, err
	}
	warnings = append(warnings, more...)
	if p, err = c.named(p); err != nil {
		return none, err
	}
	if err := checkSources(p); err != nil {
		return none, err
	}
	rec := &Record{Version: recordVersion, ID: id.New(), Name: name, CreatedAt: time.Now().UTC(), Plan: p, Image: base}
	if rec.Images, err = c.mounted(ctx, p, o.Platform); err != nil {
		return none, err
	}
	if err := c.o.Launcher.Check(c.plainInput(rec)); err != nil {
		return none, err
	}
	if err := c.claimAll(ctx, rec); err != nil {
		return none, errors.Join(err, c.dropClaims(context.WithoutCancel(ctx), rec.ID))
	}
	a := newActor(c.core, rec, State{})
	c.claim.Lock()
	err = c.insert(rec)
	if err == nil {
		a.now.rec = rec
		a.publish()
		c.table.add(a, rec.Name)
	}
	c.claim.Unlock()
	if err != nil {
		return none, errors.Join(err, c.dropClaims(context.WithoutCancel(ctx), rec.ID))
	}
	if err := a.as(ctx, func() error { a.announce("create"); return nil }); err != nil {
		return none, err
	}
	return wire.CreateResponse{ID: rec.ID, Warnings: warnings}, nil
}

// imageFor resolves the image that a request names, if it names one.
func (c *Control) imageFor(ctx context.Context, o CreateOptions) (*plan.Image, Image, error) {
	if o.Request.Config == nil || o.Request.Config.Image == "" {
		return nil, Image{Platform: "linux"}, nil
	}
	return c.o.Images.Resolve(ctx, o.Request.Config.Image, o.Platform)
}

// nameFor checks the name that the user chose. An empty one is chosen in insert.
func (c *Control) nameFor(asked string) (string, error) {
	name := strings.TrimPrefix(asked, "/")
	if asked == "" {
		return "", nil
	}
	if !validName(name) {
		return "", badName(asked)
	}
	if a := c.table.named(name); a != nil {
		return "", nameTaken(name, a.id)
	}
	return name, nil
}

// named looks up the other containers that the user named for a container. From
// then on they are known by their IDs.
func (c *Control) named(p *plan.Plan) (*plan.Plan, error) {
	p, err := c.inherit(p)
	if err != nil {
		return nil, err
	}
	if p, err = (links{c.core}).resolve(p); err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, n := range []struct {
		of   plan.Namespace
		must bool
	}{{p.Namespaces.Network, false}, {p.Namespaces.PID, true}, {p.Namespaces.IPC, true}} {
		if n.of.Mode != plan.Container {
			continue
		}
		a, err := c.table.find(n.of.Container)
		switch {
		case err == nil:
			ids[n.of.Container] = a.id
		case n.must:
			return nil, errs.With(errs.Invalid, err)
		}
	}
	return p.WithJoined(ids), nil
}

// mounted finds the images that a plan mounts, by target.
func (c *Control) mounted(ctx context.Context, p *plan.Plan, platform string) (map[string]Mounted, error) {
	var out map[string]Mounted
	for _, m := range p.Mounts {
		if m.Type != "image" {
			continue
		}
		_, img, err := c.o.Images.Resolve(ctx, m.Source, platform)
		if errs.Is(err, errs.NotFound) {
			// Not a missing image of the container, which clients then pull.
			return nil, errs.With(errs.Invalid, fmt.Errorf("mount %s: %w", m.Target, err))
		}
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]Mounted{}
		}
		out[m.Target] = Mounted{ID: img.ID, Lower: img.Lower}
	}
	return out, nil
}

// inherit adds the mounts of the containers that the user named for it.
func (c *Control) inherit(p *plan.Plan) (*plan.Plan, error) {
	for _, from := range p.VolumesFrom {
		a, err := c.table.find(from.Container)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		p = p.Inherit(from, a.view().rec.Plan.Mounts)
	}
	return p, nil
}

// checkSources finds bind mounts whose source is missing and shall not be made.
func checkSources(p *plan.Plan) error {
	for _, m := range p.Mounts {
		if m.Type != "bind" || m.CreateSource {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			return plan.SourceMissing(m.Source)
		}
	}
	return nil
}

// claimAll claims the image and the volumes of a container to be, and names
// its anonymous volumes.
func (c *Control) claimAll(ctx context.Context, rec *Record) error {
	var images []string
	if rec.Image.ID != "" {
		images = append(images, rec.Image.ID)
	}
	for _, i := range rec.Images {
		images = append(images, i.ID)
	}
	if len(images) > 0 {
		if err := c.o.Images.Pin(ctx, rec.ID, images...); err != nil {
			return err
		}
	}
	named := map[string]string{}
	for _, m := range rec.Plan.Mounts {
		if m.Type != "volume" {
			continue
		}
		v := volume.Claim{Name: m.Name, Driver: m.Driver, Options: m.DriverOptions, Labels: m.VolumeLabels, Anonymous: m.Anonymous}
		name, err := c.o.Volumes.Claim(ctx, rec.ID, v)
		if errs.Is(err, errs.NotFound) {
			return errs.With(errs.Invalid, err) // as in mounted
		}
		if err != nil {
			return err
		}
		if m.Anonymous && m.Name == "" {
			named[m.Target] = name
		}
	}
	if len(named) > 0 {
		rec.Plan = rec.Plan.WithVolumeNames(named)
	}
	return nil
}

// dropClaims undoes claimAll, in any state of it.
func (c *core) dropClaims(ctx context.Context, containerID string) error {
	anonymous, err := c.o.Volumes.Forget(ctx, containerID)
	for _, name := range anonymous {
		err = errors.Join(err, c.o.Volumes.Remove(ctx, name, volume.RemoveOptions{}))
	}
	return errors.Join(err, c.o.Images.Unpin(ctx, containerID))
}

// attempts is how many random names are tried before giving up.
const attempts = 32

// insert stores a new record under its name, or under a random one that is
// free. It changes rec.Name.
func (c *core) insert(rec *Record) error {
	if rec.Name != "" {
		return c.takeName(rec, "")
	}
	return c.o.Store.Update(func(tx *store.Tx) error {
		for i := range attempts {
			name := randomName()
			if i >= attempts/2 {
				name = fmt.Sprintf("%s_%s", name, rec.ID[:4])
			}
			if names.Has(tx, name) {
				continue
			}
			rec.Name = name
			if err := names.Put(tx, name, rec.ID); err != nil {
				return err
			}
			return records.Put(tx, rec.ID, *rec)
		}
		return errs.New(errs.Unavailable, "no free random name was found in %d attempts", attempts)
	})
}
