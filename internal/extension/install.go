package extension

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/layer"
	"gantry/internal/remote"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Media types, as Docker writes them.
const (
	configType   = "application/vnd.docker.plugin.v1+json"
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	layerType    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// PullOptions says what to install.
type PullOptions struct {
	Remote  string // what to fetch
	Name    string // how to call it; empty for what it is called there
	Auth    string // an X-Registry-Auth header
	Granted []wire.PluginPrivilege
	Tell    func(wire.Progress)
}

// named reads the name of a plugin, with its tag.
func named(text string) (reference.NamedTagged, error) {
	n, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	n = reference.TagNameOnly(n)
	if t, ok := n.(reference.NamedTagged); ok {
		if d, ok := n.(reference.Digested); ok {
			return nil, errs.New(errs.Invalid, "a plugin can't be named by a digest: %s", d.Digest())
		}
		return t, nil
	}
	return nil, errs.New(errs.Invalid, "a plugin can't be named by a digest: %s", text)
}

// familiar is a plugin's name as lists show it.
func familiar(text string) (string, error) {
	n, err := named(text)
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(n), nil
}

// auth reads credentials; what can't be read is none.
func auth(header string) wire.RegistryAuth {
	a, err := remote.DecodeAuth(header)
	if err != nil {
		return wire.RegistryAuth{}
	}
	return a
}

// fetched is a plugin whose blobs are in the store.
type fetched struct {
	config   wire.PluginConfig
	layer    digest.Digest
	manifest descriptor
	blobs    []string
}

// describe asks a registry what a plugin is. ctx is one of the store's Hold.
func (m Installs) describe(ctx context.Context, o remote.ArtifactOptions) (*remote.Artifact, wire.PluginConfig, error) {
	a, err := m.registry.Describe(ctx, o)
	if err != nil {
		return nil, wire.PluginConfig{}, fmt.Errorf("error resolving plugin reference: %w", err)
	}
	c, err := parseConfig(a.Config)
	if err == nil && (len(a.Layers) != 1 || c.Rootfs == nil || len(c.Rootfs.DiffIds) != 1) {
		err = errs.New(errs.Invalid, "%s has %d layers: a plugin has one, and its configuration names it", o.Name, len(a.Layers))
	}
	return a, c, err
}

func options(ref reference.Named, header string) remote.ArtifactOptions {
	return remote.ArtifactOptions{Name: ref, ConfigType: configType, Auth: auth(header)}
}

// Privileges returns what the plugin that a registry has would get. What can't be
// reached asks for nothing, as in Docker: its installation says why.
func (m Installs) Privileges(ctx context.Context, ref, header string) ([]wire.PluginPrivilege, error) {
	name, err := named(ref)
	if err != nil {
		return nil, err
	}
	held, release, err := m.o.Content.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	_, c, err := m.describe(held, options(name, header))
	if err != nil {
		m.o.Log.Debug("the privileges of a plugin are not known", "name", ref, "err", err)
		return []wire.PluginPrivilege{}, ctx.Err()
	}
	return privileges(c), nil
}

// fetch brings a plugin's blobs into the store, if it needs no more than what was
// granted. held is a context of the store's Hold.
func (m Installs) fetch(held context.Context, ref reference.Named, o PullOptions) (fetched, error) {
	ro := options(ref, o.Auth)
	a, c, err := m.describe(held, ro)
	if err != nil {
		return fetched{}, err
	}
	if err := granted(privileges(c), o.Granted); err != nil {
		return fetched{}, err
	}
	if err := m.registry.Fetch(held, ro, a, o.Tell); err != nil {
		return fetched{}, err
	}
	f := fetched{config: c, layer: a.Layers[0].Digest, manifest: descriptor{a.Target.MediaType, a.Target.Digest.String(), a.Target.Size}}
	for _, b := range a.Blobs {
		f.blobs = append(f.blobs, b.String())
	}
	return f, nil
}

// Pull installs a plugin from a registry; it is not enabled. errs.Denied if it
// needs what was not granted.
func (m Installs) Pull(ctx context.Context, o PullOptions) error {
	ref, err := named(o.Remote)
	if err != nil {
		return err
	}
	if o.Name == "" {
		o.Name = o.Remote
	}
	name, err := familiar(o.Name)
	if err != nil {
		return err
	}
	if err := m.free(name); err != nil {
		return err
	}
	held, release, err := m.o.Content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	f, err := m.fetch(held, ref, o)
	if err != nil {
		return err
	}
	key, err := m.install(held, name, ref.String(), f)
	if err != nil {
		return err
	}
	o.Tell(wire.Progress{Status: "Status: Downloaded newer image for " + reference.FamiliarString(ref)})
	m.publish("pull", key, name)
	return nil
}

// free returns an error if a plugin has the name.
func (m *core) free(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.list {
		if it.rec.Name == name {
			return errs.New(errs.Conflict, "plugin %s already exists", name)
		}
	}
	return nil
}

// install makes a plugin of what is in the store.
func (m Installs) install(held context.Context, name, ref string, f fetched) (key string, err error) {
	rec := record{
		ID: id.New(), Name: name, Reference: ref, Config: f.config, Settings: firstSettings(f.config), Manifest: f.manifest, Blobs: f.blobs,
	}
	defer func() {
		if err != nil {
			undo := context.WithoutCancel(held)
			err = errors.Join(err, m.removeFiles(rec.ID), m.o.Content.Unpin(undo, pinPrefix+rec.ID))
		}
	}()
	if err := m.unpack(held, m.rootfs(rec.ID), f); err != nil {
		return "", err
	}
	if err := m.pin(held, rec); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.list {
		if it.rec.Name == name {
			return "", errs.New(errs.Conflict, "plugin %s already exists", name)
		}
	}
	if err := m.o.Store.Update(func(tx *store.Tx) error { return bucket().Put(tx, rec.ID, rec) }); err != nil {
		return "", err
	}
	m.list[rec.ID] = &item{rec: rec}
	m.o.Plugins.Off(rec.Name)
	return rec.ID, nil
}

// pin keeps the blobs of a plugin.
func (m Installs) pin(ctx context.Context, rec record) error {
	var keep []digest.Digest
	for _, b := range rec.Blobs {
		keep = append(keep, digest.Digest(b))
	}
	return m.o.Content.Pin(ctx, pinPrefix+rec.ID, keep...)
}

// unpack makes the directory that is a plugin's root.
func (m Installs) unpack(ctx context.Context, dir string, f fetched) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r, _, err := m.o.Content.Open(ctx, f.layer)
	if err != nil {
		return err
	}
	defer r.Close()
	want := digest.Digest(f.config.Rootfs.DiffIds[0])
	if want == "" {
		return errs.New(errs.Invalid, "the configuration names no layer")
	}
	if _, _, err := layer.Unpack(ctx, dir, r, want, layer.Options{Limits: m.o.Content.Limits()}); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	return nil
}

