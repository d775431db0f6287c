// Package extension keeps the plugins that are installed as images: it creates,
// installs, configures and removes them, runs the enabled ones as containers that
// no list shows, and makes their sockets known to package plugin.
//
// The daemon opens one Manager, before the containers that may need a plugin, and
// the API calls it. It writes a bucket of package store, pins of package content
// and <data root>/plugins/<id> (the files of the plugin, which it may change, and
// what it mounts for others); a process is package launch's, with an ID that no
// container has. It must not know what plugins are for: which protocol one speaks
// is asked by those who call it.
//
// Format: docs.docker.com/engine/extend/config.
package extension

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/plugin"
	"gantry/internal/remote"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Launcher is what a Manager needs of package launch.
type Launcher interface {
	Prepare(ctx context.Context, in launch.Input) (*launch.Running, error)
	Release(ctx context.Context, r *launch.Running) error
	Adopt(ctx context.Context, id string) (*launch.Running, error)
	Teardown(ctx context.Context, id string) error
	Destroy(ctx context.Context, id string) error
}

// Endpoints is where the sockets of plugins are made known.
type Endpoints interface {
	Add(name string, e plugin.Endpoint)
	Drop(name string)
	Off(name string) // installed, and not running by the user's wish
}

// Events is where facts for others go.
type Events interface{ Publish(wire.Event) }

// Options is what a Manager works with.
type Options struct {
	Store    *store.DB
	Content  *content.Store
	Launcher Launcher
	Plugins  Endpoints
	Events   Events
	// Registry configures the client of registries; its content and names are
	// replaced.
	Registry remote.Options
	Root     string // data root, absolute
	RunDir   string // run root, absolute
	Defaults func() plan.Defaults
	// Users returns how many volumes and networks use the plugin of a name.
	Users func(ctx context.Context, name string) (int, error)
	Log   *slog.Logger
}

// A Manager has the plugins of a daemon. It is safe for concurrent use. Its methods
// are those of its parts: Switches runs plugins and ends them, Installs brings them
// here and elsewhere.
type Manager struct {
	*core
	Switches
	Installs
}

// The parts of a Manager; each is a view of the same core.
type (
	// Switches runs plugins, ends and removes them.
	Switches struct{ *core }
	// Installs creates, installs, upgrades and pushes plugins.
	Installs struct{ *core }
)

// core is what the parts share.
type core struct {
	o        Options
	registry *remote.Client
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	mu   sync.Mutex
	list map[string]*item // by ID
}

// item is one plugin. change is held by whoever changes it; the rest is guarded
// by the manager's mu.
type item struct {
	change sync.Mutex
	rec    record
	gone   bool
	run    *runner // nil if it does not run
}

// record is what of a plugin is on disk.
type record struct {
	ID        string
	Name      string // familiar, with its tag
	Reference string // what it was installed from
	Enabled   bool
	Config    wire.PluginConfig
	Settings  wire.PluginSettings
	Manifest  descriptor
	Blobs     []string // digests, the manifest's first
}

// descriptor is the manifest.
type descriptor struct {
	MediaType string
	Digest    string
	Size      int64
}

// bucket is where the records are, by ID.
func bucket() store.Bucket[record] { return store.NewBucket[record]("plugins") }

// pinPrefix begins the owners of the pins that keep plugins' blobs.
const pinPrefix = "plugin-"

// IsPin reports whether the owner of a pin is a plugin.
func IsPin(owner string) bool { return strings.HasPrefix(owner, pinPrefix) }

// Open finds the plugins, takes over those that run, and removes what a crash has
// left half made. Start starts the others.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &core{o: o, list: map[string]*item{}}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	o.Registry.Content, o.Registry.Names = o.Content, names{m}
	m.registry = remote.New(o.Registry)
	err := o.Store.View(func(tx *store.Tx) error {
		for _, key := range bucket().Keys(tx) {
			rec, err := bucket().Get(tx, key)
			if err != nil {
				o.Log.Error("the record of a plugin can't be read", "id", key, "err", err)
				continue
			}
			m.list[key] = &item{rec: rec}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Manager{m, Switches{m}, Installs{m}}, m.sweep(ctx)
}

// sweep removes what no record has: the files of half an installation, and pins.
func (m *core) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(m.dir(""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if m.list[e.Name()] == nil {
			if err := m.removeFiles(e.Name()); err != nil {
				m.o.Log.Warn("left-overs of a plugin stay", "id", e.Name(), "err", err)
			}
		}
	}
	owners, err := m.o.Content.Pinned(ctx)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		if key, ok := strings.CutPrefix(owner, pinPrefix); ok && m.list[key] == nil {
			if err := m.o.Content.Unpin(ctx, owner); err != nil {
				return err
			}
		}
	}
	return nil
}

// dir is a plugin's directory.
func (m *core) dir(id string) string { return filepath.Join(m.o.Root, "plugins", id) }

// Places in a plugin's directory, and in the run directory.
func (m *core) rootfs(id string) string     { return filepath.Join(m.dir(id), "rootfs") }
func (m *core) propagated(id string) string { return filepath.Join(m.dir(id), "propagated-mount") }
func (m *core) sockets(key string) string {
	return filepath.Join(m.o.RunDir, "p", id.Short(key)) // short: paths of sockets are
}

// removeFiles removes a plugin's files, and what it has mounted for others.
func (m *core) removeFiles(id string) error {
	unshare(m.propagated(id))
	return errors.Join(os.RemoveAll(m.sockets(id)), os.RemoveAll(m.dir(id)))
}

// unshare takes a directory that was made shared apart again.
func unshare(dir string) {
	for range 64 { // what lies over it goes first
		if unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return
		}
	}
}

