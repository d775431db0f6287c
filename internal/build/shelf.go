package build

import (
	"bytes"
	"context"
	"maps"
	"sync"
	"time"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
)

// A shelf has small blobs that are not in the stores, or not yet: those of an
// export, until it is known that the image is not there already, and those of the
// history of builds, which nobody waits for.
type shelf struct {
	storing sync.Mutex // held while blobs are moved to the stores

	mu    sync.Mutex
	list  []content.Small
	infos map[digest.Digest]blobstore.Info
	size  int64 // in bytes
}

// add puts a blob on the shelf.
func (s *shelf) add(b content.Small) error {
	now := time.Now()
	info := blobstore.Info{Digest: b.Digest, Size: int64(len(b.Data)), CreatedAt: now, UpdatedAt: now}
	for _, opt := range b.End {
		if err := opt(&info); err != nil {
			return err
		}
	}
	info.Labels = maps.Clone(info.Labels)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.infos[b.Digest]; ok {
		return errdefs.ErrAlreadyExists.WithMessage("content " + b.Digest.String() + ": already exists")
	}
	if s.infos == nil {
		s.infos = map[digest.Digest]blobstore.Info{}
	}
	s.list, s.infos[b.Digest], s.size = append(s.list, b), info, s.size+info.Size
	return nil
}

// info tells of a blob on the shelf.
func (s *shelf) info(d digest.Digest) (blobstore.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.infos[d]
	return i, ok
}

// data is what is in a blob on the shelf.
func (s *shelf) data(d digest.Digest) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.list {
		if b.Digest == d {
			return b.Data, true
		}
	}
	return nil, false
}

// bytes is how much is on the shelf.
func (s *shelf) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// store moves the blobs to the stores; there are none on the shelf when it
// returns, if nobody adds any and it does not fail. ctx has their namespace and no
// lease.
func (s *shelf) store(ctx context.Context, to blobs) error {
	s.storing.Lock()
	defer s.storing.Unlock()
	s.mu.Lock()
	list := s.list[:len(s.list):len(s.list)]
	s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := to.store.Ledger.Put(ctx, list...)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range list {
		delete(s.infos, b.Digest)
		s.size -= int64(len(b.Data))
	}
	s.list = append([]content.Small(nil), s.list[len(list):]...)
	return nil
}

type draftKey struct{}

// drafting lets what an image consists of besides its layers stay on a shelf, until
// settle.
func drafting(ctx context.Context) context.Context {
	return context.WithValue(ctx, draftKey{}, &shelf{})
}

// draft is the shelf for what a writer with these options writes, nil if it is none
// of an export. Layers are not on it: builds that run at the same time share them.
// The documents of an image are written under a name that is their digest alone, as
// nothing else is.
func draft(ctx context.Context, o blobstore.WriterOpts) *shelf {
	s, _ := ctx.Value(draftKey{}).(*shelf)
	if s == nil || o.Desc.Digest == "" || o.Ref != o.Desc.Digest.String() || images.IsLayerType(o.Desc.MediaType) {
		return nil
	}
	return s
}

// settle stores what is on the shelf of an export.
func settle(ctx context.Context, s *content.Store) error {
	on, _ := ctx.Value(draftKey{}).(*shelf)
	if on == nil {
		return nil
	}
	return on.store(content.Namespaced(unleased{ctx}), blobs{Store: s.Blobs(), layerNames: layerNames{s}})
}

// drafted reads a document that may be on the shelf of an export.
func drafted(ctx context.Context, s *content.Store, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if on, _ := ctx.Value(draftKey{}).(*shelf); on != nil {
		if data, ok := on.data(d.Digest); ok {
			return data, nil
		}
	}
	return s.Read(ctx, d, limit)
}

// shelved reads a blob on a shelf.
type shelved struct{ *bytes.Reader }

// Close ends reading.
func (shelved) Close() error { return nil }