// Create makes a plugin of a tar with config.json and rootfs.
func (m Installs) Create(ctx context.Context, text string, r io.Reader) error {
	ref, err := named(text)
	if err != nil {
		return errs.New(errs.Unknown, "failed to parse reference %s: %v", text, err)
	}
	name := reference.FamiliarString(ref)
	if err := m.free(name); err != nil {
		return err
	}
	held, release, err := m.o.Content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	f, err := m.build(held, r)
	if err != nil {
		return err
	}
	key, err := m.install(held, name, name, f)
	if err != nil {
		return err
	}
	m.publish("create", key, name)
	return nil
}

// build writes the blobs of a plugin that a client has made. ctx is one of the
// store's Hold.
func (m Installs) build(ctx context.Context, r io.Reader) (fetched, error) {
	var f fetched
	pr, pw := io.Pipe()
	zip := gzip.NewWriter(pw)
	sum := digest.Canonical.Digester()
	var text []byte
	done := make(chan error, 1)
	go func() {
		var err error
		if text, err = split(r, io.MultiWriter(zip, sum.Hash())); err == nil {
			err = zip.Close()
		}
		pw.CloseWithError(err)
		done <- err
	}()
	l, err := m.o.Content.Write(ctx, pr, "")
	pr.CloseWithError(err) // the other side ends too
	if split := <-done; split != nil {
		return f, split
	}
	if err != nil {
		return f, err
	}
	if f.config, err = parseConfig(text); err != nil {
		return f, err
	}
	f.config.Rootfs = &wire.PluginRootFS{Type: "layers", DiffIds: []string{sum.Digest().String()}}
	f.layer = l.Digest
	cfg, err := json.Marshal(f.config)
	if err != nil {
		return f, err
	}
	c, err := m.o.Content.Write(ctx, bytes.NewReader(cfg), "")
	if err != nil {
		return f, err
	}
	man := ocispec.Manifest{
		MediaType: manifestType, Config: ocispec.Descriptor{MediaType: configType, Digest: c.Digest, Size: c.Size},
		Layers: []ocispec.Descriptor{{MediaType: layerType, Digest: l.Digest, Size: l.Size}},
	}
	man.SchemaVersion = 2
	data, err := json.MarshalIndent(man, "", "   ")
	if err != nil {
		return f, err
	}
	d, err := m.o.Content.Write(ctx, bytes.NewReader(data), "")
	if err != nil {
		return f, err
	}
	f.manifest = descriptor{manifestType, d.Digest.String(), d.Size}
	f.blobs = []string{d.Digest.String(), c.Digest.String(), l.Digest.String()}
	return f, nil
}

// Push sends a plugin to the registry of its name.
func (m Installs) Push(ctx context.Context, ref, header string, tell func(wire.Progress)) error {
	it, done, err := m.begin(ref)
	if err != nil {
		return err
	}
	defer done()
	n, err := named(it.rec.Name)
	if err != nil {
		return err
	}
	return m.registry.Push(ctx, remote.PushOptions{Name: n, Auth: auth(header)}, tell)
}

// names are the plugins as the client of registries wants them.
type names struct{ m *core }

// Receive is for images.
func (names) Receive(context.Context, string, ocispec.Descriptor) (bool, error) {
	return false, errs.New(errs.Unsupported, "a plugin is not recorded as an image")
}

// Tags returns the plugins of a repository.
func (n names) Tags(_ context.Context, repository string) (map[string]ocispec.Descriptor, error) {
	out := map[string]ocispec.Descriptor{}
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	for _, it := range n.m.list {
		if ref, err := named(it.rec.Name); err == nil && ref.Name() == repository {
			d := it.rec.Manifest
			out[ref.Tag()] = ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size}
		}
	}
	return out, nil
}

// Moved tells of a push.
func (n names) Moved(action, name string) {
	short, err := familiar(name)
	if err != nil {
		return
	}
	if p, err := n.m.Inspect(n.m.ctx, short); err == nil {
		n.m.publish(action, p.ID, short)
	}
}
