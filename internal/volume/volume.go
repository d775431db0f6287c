// Package volume owns named and anonymous volumes: their records and, through
// drivers in its children, their directories. The engine claims volumes for a
// container when it creates it and forgets them when it removes it; its launch
// package mounts and unmounts by container ID; the API creates, lists and
// removes. It must not know of containers beyond their ids.
//
// It writes two buckets of the database: "volumes" (by name) and
// "volume.claims" (names, by container ID). Who uses a volume is read from the
// claims; nothing is counted in memory. On the way of a start nothing is written
// unless the volume is used for the first time, or is a device to be mounted.
package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/id"
	"gantry/internal/keyed"
	"gantry/internal/store"
	"gantry/internal/volume/local"
	"gantry/internal/volume/plugin"
	"gantry/internal/wire"
)

// Anonymous is the label of volumes that nobody gave a name.
const Anonymous = "com.docker.volume.anonymous"

const localDriver = "local"

// Mounted is a volume ready to be bound into a container.
type Mounted struct {
	Name   string
	Driver string
	Path   string // directory on the host
	// File is that directory itself, opened with O_PATH, if what its path leads
	// to may change under the caller's hands. It is the one to use then, and the
	// caller's to close, before the volume is unmounted. Else it is nil.
	File   *os.File
	Device bool // the content is a mount of something else
	Fresh  bool // empty and never used: copy the image's content up
}

// Options configure the volumes of a daemon.
type Options struct {
	Store  *store.DB
	Dir    string     // <data root>/volumes
	Events *event.Bus // may be nil
	// Plugins reaches the drivers that are other programs; nil: there are none.
	Plugins plugin.Caller
}

// Volumes are the volumes of one daemon. It is safe for concurrent use.
type Volumes struct {
	db *store.DB
	drivers
	events *event.Bus

	working keyed.Mutex[string] // one change of a volume's directory at a time
	told    told
}

// record is what is decided about a volume.
type record struct {
	Name    string
	Driver  string
	Options map[string]string
	Labels  map[string]string
	Created time.Time
	// Used says that a container has had it, so that it is not filled again
	// from an image.
	Used bool `json:",omitempty"`
	// Mounted are the containers that a device is mounted for, or that a
	// plugin has been told of.
	Mounted []string `json:",omitempty"`

	// Of a plugin's volume: where it was mounted last, its scope, whether the
	// plugin may not know of it yet, and the containers that the plugin has
	// yet to be told the end of.
	At     string   `json:",omitempty"`
	Scope  string   `json:",omitempty"`
	Making bool     `json:",omitempty"`
	Owed   []string `json:",omitempty"`
	// Leaving says that its plugin is being told to remove it.
	Leaving bool `json:",omitempty"`
}

var (
	volumes = store.NewBucket[record]("volumes")
	claims  = store.NewBucket[[]string]("volume.claims")
	// removing has the volumes that are struck off and may still have a
	// directory.
	removing = store.NewBucket[time.Time]("volume.removing")
)

// Open returns the volumes recorded in the store, and finishes removals that
// were interrupted.
func Open(o Options) (*Volumes, error) {
	l, err := local.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	v := &Volumes{db: o.Store, drivers: drivers{l, o.Plugins}, events: o.Events}
	var left, leaving []string
	err = v.db.View(func(tx *store.Tx) error {
		left = removing.Keys(tx)
		for name, r := range volumes.All(tx) {
			if r.Leaving {
				leaving = append(leaving, name)
			}
		}
		return nil
	})
	for _, name := range leaving { // whether it is gone, the plugin knows: it can be removed again
		_, lerr := v.change(name, func(r *record) bool { r.Leaving = false; return true })
		err = errors.Join(err, lerr)
	}
	for _, name := range left {
		err = errors.Join(err, bury(v.db, v.local, name))
	}
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	return v, nil
}

