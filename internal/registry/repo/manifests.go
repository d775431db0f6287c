package repo

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

// manifestRecord is what is kept of a manifest beside its bytes.
type manifestRecord struct {
	MediaType string `json:"mediaType"`
}

// A Tag is what a tag means.
type Tag struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// Checked is when the registry that a cache fills itself from was last
	// asked about the tag.
	Checked time.Time `json:"checked,omitzero"`
}

// A Content is a manifest's bytes.
type Content struct {
	MediaType string
	Digest    digest.Digest
	Data      []byte
}

func manifestUnknown(name, ref string) error {
	return errs.With(errs.NotFound, &Fault{Code: ManifestUnknown, Text: "manifest unknown", Detail: map[string]string{"name": name, "reference": ref}})
}

// TagOf returns what a tag means.
func (s *Store) TagOf(ctx context.Context, name, tag string) (Tag, error) {
	var t Tag
	if !IsTag(tag) {
		return t, manifestUnknown(name, tag)
	}
	err := s.record(ctx, tagKey(name, tag), &t)
	if errs.Is(err, errs.NotFound) {
		return t, manifestUnknown(name, tag)
	}
	return t, err
}

// Manifest returns a manifest of a repository by tag or digest.
func (s *Store) Manifest(ctx context.Context, name, ref string) (Content, error) {
	d, err := digest.Parse(ref)
	if err != nil {
		t, err := s.TagOf(ctx, name, ref)
		if err != nil {
			return Content{}, err
		}
		d = t.Digest
	}
	c, err := s.manifest(ctx, name, d)
	if err == nil {
		// Again with a lease: the collector may have been here meanwhile.
		if err := s.leases.take(ctx, blobLease(d)); err != nil {
			return Content{}, err
		}
		err = s.record(ctx, manifestKey(name, d), new(manifestRecord))
	}
	if errs.Is(err, errs.NotFound) {
		return Content{}, manifestUnknown(name, ref)
	}
	return c, err
}

// manifest reads a manifest of a repository, without a lease.
func (s *Store) manifest(ctx context.Context, name string, d digest.Digest) (Content, error) {
	var r manifestRecord
	if err := s.record(ctx, manifestKey(name, d), &r); err != nil {
		return Content{}, err
	}
	data, err := storage.Read(ctx, s.Backend, blobKey(d), MaxManifest)
	return Content{r.MediaType, d, data}, err
}

// A Push is a manifest that a client sends.
type Push struct {
	Name        string
	Digest      digest.Digest // that it must have; empty: whatever it has
	Tags        []string      // that are to mean it
	ContentType string
	Data        []byte
	// Unchecked: what it refers to may be missing, as in a cache.
	Unchecked bool
	// Checked is when another registry said what the tags mean.
	Checked time.Time
}

// PutManifest makes a manifest one of a repository's, with its tags, when it has
// all that the manifest needs.
func (s *Store) PutManifest(ctx context.Context, p Push) (digest.Digest, *Manifest, error) {
	m, err := ParseManifest(p.Data, p.ContentType)
	if err != nil {
		return "", nil, err
	}
	for _, t := range p.Tags {
		if !IsTag(t) {
			return "", nil, NewFault(errs.Invalid, TagInvalid, "manifest tag did not match: %.200q", t)
		}
	}
	d := p.Digest
	if d == "" {
		d = digest.FromBytes(p.Data)
	} else if d.Algorithm().FromBytes(p.Data) != d {
		return "", nil, NewFault(errs.Invalid, DigestInvalid, "provided digest did not match uploaded content")
	}
	keys := []string{blobLease(d), repoLease(p.Name)}
	for _, r := range m.refers() {
		keys = append(keys, blobLease(r))
	}
	release, err := s.leases.hold(ctx, keys...)
	if err != nil {
		return "", nil, err
	}
	defer release()
	unlock, err := s.names.Lock(ctx, p.Name)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if !p.Unchecked {
		if err := s.checkParts(ctx, p.Name, m); err != nil {
			return "", nil, err
		}
	}
	return d, m, s.store(ctx, p, d, m)
}