// Containers returns the IDs that the processes of plugins have as containers.
func (m *core) Containers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for key := range m.list {
		out = append(out, key)
	}
	return out
}

// view returns a plugin as the API shows it.
func (r *record) view() wire.Plugin {
	p := wire.Plugin{ID: r.ID, Name: r.Name, Enabled: r.Enabled, PluginReference: r.Reference, Config: r.Config, Settings: r.Settings}
	s := &p.Settings
	s.Mounts, s.Env = append([]wire.PluginMount{}, s.Mounts...), append([]string{}, s.Env...)
	s.Args, s.Devices = append([]string{}, s.Args...), append([]wire.PluginDevice{}, s.Devices...)
	return p
}

// List returns the plugins in order of their names. Filters: enabled and
// capability, such as "volumedriver".
func (m *core) List(_ context.Context, f filter.Args) ([]wire.Plugin, error) {
	var enabled, disabled bool
	for _, v := range f.Values("enabled") {
		switch v {
		case "true":
			enabled = true
		case "false":
			disabled = true
		default:
			return nil, errs.New(errs.Invalid, "invalid filter 'enabled=%s'", v)
		}
	}
	out := []wire.Plugin{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.list {
		p := it.rec.view()
		if f.Has("enabled") && !(enabled && p.Enabled || disabled && !p.Enabled) {
			continue
		}
		if f.Has("capability") && !slices.ContainsFunc(p.Config.Interface.Types, func(t wire.PluginType) bool { return f.Exact("capability", t.Capability) }) {
			continue
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b wire.Plugin) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Inspect returns the plugin that ref names.
func (m *core) Inspect(_ context.Context, ref string) (wire.Plugin, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it, err := m.find(ref)
	if err != nil {
		return wire.Plugin{}, err
	}
	return it.rec.view(), nil
}

func notFound(ref string) error { return errs.New(errs.NotFound, "plugin %q not found", ref) }

// find looks a plugin up by its name, with or without the tag "latest", its ID or
// the beginning of that. mu is held.
func (m *core) find(ref string) (*item, error) {
	if it := m.list[ref]; it != nil {
		return it, nil
	}
	full, err := familiar(ref)
	var found []*item
	for key, it := range m.list {
		if err == nil && it.rec.Name == full {
			return it, nil
		}
		if id.ValidPrefix(ref) && strings.HasPrefix(key, ref) {
			found = append(found, it)
		}
	}
	switch len(found) {
	case 0:
		return nil, notFound(ref)
	case 1:
		return found[0], nil
	}
	return nil, errs.New(errs.NotFound, "multiple plugins found for %q", ref)
}

// begin finds a plugin to change it. done must be called.
func (m *core) begin(ref string) (it *item, done func(), err error) {
	m.mu.Lock()
	it, err = m.find(ref)
	m.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	it.change.Lock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if it.gone {
		it.change.Unlock()
		return nil, nil, notFound(ref)
	}
	return it, it.change.Unlock, nil
}

// save writes what a plugin has become, and shows it.
func (m *core) save(it *item, rec record) error {
	if err := m.o.Store.Update(func(tx *store.Tx) error { return bucket().Put(tx, rec.ID, rec) }); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	it.rec = rec
	return nil
}

// publish tells that something happened to a plugin.
func (m *core) publish(action, key, name string) {
	m.o.Events.Publish(wire.Event{
		Type: "plugin", Action: wire.EventAction(action), Scope: "local",
		Actor: wire.EventActor{ID: key, Attributes: map[string]string{"name": name}},
	})
}
