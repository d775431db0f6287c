package repo

import (
	"context"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

func blobUnknown(d digest.Digest) error {
	return errs.With(errs.NotFound, &Fault{Code: BlobUnknown, Text: "blob unknown to registry", Detail: map[string]string{"digest": d.String()}})
}

// Blob opens a blob of a repository, which may be one of its manifests. A push
// that finds it may rely on it for the time of grace.
func (s *Store) Blob(ctx context.Context, name string, d digest.Digest) (storage.Object, error) {
	// Once without a lease, so that questions for what is not there leave no
	// trace, and once with it.
	for _, keys := range [][]string{nil, {blobLease(d)}} {
		if err := s.leases.take(ctx, keys...); err != nil {
			return nil, err
		}
		has, err := s.has(ctx, name, d)
		if err != nil {
			return nil, err
		}
		if !has {
			return nil, blobUnknown(d)
		}
	}
	o, err := s.Backend.Open(ctx, blobKey(d))
	if errs.Is(err, errs.NotFound) {
		return nil, blobUnknown(d)
	}
	return o, err
}

// has reports whether a repository has a blob or manifest.
func (s *Store) has(ctx context.Context, name string, d digest.Digest) (bool, error) {
	ok, err := s.exists(ctx, layerKey(name, d))
	if !ok && err == nil {
		ok, err = s.exists(ctx, manifestKey(name, d))
	}
	return ok, err
}

// Mount gives a blob of one repository to another one as well.
func (s *Store) Mount(ctx context.Context, name, from string, d digest.Digest) error {
	release, err := s.leases.hold(ctx, blobLease(d), repoLease(name))
	if err != nil {
		return err
	}
	defer release()
	o, err := s.Blob(ctx, from, d)
	if err != nil {
		return err
	}
	if err := o.Close(); err != nil {
		return err
	}
	return s.link(ctx, name, d)
}

// link notes that a repository has a blob, whose lease is held.
func (s *Store) link(ctx context.Context, name string, d digest.Digest) error {
	if err := s.enter(ctx, name); err != nil {
		return err
	}
	return s.Backend.Put(ctx, layerKey(name, d), nil)
}

// DeleteBlob takes a blob from a repository. Its bytes stay until the collector
// finds that no repository has them.
func (s *Store) DeleteBlob(ctx context.Context, name string, d digest.Digest) error {
	ok, err := s.exists(ctx, layerKey(name, d))
	if err != nil {
		return err
	}
	if !ok {
		return blobUnknown(d)
	}
	return s.Backend.Delete(ctx, layerKey(name, d))
}

// adopt makes a blob of a complete file, which is gone afterwards, and gives it
// to a repository.
func (s *Store) adopt(ctx context.Context, name string, d digest.Digest, file string) error {
	release, err := s.leases.hold(ctx, blobLease(d), repoLease(name))
	if err != nil {
		return err
	}
	defer release()
	if err := s.Backend.Take(ctx, blobKey(d), file); err != nil {
		return err
	}
	return s.link(ctx, name, d)
}
