package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/volume/local"
	"gantry/internal/volume/plugin"
	"gantry/internal/wire"
)

// drivers keep what the volumes hold: this host's directories, or a plugin.
type drivers struct {
	local   *local.Driver
	plugins plugin.Caller // nil: there are none
}

func (d *drivers) of(r record) plugin.Driver { return plugin.Driver{Name: r.Driver, Caller: d.plugins} }

func (r *record) local() bool { return r.Driver == localDriver }

// exists returns nil if there is such a driver.
func (d *drivers) exists(ctx context.Context, volume, name string) error {
	if name == localDriver {
		return nil
	}
	err := errs.New(errs.NotFound, "plugin %q not found", name)
	if d.plugins != nil {
		ctx, cancel := context.WithTimeout(ctx, plugin.Look)
		defer cancel()
		err = d.plugins.Offers(ctx, name, plugin.Implements)
	}
	if err != nil {
		return fmt.Errorf("create %s: error looking up volume plugin %s: %w", volume, name, err)
	}
	return nil
}

// check returns why the volume can't be made, or nil.
func (d *drivers) check(r record) error {
	if !r.local() {
		return nil // the plugin's to judge
	}
	if err := local.Check(r.Options); err != nil {
		return err
	}
	return d.local.CanLimit(r.Options)
}

// create makes the volume's content.
func (d *drivers) create(ctx context.Context, r record) error {
	if r.local() {
		return d.local.Create(r.Name, r.Options)
	}
	return d.of(r).Create(ctx, r.Name, r.Options)
}

// path is the directory of a volume's content, as far as it is known.
func (d *drivers) path(r record) string {
	if r.local() {
		return d.local.Path(r.Name)
	}
	return r.At
}

// mount makes the volume ready for a container, which is noted already.
func (d *drivers) mount(ctx context.Context, r record, container string) (at plugin.Place, err error) {
	if r.local() {
		return plugin.Place{Path: d.local.Path(r.Name)}, d.local.Mount(r.Name, r.Options)
	}
	p := d.of(r)
	if r.Making { // the daemon ended before the plugin had answered
		if err := p.Create(ctx, r.Name, r.Options); err != nil {
			return at, err
		}
	}
	for _, c := range r.Owed {
		if err := p.Unmount(ctx, r.Name, c); err != nil {
			return at, err
		}
	}
	at, err = p.Mount(ctx, r.Name, container)
	if err == nil && !filepath.IsAbs(at.Path) {
		err = errors.Join(fmt.Errorf("volume driver %s names %q, which is no absolute path", r.Driver, at.Path), at.Close(), p.Unmount(ctx, r.Name, container))
	}
	return at, err
}

// unmount ends what mount began for the last container that has a local device,
// or for any of a plugin's.
func (d *drivers) unmount(ctx context.Context, r record, container string) error {
	if !r.local() {
		return d.of(r).Unmount(ctx, r.Name, container)
	}
	if len(r.Mounted) > 1 {
		return nil
	}
	return d.local.Unmount(r.Name)
}

// mounts says whether a volume of these options is mounted and unmounted.
func (r *record) mounts() bool { return !r.local() || len(r.Options) > 0 }

// details adds what only a plugin knows.
func (d *drivers) details(ctx context.Context, r record, w *wire.Volume) error {
	if r.local() {
		return nil
	}
	got, err := d.of(r).Get(ctx, r.Name)
	switch {
	case errs.Is(err, errs.Unavailable), errs.Is(err, errs.NotFound):
		return nil // what is on record can be shown while the plugin is away
	case err != nil:
		return errs.New(errs.NotFound, "get %s: %w", r.Name, err)
	}
	w.Status = got.Status
	if got.Mountpoint != "" {
		w.Mountpoint = got.Mountpoint
	}
	return nil
}

// listTime bounds how long a list of volumes waits for plugins.
const listTime = 3 * time.Second

// foreign returns the volumes that plugins have, and a warning for each plugin
// that does not say. They are asked at once.
func (d *drivers) foreign(ctx context.Context) (out []record, status map[string]map[string]any, warnings []string) {
	status = map[string]map[string]any{}
	if d.plugins == nil {
		return nil, status, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	names := d.plugins.Offering(ctx, plugin.Implements, listTime)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() {
			p := plugin.Driver{Name: n, Caller: d.plugins}
			vs, err := p.List(ctx)
			scope := ""
			if err == nil && len(vs) > 0 {
				scope = p.Scope(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				warnings = append(warnings, fmt.Sprintf("list %s: %v", n, err))
			}
			for _, v := range vs {
				r := record{Name: v.Name, Driver: n, At: v.Mountpoint, Scope: scope}
				if t, err := time.Parse(time.RFC3339, v.CreatedAt); err == nil {
					r.Created = t
				}
				status[v.Name] = v.Status
				out = append(out, r)
			}
		})
	}
	wg.Wait()
	return out, status, warnings
}

// find asks the plugins for a volume that nobody here has made.
func (d *drivers) find(ctx context.Context, name string) (record, bool) {
	if d.plugins == nil {
		return record{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for _, n := range d.plugins.Offering(ctx, plugin.Implements, listTime) {
		p := plugin.Driver{Name: n, Caller: d.plugins}
		v, err := p.Get(ctx, name)
		if err != nil || v.Name != name {
			continue
		}
		r := record{Name: name, Driver: n, At: v.Mountpoint, Scope: p.Scope(ctx)}
		if t, err := time.Parse(time.RFC3339, v.CreatedAt); err == nil {
			r.Created = t
		}
		return r, true
	}
	return record{}, false
}
