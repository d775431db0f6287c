// Package image owns the images of this machine: what a name means, what an
// image consists of, and how images come and go (load, import, save, tag,
// remove, prune).
//
// The API and the engine call it. It works on the stores of package content and
// writes nothing else. An image is recorded when everything it needs is on
// disk, and not before. The package must not know of containers beyond their
// ids, nor of HTTP.
//
// # Names and ids
//
// An image's id is the digest of what its name points at: an index, if it came
// with one, else a manifest. Names are stored in full
// (docker.io/library/busybox:latest) and shown short (busybox:latest). An image
// that has lost its last name but not its users has a dangling record.
package image

import (
	"context"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/event"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// Options is what Images works with.
type Options struct {
	Content *content.Store
	Events  *event.Bus
	// Uses tells which containers use the image with an id. nil: none do.
	Uses func(imageID string) []Use
}

// Use is a container's use of an image.
type Use struct {
	ID, Name string // Name without the slash
	Running  bool
}

// Images are the images of this machine. It is safe for concurrent use. What it
// can do is spread over its parts: the catalog looks things up, names changes
// what names mean, and maker, loader and saver bring images in and out.
type Images struct {
	*catalog
	*names
	*maker
	pruning sync.Mutex
}

// catalog knows what is there, and changes nothing.
type catalog struct {
	store *content.Store
	uses  func(imageID string) []Use
	now   func() time.Time

	mu    sync.Mutex
	parts map[digest.Digest]*parts // by manifest; what they hold never changes
}

// names changes what names mean and tells of it.
type names struct {
	*catalog
	events *event.Bus
	change sync.Mutex // held while names change, so that look and change are one
}

// New returns the images of a store. There is nothing to close.
func New(o Options) *Images {
	if o.Uses == nil {
		o.Uses = func(string) []Use { return nil }
	}
	if o.Events == nil {
		o.Events = event.New()
	}
	c := &catalog{store: o.Content, uses: o.Uses, now: time.Now, parts: map[digest.Digest]*parts{}}
	return &Images{catalog: c, names: &names{catalog: c, events: o.Events}, maker: &maker{c}}
}

// Image is one image for one platform. What it points at is shared and must not
// be changed.
type Image struct {
	ID       digest.Digest      // what the API calls it
	Target   ocispec.Descriptor // what its name points at: an index or manifest; ID is its digest
	Manifest ocispec.Descriptor
	Names    []string // short, with their tags; those that it was found by
	Config   dockerspec.DockerOCIImage
	Layers   []content.Layer // lowest first
	ChainID  digest.Digest   // of the unpacked layers; empty if there are none
	Platform ocispec.Platform
	Updated  time.Time // when it last got a name
}

// Lower returns the directories of an image's layers, topmost first, as overlay
// file systems take them. It unpacks what is not unpacked yet. The directories
// stay while a name or a pin keeps the image.
func (s *Images) Lower(ctx context.Context, i *Image) ([]string, error) {
	if i.ChainID == "" {
		return nil, nil
	}
	if dirs, err := s.store.Dirs(ctx, i.ChainID); err == nil {
		return dirs, nil
	}
	ctx, release, err := s.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.store.Unpack(ctx, i.Layers); err != nil {
		return nil, err
	}
	// It may have come under another storage driver, whose layers it keeps.
	c, err := s.read(ctx, i.Manifest)
	if err != nil {
		return nil, err
	}
	if err := s.store.Refer(ctx, c.conf.Digest, i.ChainID); err != nil {
		return nil, err
	}
	return s.store.Dirs(ctx, i.ChainID)
}

// Pin keeps images for a container, whatever happens to their names, until
// Unpin. imageIDs are Images' IDs. errs.NotFound if one is gone.
func (s *Images) Pin(ctx context.Context, containerID string, imageIDs ...string) error {
	var keep []digest.Digest
	for _, id := range imageIDs {
		d, err := digest.Parse(id)
		if err != nil {
			return noSuchImage(id)
		}
		keep = append(keep, d)
	}
	return s.store.Pin(ctx, containerID, keep...)
}

// Unpin ends the pin of a container, if there is one.
func (s *Images) Unpin(ctx context.Context, containerID string) error {
	return s.store.Unpin(ctx, containerID)
}

// Pinned returns the containers that images are pinned for.
func (s *Images) Pinned(ctx context.Context) ([]string, error) { return s.store.Pinned(ctx) }

// Count returns how many images there are.
func (s *Images) Count(ctx context.Context) (int, error) {
	groups, err := s.groups(ctx)
	return len(groups), err
}

// publish tells that something happened to an image.
func (s *names) publish(action string, imageID digest.Digest, name string) {
	s.events.Publish(wire.Event{
		Type: "image", Action: wire.EventAction(action),
		Actor: wire.EventActor{ID: imageID.String(), Attributes: map[string]string{"name": name}},
	})
}

// short is the form of an id in texts.
func short(d digest.Digest) string { return id.Short(d.Encoded()) }
