package extension

import (
	"context"
	"errors"
	"os"

	"gantry/internal/errs"
	"gantry/internal/store"
)

// RemoveOptions say how to remove a plugin.
type RemoveOptions struct {
	Force bool // though it is enabled, or in use
}

// Remove removes a plugin and its files. errs.Conflict if it is enabled or used.
func (m Switches) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	it, done, err := m.begin(ref)
	if err != nil {
		return err
	}
	defer done()
	rec := it.rec
	if !o.Force {
		if err := m.unused(ctx, rec.Name); err != nil {
			return err
		}
		if rec.Enabled {
			return errs.New(errs.Conflict, "plugin %s is enabled", rec.Name)
		}
	}
	ctx = context.WithoutCancel(ctx) // half of it would be no use
	if rec.Enabled {
		if err := m.disable(ctx, it); err != nil {
			return err
		}
	}
	if err := m.o.Store.Update(func(tx *store.Tx) error { return bucket().Delete(tx, rec.ID) }); err != nil {
		return err
	}
	m.mu.Lock()
	it.gone = true
	delete(m.list, rec.ID)
	m.mu.Unlock()
	m.o.Plugins.Drop(rec.Name)
	m.publish("remove", rec.ID, rec.Name)
	return errors.Join(
		m.o.Launcher.Teardown(ctx, rec.ID), m.o.Launcher.Destroy(ctx, rec.ID), m.removeFiles(rec.ID),
		m.o.Content.Unpin(ctx, pinPrefix+rec.ID), m.o.Content.Collect(ctx),
	)
}

// Set changes settings of a plugin that is disabled.
func (m Switches) Set(_ context.Context, ref string, args []string) error {
	it, done, err := m.begin(ref)
	if err != nil {
		return err
	}
	defer done()
	rec := it.rec
	if rec.Enabled {
		return errs.New(errs.Conflict, "cannot set on an active plugin, disable plugin before setting: plugin %s is enabled", rec.Name)
	}
	if rec.Settings, err = set(rec.Config, rec.Settings, args); err != nil {
		return err
	}
	return m.save(it, rec)
}

// Upgrade replaces a plugin that is disabled by what a registry has. Its ID and,
// as far as they still exist, the settings that were changed stay; what it has
// written into its root does not.
func (m Installs) Upgrade(ctx context.Context, ref string, o PullOptions) error {
	name, err := familiar(ref)
	if err != nil {
		return err
	}
	it, done, err := m.begin(ref)
	if errs.Is(err, errs.NotFound) {
		return notFound(name)
	} else if err != nil {
		return err
	}
	defer done()
	rec := it.rec
	if rec.Enabled {
		return errs.New(errs.Conflict, "plugin must be disabled before upgrading: plugin %s is enabled", rec.Name)
	}
	remote, err := named(o.Remote)
	if err != nil {
		return err
	}
	held, release, err := m.o.Content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	f, err := m.fetch(held, remote, o)
	if err != nil {
		return err
	}
	fresh := m.rootfs(rec.ID) + ".new"
	err = os.RemoveAll(fresh)
	if err == nil {
		err = m.unpack(held, fresh, f)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	// What a crash between here and the end leaves is a plugin that is disabled,
	// whose upgrade can be done again.
	rec.Settings = carry(rec.Config, rec.Settings, f.config)
	rec.Config, rec.Manifest, rec.Blobs, rec.Reference = f.config, f.manifest, f.blobs, remote.String()
	if err := os.RemoveAll(m.rootfs(rec.ID)); err != nil {
		return err
	}
	if err := os.Rename(fresh, m.rootfs(rec.ID)); err != nil {
		return err
	}
	if err := m.pin(held, rec); err != nil {
		return err
	}
	if err := m.save(it, rec); err != nil {
		return err
	}
	m.publish("upgrade", rec.ID, rec.Name)
	return nil
}
