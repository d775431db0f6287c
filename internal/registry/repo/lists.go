package repo

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

// Page returns the first n of a sorted list that come after last, and whether
// there are more. n < 0 is no bound.
func Page(list []string, last string, n int) (page []string, more bool) {
	if last != "" {
		i, found := slices.BinarySearch(list, last)
		if found {
			i++
		}
		list = list[i:]
	}
	if n < 0 || len(list) <= n {
		return list, false
	}
	return list[:n], true
}

// Catalog returns the names of all repositories, sorted.
func (s *Store) Catalog(ctx context.Context) ([]string, error) {
	list := []string{}
	err := s.Backend.List(ctx, "catalog/", func(i storage.Info) error {
		list = append(list, unflat(base(i.Key)))
		return nil
	})
	slices.Sort(list)
	return list, err
}

// Tags returns the tags of a repository, sorted.
func (s *Store) Tags(ctx context.Context, name string) ([]string, error) {
	list := []string{}
	err := s.Backend.List(ctx, part(name, "tags"), func(i storage.Info) error {
		list = append(list, base(i.Key))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if ok, err := s.exists(ctx, catalogKey(name)); err != nil || !ok {
			if err == nil {
				err = errs.With(errs.NotFound, &Fault{Code: NameUnknown, Text: "repository name not known to registry", Detail: map[string]string{"name": name}})
			}
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}

// tags returns what each tag of a repository means.
func (s *Store) tags(ctx context.Context, name string) (map[string]Tag, error) {
	all := map[string]Tag{}
	err := s.Backend.List(ctx, part(name, "tags"), func(i storage.Info) error {
		var t Tag
		err := s.record(ctx, i.Key, &t)
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		all[base(i.Key)] = t
		return err
	})
	return all, err
}

// Manifests returns the digests of the manifests of a repository, sorted.
func (s *Store) Manifests(ctx context.Context, name string) ([]digest.Digest, error) {
	var list []digest.Digest
	err := s.Backend.List(ctx, part(name, "manifests"), func(i storage.Info) error {
		if d, ok := decode(i.Key); ok {
			list = append(list, d)
		}
		return nil
	})
	slices.Sort(list)
	return list, err
}

// Referrers returns what refers to a manifest by its subject, sorted by digest:
// what this registry has noted, and what clients of registries that do not note
// it have listed under the tag that they agree upon.
// Format: OCI distribution-spec 1.1, "Referrers Tag Schema".
func (s *Store) Referrers(ctx context.Context, name string, d digest.Digest) ([]ocispec.Descriptor, error) {
	all := map[digest.Digest]ocispec.Descriptor{}
	c, err := s.Manifest(ctx, name, FallbackTag(d))
	if err == nil {
		var x ocispec.Index
		if json.Unmarshal(c.Data, &x) == nil {
			for _, r := range x.Manifests {
				all[r.Digest] = r
			}
		}
	} else if !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	err = s.Backend.List(ctx, referrersPrefix(name, d), func(i storage.Info) error {
		r, ok := decode(i.Key)
		if !ok {
			return nil
		}
		// A crash may have left an entry without its manifest.
		if ok, err := s.exists(ctx, manifestKey(name, r)); !ok || err != nil {
			return err
		}
		var desc ocispec.Descriptor
		data, err := storage.Read(ctx, s.Backend, i.Key, MaxManifest)
		if err == nil {
			err = json.Unmarshal(data, &desc)
		}
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		all[r] = desc
		return err
	})
	list := make([]ocispec.Descriptor, 0, len(all))
	for _, r := range all {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return list, err
}

// FallbackTag is the tag under which clients list the referrers of a manifest at
// a registry that does not.
func FallbackTag(d digest.Digest) string {
	hex := d.Encoded()
	return d.Algorithm().String() + "-" + hex[:min(len(hex), 64)]
}