// bury removes the directory of a volume that has been struck off.
func bury(db *store.DB, l *local.Driver, name string) error {
	if err := l.Remove(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return db.Update(func(tx *store.Tx) error { return removing.Delete(tx, name) })
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// checkName returns why a volume can't be called so, in Docker's words. Pure.
func checkName(name string) error {
	if len(name) < 2 {
		return errs.New(errs.Invalid, "create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	}
	if !validName.MatchString(name) {
		return errs.New(errs.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
	}
	return nil
}

func notFound(name string) error { return errs.New(errs.NotFound, "get %s: no such volume", name) }

// Create makes a volume, or returns the one that has this name already, as it
// is. Without a name it gets a random one and the label Anonymous. Errors:
// errs.Invalid for a bad name or bad options, errs.NotFound for an unknown
// driver, all with Docker's texts.
func (v *Volumes) Create(ctx context.Context, c wire.VolumeCreate) (wire.Volume, error) {
	r, err := v.create(ctx, c)
	if err != nil {
		return wire.Volume{}, err
	}
	if c.Driver != "" && c.Driver != r.Driver {
		return wire.Volume{}, errs.New(errs.Conflict, "create %s: driver '%s' already has volume '%s': volume name must be unique", c.Name, r.Driver, c.Name)
	}
	return v.wire(r), nil
}

func (v *Volumes) create(ctx context.Context, c wire.VolumeCreate) (record, error) {
	labels := maps.Clone(c.Labels)
	if c.Name == "" {
		c.Name = id.New()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[Anonymous] = ""
	}
	if c.Driver == "" {
		c.Driver = localDriver
	}
	if err := v.exists(ctx, c.Name, c.Driver); err != nil {
		return record{}, err
	}
	if c.Driver == localDriver {
		if err := checkName(c.Name); err != nil {
			// A plugin's volume may be called so, and is asked for without its driver.
			if r, gerr := v.get(c.Name); gerr == nil {
				return r, nil
			}
			return record{}, err
		}
	}
	unlock, err := v.working.Lock(ctx, c.Name)
	if err != nil {
		return record{}, err
	}
	defer unlock()
	if r, err := v.get(c.Name); !errs.Is(err, errs.NotFound) {
		return r, err
	}
	r := record{Name: c.Name, Driver: c.Driver, Labels: labels, Created: time.Now()}
	if len(c.DriverOpts) > 0 {
		r.Options = maps.Clone(c.DriverOpts)
	}
	if err := v.check(r); err != nil {
		return record{}, fmt.Errorf("create %s: %w", c.Name, err)
	}
	if r, err = v.make(ctx, r); err != nil {
		return record{}, fmt.Errorf("create %s: %w", c.Name, err)
	}
	v.tell(wire.Event{Action: "create"}, r, nil)
	return r, nil
}

// make writes the record and then has the driver make the content: a directory
// without a record would belong to nobody, and a mount makes what a record lacks.
func (v *Volumes) make(ctx context.Context, r record) (record, error) {
	if !r.local() {
		r.Making, r.Scope = true, v.of(r).Scope(ctx)
	}
	put := func() error {
		return v.db.Update(func(tx *store.Tx) error { return volumes.Put(tx, r.Name, r) })
	}
	if err := put(); err != nil {
		return r, err
	}
	if err := v.drivers.create(ctx, r); err != nil {
		undo := v.db.Update(func(tx *store.Tx) error { return volumes.Delete(tx, r.Name) })
		return r, errors.Join(err, undo)
	}
	if !r.Making {
		return r, nil
	}
	r.Making = false
	return r, put()
}

func (v *Volumes) get(name string) (r record, err error) {
	err = v.db.View(func(tx *store.Tx) error {
		r, err = volumes.Get(tx, name)
		return err
	})
	if errs.Is(err, errs.NotFound) {
		return r, notFound(name)
	}
	return r, err
}

// change rewrites the record of a volume. fn may be run on a record that does
// not change: then nothing is written.
func (v *Volumes) change(name string, fn func(*record) (changed bool)) (r record, err error) {
	if r, err = v.get(name); err != nil {
		return r, err
	}
	if !fn(&r) {
		return r, nil
	}
	err = v.db.Update(func(tx *store.Tx) error {
		if r, err = volumes.Get(tx, name); err != nil {
			return notFound(name)
		}
		if !fn(&r) {
			return nil
		}
		return volumes.Put(tx, name, r)
	})
	return r, err
}

// wire returns a volume as clients see it.
func (d *drivers) wire(r record) wire.Volume {
	w := wire.Volume{Driver: r.Driver, Labels: r.Labels, Mountpoint: d.path(r), Name: r.Name, Options: r.Options, Scope: "local"}
	if !r.Created.IsZero() {
		w.CreatedAt = r.Created.Format(time.RFC3339)
	}
	if r.Scope != "" {
		w.Scope = r.Scope
	}
	return w
}

// Inspect returns the volume called name, or errs.NotFound.
func (v *Volumes) Inspect(ctx context.Context, name string) (wire.Volume, error) {
	r, err := v.get(name)
	if errs.Is(err, errs.NotFound) {
		found := false
		if r, found = v.find(ctx, name); found {
			err = nil
		}
	}
	if err != nil {
		return wire.Volume{}, err
	}
	w := v.wire(r)
	return w, v.details(ctx, r, &w)
}

// Path returns the directory of the volume called name, "" if there is none.
func (v *Volumes) Path(_ context.Context, name string) string {
	r, err := v.get(name)
	if err != nil {
		return ""
	}
	return v.path(r)
}

// tell puts an event about a volume on the bus.
func (v *Volumes) tell(e wire.Event, r record, attributes map[string]string) {
	if v.events == nil {
		return
	}
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["driver"] = r.Driver
	e.Type, e.Actor = "volume", wire.EventActor{ID: r.Name, Attributes: attributes}
	v.events.Publish(e)
}

// users returns, for each volume that is claimed, the containers that claim it,
// in order.
func users(tx *store.Tx) map[string][]string {
	m := map[string][]string{}
	for container, names := range claims.All(tx) {
		for _, n := range names {
			m[n] = append(m[n], container)
		}
	}
	return m
}

// RemoveOptions say how to remove a volume.
type RemoveOptions struct {
	Force bool // what is not there is removed already
}

// Remove removes a volume and its content. One that a container has claimed is
// errs.Conflict with the list of those, also by force; a missing one is
// errs.NotFound unless forced.
func (v *Volumes) Remove(ctx context.Context, name string, o RemoveOptions) error {
	err := v.remove(ctx, name, o)
	if o.Force && errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

func (v *Volumes) remove(ctx context.Context, name string, o RemoveOptions) error {
	unlock, err := v.working.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	var r record
	// Checked and struck off in one transaction: a claim comes before or after.
	err = v.db.Update(func(tx *store.Tx) error {
		if r, err = volumes.Get(tx, name); err != nil {
			if errs.Is(err, errs.NotFound) {
				return notFound(name)
			}
			return err
		}
		if by := users(tx)[name]; len(by) > 0 {
			return errs.New(errs.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(by, ", "))
		}
		if !r.local() {
			r.Leaving = true // nobody can claim it until the plugin has answered
			return volumes.Put(tx, name, r)
		}
		return errors.Join(volumes.Delete(tx, name), removing.Put(tx, name, time.Now()))
	})
	if err != nil {
		return err
	}
	if r.local() {
		err = bury(v.db, v.local, name)
	} else {
		err = v.removeForeign(ctx, r, o)
	}
	if err != nil {
		return err
	}
	v.tell(wire.Event{Action: "destroy"}, r, nil)
	return nil
}

// removeForeign has a plugin remove its volume. By force the record goes
// whatever the plugin says.
func (v *Volumes) removeForeign(ctx context.Context, r record, o RemoveOptions) error {
	var err error
	for _, c := range r.Owed {
		err = errors.Join(err, v.of(r).Unmount(ctx, r.Name, c))
	}
	if err == nil {
		err = v.of(r).Remove(ctx, r.Name)
	}
	if err != nil && !o.Force {
		_, undo := v.change(r.Name, func(r *record) bool { r.Leaving = false; return true })
		return errors.Join(fmt.Errorf("remove %s: %w", r.Name, err), undo)
	}
	return v.db.Update(func(tx *store.Tx) error { return volumes.Delete(tx, r.Name) })
}

// without returns all but one.
func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}