// store writes a manifest and what points to it, in the order that a crash may
// cut at any place.
func (s *Store) store(ctx context.Context, p Push, d digest.Digest, m *Manifest) error {
	if ok, err := s.exists(ctx, blobKey(d)); err != nil {
		return err
	} else if !ok {
		if err := s.Backend.Put(ctx, blobKey(d), p.Data); err != nil {
			return err
		}
	}
	if err := s.enter(ctx, p.Name); err != nil {
		return err
	}
	if m.Subject != nil {
		r := ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(p.Data)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}
		if err := s.save(ctx, referrersPrefix(p.Name, m.Subject.Digest)+encode(d), r); err != nil {
			return err
		}
	}
	if err := s.save(ctx, manifestKey(p.Name, d), manifestRecord{m.MediaType}); err != nil {
		return err
	}
	for _, t := range p.Tags {
		if err := s.save(ctx, tagKey(p.Name, t), Tag{d, m.MediaType, p.Checked}); err != nil {
			return err
		}
	}
	return nil
}

// checkParts finds what a manifest needs and the repository does not have. Their
// leases are held.
func (s *Store) checkParts(ctx context.Context, name string, m *Manifest) error {
	var missing []error
	for _, b := range m.Blobs() {
		has, err := s.has(ctx, name, b.Digest)
		if err != nil {
			return err
		}
		size := int64(-1)
		if has {
			o, err := s.Backend.Open(ctx, blobKey(b.Digest))
			if err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
			if err == nil {
				size = o.Info().Size
				o.Close()
			}
		}
		if size >= 0 && size != b.Size {
			return NewFault(errs.Invalid, SizeInvalid, "blob %s has %d bytes and not %d", b.Digest, size, b.Size)
		}
		if size < 0 {
			missing = append(missing, errs.With(errs.NotFound, &Fault{Code: ManifestBlobUnknown, Text: "blob unknown to registry", Detail: map[string]string{"digest": b.Digest.String()}}))
		}
	}
	for _, d := range m.Manifests {
		ok, err := s.exists(ctx, manifestKey(name, d.Digest))
		if err != nil {
			return err
		}
		if !ok && !s.Sparse {
			missing = append(missing, errs.With(errs.NotFound, &Fault{Code: ManifestBlobUnknown, Text: "manifest unknown to registry", Detail: map[string]string{"digest": d.Digest.String()}}))
		}
	}
	if len(missing) > 0 {
		return errs.With(errs.NotFound, errors.Join(missing...))
	}
	return nil
}

// Retag notes that another registry still says the same of a tag.
func (s *Store) Retag(ctx context.Context, name, tag string, t Tag) error {
	unlock, err := s.names.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return s.save(ctx, tagKey(name, tag), t)
}

// DeleteTag removes a tag and leaves what it means.
func (s *Store) DeleteTag(ctx context.Context, name, tag string) error {
	unlock, err := s.names.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.TagOf(ctx, name, tag); err != nil {
		return err
	}
	return s.Backend.Delete(ctx, tagKey(name, tag))
}

// DeleteManifest removes a manifest with its tags.
func (s *Store) DeleteManifest(ctx context.Context, name string, d digest.Digest) error {
	unlock, err := s.names.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	ok, err := s.exists(ctx, manifestKey(name, d))
	if err != nil {
		return err
	}
	if !ok {
		return manifestUnknown(name, d.String())
	}
	tags, err := s.tags(ctx, name)
	if err != nil {
		return err
	}
	for tag, t := range tags {
		if t.Digest == d {
			if err := s.Backend.Delete(ctx, tagKey(name, tag)); err != nil {
				return err
			}
		}
	}
	return s.dropManifest(ctx, name, d)
}

// dropManifest removes a manifest that has no tags.
func (s *Store) dropManifest(ctx context.Context, name string, d digest.Digest) error {
	if c, err := s.manifest(ctx, name, d); err == nil {
		if m, err := ParseManifest(c.Data, c.MediaType); err == nil && m.Subject != nil {
			if err := s.Backend.Delete(ctx, referrersPrefix(name, m.Subject.Digest)+encode(d)); err != nil {
				return err
			}
		}
	} else if !errs.Is(err, errs.NotFound) {
		return err
	}
	return s.Backend.Delete(ctx, manifestKey(name, d))
}
