package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/store"
	"gantry/internal/volume/local"
	"gantry/internal/volume/plugin"
	"gantry/internal/wire"
)

// Claim is a volume that a container wants.
type Claim struct {
	Name            string // empty for a new anonymous one
	Driver          string
	Options, Labels map[string]string
	// Anonymous marks one whose name the engine has chosen.
	Anonymous bool
}

// Claim finds or makes a volume and notes durably that the container uses it:
// until Forget it can't be removed. It returns the name.
func (v *Volumes) Claim(ctx context.Context, container string, c Claim) (string, error) {
	labels := c.Labels
	if c.Anonymous {
		labels = map[string]string{Anonymous: ""}
		for k, l := range c.Labels {
			labels[k] = l
		}
	}
	for range 3 { // it may be removed between being found and being claimed
		r, err := v.create(ctx, wire.VolumeCreate{Name: c.Name, Driver: c.Driver, DriverOpts: c.Options, Labels: labels})
		if err != nil {
			return "", err
		}
		v.told.unmount(container, r.Name) // it is not mounted yet: no news
		if err = claim(v.db, container, r.Name); !errs.Is(err, errs.NotFound) {
			return r.Name, err
		}
	}
	return "", errs.New(errs.Unavailable, "volume %s: removed while it was being claimed", c.Name)
}

func claim(db *store.DB, container, name string) error {
	return db.Update(func(tx *store.Tx) error {
		if r, err := volumes.Get(tx, name); err != nil || r.Leaving {
			return notFound(name)
		}
		has, err := claimed(tx, container)
		if err != nil || slices.Contains(has, name) {
			return err
		}
		return claims.Put(tx, container, append(has, name))
	})
}

func claimed(tx *store.Tx, container string) ([]string, error) {
	has, err := claims.Get(tx, container)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	return has, err
}

// Forget ends every use by a container, mounts included, and returns the names
// of its anonymous volumes that nobody uses any more. It may be called twice.
func (v *Volumes) Forget(ctx context.Context, container string) (anonymous []string, err error) {
	if err := v.Unmount(ctx, container); err != nil {
		return nil, err
	}
	v.told.forget(container)
	var uses bool
	err = v.db.View(func(tx *store.Tx) error {
		uses = claims.Has(tx, container)
		return nil
	})
	if err != nil || !uses { // most have none, and a commit costs two flushes of the disk
		return nil, err
	}
	err = v.db.Update(func(tx *store.Tx) error {
		anonymous = nil
		had, err := claimed(tx, container)
		if err != nil || had == nil {
			return err
		}
		if err := claims.Delete(tx, container); err != nil {
			return err
		}
		others := users(tx)
		for _, name := range had {
			r, err := volumes.Get(tx, name)
			if err != nil {
				continue
			}
			if _, ok := r.Labels[Anonymous]; ok && len(others[name]) == 0 {
				anonymous = append(anonymous, name)
			}
		}
		return nil
	})
	return anonymous, err
}

// Unclaim ends the use of one volume by a container, its mount included. One
// that the container does not use is no error.
func (v *Volumes) Unclaim(ctx context.Context, container, name string) error {
	if err := v.unmount(ctx, container, name); err != nil {
		return err
	}
	return v.db.Update(func(tx *store.Tx) error {
		has, err := claimed(tx, container)
		if err != nil || !slices.Contains(has, name) {
			return err
		}
		if has = without(has, name); len(has) == 0 {
			return claims.Delete(tx, container)
		}
		return claims.Put(tx, container, has)
	})
}

// Claimants returns the containers that use volumes, in order.
func (v *Volumes) Claimants(context.Context) (containers []string, err error) {
	err = v.db.View(func(tx *store.Tx) error {
		containers = claims.Keys(tx)
		return nil
	})
	return containers, err
}

// MountRequest is a volume that goes into a container.
type MountRequest struct {
	Container   string
	Name        string
	Destination string // path in the container
	ReadOnly    bool
	Propagation string
}

// Mount makes the volume's directory ready and says where it is. A volume of a
// device is mounted on the host for as long as a container has it.
func (v *Volumes) Mount(ctx context.Context, container, name string) (Mounted, error) {
	return v.MountAs(ctx, MountRequest{Container: container, Name: name})
}

