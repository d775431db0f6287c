package daemon

import (
	"context"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/config"
	"gantry/internal/container"
	"gantry/internal/content"
	"gantry/internal/daemon/shimbin"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/image"
	"gantry/internal/image/hello"
	"gantry/internal/lazy"
	"gantry/internal/plan"
	"gantry/internal/server"
	"gantry/internal/wire"
)

// imageStore are the images as the engine and the API want them.
type imageStore struct {
	*image.Images
	content *content.Store
	touch   func(imageID string) // notes that an image is used
	// room removes what was not used for long, if the disk is full.
	room func(ctx context.Context) bool
	// uses is the engine's answer to who uses an image, once there is one.
	uses func(imageID string) []container.Use
	lazy *lazy.Images // that are not all here; set once the engine is open
}

// openImages opens the image stores.
func (d *Daemon) openImages(ctx context.Context, c *config.Config) (*imageStore, error) {
	s := &imageStore{}
	store, err := content.Open(ctx, content.Options{Root: c.Root, Driver: c.StorageDriver, Room: s.makeRoom})
	if err != nil {
		return nil, err
	}
	d.later("images", func(context.Context) error { return store.Close() })
	s.content = store
	s.Images = image.New(image.Options{Content: store, Events: d.bus, Uses: s.usesOf})
	return s, nil
}

func (s *imageStore) makeRoom(ctx context.Context) bool { return s.room != nil && s.room(ctx) }

func (s *imageStore) usesOf(imageID string) []image.Use {
	if s.uses == nil {
		return nil
	}
	var list []image.Use
	for _, u := range s.uses(imageID) {
		list = append(list, image.Use(u))
	}
	return list
}

// Resolve finds an image for a container, its layers unpacked.
func (s *imageStore) Resolve(ctx context.Context, ref, platform string) (*plan.Image, container.Image, error) {
	var want *ocispec.Platform
	if platform != "" {
		var err error
		if want, err = image.ParsePlatform(platform); err != nil {
			return nil, container.Image{}, err
		}
	}
	img, err := s.Images.Resolve(ctx, ref, want)
	if errs.Is(err, errs.NotFound) {
		if p, i, ok, lerr := s.lazily(ctx, ref); ok || lerr != nil {
			return p, i, lerr
		}
	}
	if errs.Is(err, errs.NotFound) && hello.Names(ref) {
		if err = s.ensureHello(ctx, ref); err == nil {
			img, err = s.Images.Resolve(ctx, ref, want)
		}
	}
	if err != nil {
		return nil, container.Image{}, err
	}
	lower, err := s.Lower(ctx, img)
	if err != nil {
		return nil, container.Image{}, err
	}
	if s.touch != nil {
		s.touch(img.ID.String())
	}
	m := img.Manifest
	m.Platform = &ocispec.Platform{OS: img.Platform.OS, Architecture: img.Platform.Architecture, Variant: img.Platform.Variant}
	if m.Digest == img.Target.Digest {
		m.Annotations = img.Target.Annotations
	}
	return &plan.Image{Digest: img.ID.String(), Config: img.Config.Config},
		container.Image{ID: img.ID.String(), Platform: img.Platform.OS, Manifest: &m, Lower: lower, Driver: s.content.Layout().Driver, Whole: s.content.Layout().Whole}, nil
}

// ensureHello makes the embedded image, which is there for who asks.
func (s *imageStore) ensureHello(ctx context.Context, ref string) error {
	program, err := shimbin.Program()
	if err != nil {
		return err
	}
	return hello.Ensure(ctx, s.Images, program, ref)
}

// The rest is the API's view.

func one(p *server.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	return &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

func several(list []server.Platform) []ocispec.Platform {
	var out []ocispec.Platform
	for i := range list {
		out = append(out, *one(&list[i]))
	}
	return out
}

// imageAPI are the images as the API wants them.
type imageAPI struct{ *imageStore }

// Attestations returns what is attested of an image.
func (a imageArchives) Attestations(ctx context.Context, ref string, o server.ImageAttested) ([]wire.Attestation, error) {
	return a.Images.Attestations(ctx, ref, image.AttestationOptions{Platform: one(o.Platform), Types: o.Types, Statement: o.Statement})
}

// List lists images.
func (a imageAPI) List(ctx context.Context, o server.ImageList) ([]wire.ImageSummary, error) {
	return a.Images.List(ctx, image.ListOptions(o))
}

// Inspect describes an image.
func (a imageAPI) Inspect(ctx context.Context, ref string, o server.ImageInspect) (wire.ImageInspect, error) {
	return a.Images.Inspect(ctx, ref, image.InspectOptions{Manifests: o.Manifests, Platform: one(o.Platform)})
}

// History lists an image's layers.
func (a imageAPI) History(ctx context.Context, ref string, p *server.Platform) ([]wire.ImageHistory, error) {
	return a.Images.History(ctx, ref, one(p))
}

// Remove removes an image or a name of it.
func (a imageAPI) Remove(ctx context.Context, ref string, o server.ImageRemove) ([]wire.ImageDeleted, error) {
	return a.Images.Remove(ctx, ref, image.RemoveOptions{Force: o.Force, Prune: o.Prune, Only: several(o.Only)})
}

// imageArchives moves images in and out.
type imageArchives struct {
	*imageStore
	registry registryAPI
}

// Load loads an archive of images.
func (a imageArchives) Load(ctx context.Context, r io.Reader, o server.ImageLoad, tell func(wire.Progress)) error {
	return a.Images.Load(ctx, r, image.LoadOptions{Quiet: o.Quiet, Only: several(o.Only)}, tell)
}

// Import makes an image of a root file system.
func (a imageArchives) Import(ctx context.Context, r io.Reader, o server.ImageImport, tell func(wire.Progress)) error {
	opts := image.ImportOptions{Repo: o.Repo, Tag: o.Tag, Message: o.Message, Platform: o.Platform, Changes: o.Changes}
	if o.Created > 0 {
		opts.Created = time.Unix(o.Created, 0)
	}
	if o.From != "" {
		f := &fetched{open: func() (io.ReadCloser, error) { return a.registry.client.Download(ctx, o.From, tell) }}
		defer f.close()
		r = f
	}
	return a.Images.Import(ctx, r, opts, tell)
}

// fetched is a file that is fetched when it is first read: what is wrong with
// the options is found before.
type fetched struct {
	open func() (io.ReadCloser, error)
	file io.ReadCloser
}

func (f *fetched) Read(p []byte) (int, error) {
	if f.file == nil {
		var err error
		if f.file, err = f.open(); err != nil {
			return 0, err
		}
	}
	return f.file.Read(p)
}

func (f *fetched) close() {
	if f.file != nil {
		_ = f.file.Close()
	}
}

// Save writes images as an archive.
func (a imageArchives) Save(ctx context.Context, w io.Writer, names []string, only []server.Platform) error {
	return a.Images.Save(ctx, w, names, several(only))
}

// Prune removes images that nobody uses.
func (a imageArchives) Prune(ctx context.Context, f filter.Args) (wire.ImagesPruned, error) {
	return a.Images.Prune(ctx, f)
}