// MountAs is Mount that tells listeners to events also where the volume goes.
func (v *Volumes) MountAs(ctx context.Context, r MountRequest) (Mounted, error) {
	unlock, err := v.working.Lock(ctx, r.Name)
	if err != nil {
		return Mounted{}, err
	}
	defer unlock()
	rec, at, err := v.mount(ctx, r)
	if err != nil {
		return Mounted{}, err
	}
	m := Mounted{Name: rec.Name, Driver: rec.Driver, Path: at.Path, File: at.File, Device: !rec.local() || rec.Options["device"] != ""}
	if !rec.Used {
		if m.Fresh, err = local.Empty(m.dir()); err != nil {
			return Mounted{}, errors.Join(fmt.Errorf("mount %s: %w", r.Name, err), at.Close())
		}
	}
	v.told.mount(r.Container, r.Name)
	v.tell(wire.Event{Action: "mount"}, rec, map[string]string{
		"container": r.Container, "destination": r.Destination, "propagation": r.Propagation, "read/write": strconv.FormatBool(!r.ReadOnly),
	})
	return m, nil
}

func (v *Volumes) mount(ctx context.Context, r MountRequest) (rec record, at plugin.Place, err error) {
	if rec, err = v.get(r.Name); err != nil {
		return rec, at, err
	}
	var has []string
	err = v.db.View(func(tx *store.Tx) error {
		has, err = claimed(tx, r.Container)
		return err
	})
	if err != nil {
		return rec, at, err
	}
	if !slices.Contains(has, r.Name) {
		if err := claim(v.db, r.Container, r.Name); err != nil {
			return rec, at, err
		}
	}
	if !rec.mounts() {
		return rec, plugin.Place{Path: v.path(rec)}, v.drivers.create(ctx, rec)
	}
	// Written first: after a crash Unmount still knows of it.
	rec, err = v.change(r.Name, func(rec *record) bool {
		if slices.Contains(rec.Mounted, r.Container) {
			return false
		}
		rec.Mounted = append(rec.Mounted, r.Container)
		return true
	})
	if err != nil {
		return rec, at, err
	}
	at, err = v.drivers.mount(ctx, rec, r.Container)
	if err != nil {
		_, undo := v.change(r.Name, func(rec *record) bool {
			rec.Mounted = without(rec.Mounted, r.Container)
			return true
		})
		return rec, at, errors.Join(fmt.Errorf("error while mounting volume '%s': %w", cmp.Or(v.path(rec), rec.Name), err), undo)
	}
	if rec.local() {
		return rec, at, nil
	}
	rec, err = v.change(r.Name, func(rec *record) bool {
		if rec.At == at.Path && !rec.Making && len(rec.Owed) == 0 {
			return false
		}
		rec.At, rec.Making, rec.Owed = at.Path, false, nil
		return true
	})
	if err != nil {
		return rec, plugin.Place{}, errors.Join(err, at.Close())
	}
	return rec, at, nil
}

// dir is a path of the volume's directory for this process, while File is open.
func (m Mounted) dir() string {
	if m.File == nil {
		return m.Path
	}
	return "/proc/self/fd/" + strconv.Itoa(int(m.File.Fd()))
}

// Unmount ends the mounts of a container; its claims stay. It may be called for
// a container that has none.
func (v *Volumes) Unmount(ctx context.Context, container string) error {
	var names []string
	err := v.db.View(func(tx *store.Tx) (err error) {
		names, err = claimed(tx, container)
		return err
	})
	if err != nil {
		return err
	}
	var all []error
	for _, name := range names {
		all = append(all, v.unmount(ctx, container, name))
	}
	return errors.Join(all...)
}

func (v *Volumes) unmount(ctx context.Context, container, name string) error {
	unlock, err := v.working.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := v.get(name)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.mounts() && slices.Contains(r.Mounted, container) {
		err := v.drivers.unmount(ctx, r, container)
		if err != nil && r.local() {
			return err
		}
		if _, err := v.change(name, func(r *record) bool {
			r.Mounted = without(r.Mounted, container)
			if err != nil { // a plugin that is away is told when it is back
				r.Owed = append(without(r.Owed, container), container)
			}
			return true
		}); err != nil {
			return err
		}
	}
	if !v.told.unmount(container, name) {
		return nil
	}
	v.tell(wire.Event{Action: "unmount"}, r, map[string]string{"container": container})
	return nil
}

// MarkUsed notes that a volume has its first content, so that it is not filled
// from an image again.
func (v *Volumes) MarkUsed(_ context.Context, name string) error {
	_, err := v.change(name, func(r *record) bool {
		was := r.Used
		r.Used = true
		return !was
	})
	return err
}
