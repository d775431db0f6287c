package repo

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

// A Collector removes what nothing refers to, while pushes go on; see leases.
type Collector struct {
	s  *Store
	mu sync.Mutex // one collection at a time
}

// CollectOptions say what to collect.
type CollectOptions struct {
	// Untagged: manifests also that no tag leads to, and that refer to none that
	// a tag leads to.
	Untagged bool
	// Cache says of a repository that it is a copy of another registry's, and
	// how long its tags are kept since that was last asked; 0: for ever. What no
	// tag leads to is removed.
	Cache func(name string) (bool, time.Duration)
	// Uploads is for how long one may lie still; 0 for a day.
	Uploads time.Duration
}

// Collected is what a collection has removed.
type Collected struct {
	Blobs, Bytes int64 // of the store
	Links        int64 // blobs of repositories
	Manifests    int64
	Tags         int64
	Uploads      int64
	Repositories int64
}

// sweep is one collection.
type sweep struct {
	*Store
	o     CollectOptions
	since time.Time // what was relied on at this time or later stays
	used  map[digest.Digest]struct{}
	got   Collected
}

// Collect removes what nothing refers to. It may end at any moment: what is left
// is removed by the next one. What it can't read it takes to be needed.
func (c *Collector) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.Uploads == 0 {
		o.Uploads = 24 * time.Hour
	}
	now := time.Now()
	w := &sweep{Store: c.s, o: o, since: now.Add(-c.s.Grace), used: map[digest.Digest]struct{}{}}
	n, err := c.s.purge(ctx, now.Add(-o.Uploads))
	w.got.Uploads = int64(n)
	if err != nil {
		return w.got, err
	}
	names, err := c.s.Catalog(ctx)
	if err != nil {
		return w.got, err
	}
	for _, name := range names {
		if err := w.repository(ctx, name); err != nil {
			return w.got, err
		}
	}
	if err := w.blobs(ctx); err != nil {
		return w.got, err
	}
	c.s.leases.expire(w.since)
	return w.got, nil
}

// repository removes what a repository has no use for, and notes what it uses.
func (w *sweep) repository(ctx context.Context, name string) error {
	cache, keep := false, time.Duration(0)
	if w.o.Cache != nil {
		cache, keep = w.o.Cache(name)
	}
	if cache && keep > 0 {
		if err := w.oldTags(ctx, name, time.Now().Add(-keep)); err != nil {
			return err
		}
	}
	list, err := w.Manifests(ctx, name)
	if err != nil {
		return err
	}
	refers, subjects, err := w.read(ctx, name, list)
	if err != nil {
		return err
	}
	if cache || w.o.Untagged {
		if list, err = w.untagged(ctx, name, list, refers, subjects); err != nil {
			return err
		}
	}
	needed := map[digest.Digest]struct{}{}
	for _, d := range list {
		w.used[d] = struct{}{}
		for _, r := range refers[d] {
			needed[r] = struct{}{}
		}
	}
	left := len(list)
	err = w.List(ctx, part(name, "layers"), func(i storage.Info) error {
		d, ok := decode(i.Key)
		if !ok {
			return nil
		}
		if _, ok := needed[d]; !ok && i.Changed.Before(w.since) {
			gone, err := w.remove(ctx, i.Key, blobLease(d))
			if gone || err != nil {
				w.got.Links++
				return err
			}
		}
		left++
		w.used[d] = struct{}{}
		return nil
	})
	if err != nil || left > 0 {
		return err
	}
	return w.leave(ctx, name)
}

// List tells of objects.
func (w *sweep) List(ctx context.Context, prefix string, tell func(storage.Info) error) error {
	return w.Backend.List(ctx, prefix, tell)
}

// read reads what manifests refer to, and which one each is about.
func (w *sweep) read(ctx context.Context, name string, list []digest.Digest) (refers map[digest.Digest][]digest.Digest, subjects map[digest.Digest]digest.Digest, err error) {
	refers, subjects = map[digest.Digest][]digest.Digest{}, map[digest.Digest]digest.Digest{}
	for _, d := range list {
		c, err := w.manifest(ctx, name, d)
		if errs.Is(err, errs.NotFound) { // deleted meanwhile
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		m, err := ParseManifest(c.Data, c.MediaType)
		if err != nil {
			return nil, nil, errs.New(errs.Corrupt, "%s@%s: %w", name, d, err)
		}
		refers[d] = m.refers()
		if m.Subject != nil {
			subjects[d] = m.Subject.Digest
		}
	}
	return refers, subjects, nil
}

// remove deletes an object unless its lease is held.
func (w *sweep) remove(ctx context.Context, key, lease string) (bool, error) {
	done, ok := w.leases.doom(lease, w.since)
	if !ok {
		return false, nil
	}
	defer done()
	return true, w.Backend.Delete(ctx, key)
}

// oldTags removes the tags of a cache that have not been asked for.
func (w *sweep) oldTags(ctx context.Context, name string, before time.Time) error {
	unlock, err := w.names.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	tags, err := w.tags(ctx, name)
	for tag, t := range tags {
		if t.Checked.Before(before) {
			w.got.Tags++
			if err := w.Backend.Delete(ctx, tagKey(name, tag)); err != nil {
				return err
			}
		}
	}
	return err
}

// untagged removes the manifests that no tag leads to and returns the others.
func (w *sweep) untagged(ctx context.Context, name string, list []digest.Digest, refers map[digest.Digest][]digest.Digest, subjects map[digest.Digest]digest.Digest) ([]digest.Digest, error) {
	// No push changes the repository's tags until they have been acted upon.
	unlock, err := w.names.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	tags, err := w.tags(ctx, name)
	if err != nil {
		return nil, err
	}
	live := liveOnes(tags, refers, subjects)
	var kept []digest.Digest
	for _, d := range list {
		if !live[d] {
			done, ok := w.leases.doom(blobLease(d), w.since)
			if ok {
				var young bool
				if young, err = w.young(ctx, manifestKey(name, d)); err == nil && !young {
					err = w.dropManifest(ctx, name, d)
				}
				done()
				if err != nil {
					return nil, err
				}
				if !young {
					w.got.Manifests++
					continue
				}
			}
		}
		kept = append(kept, d)
	}
	return kept, nil
}

// young reports whether an object has come within the time of grace.
func (w *sweep) young(ctx context.Context, key string) (bool, error) {
	o, err := w.Backend.Open(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer o.Close()
	return !o.Info().Changed.Before(w.since), nil
}

// liveOnes follows tags to manifests, indexes to their entries, and subjects back
// to what refers to them.
func liveOnes(tags map[string]Tag, refers map[digest.Digest][]digest.Digest, subjects map[digest.Digest]digest.Digest) map[digest.Digest]bool {
	about := map[digest.Digest][]digest.Digest{}
	for d, s := range subjects {
		about[s] = append(about[s], d)
	}
	live := map[digest.Digest]bool{}
	var todo []digest.Digest
	for _, t := range tags {
		todo = append(todo, t.Digest)
	}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if live[d] {
			continue
		}
		live[d] = true
		todo = append(append(todo, refers[d]...), about[d]...)
	}
	return live
}

// leave takes a repository that has nothing from the catalog.
func (w *sweep) leave(ctx context.Context, name string) error {
	tags, err := w.tags(ctx, name)
	if err != nil || len(tags) > 0 {
		return err
	}
	young, err := w.young(ctx, catalogKey(name))
	if err != nil || young {
		return err
	}
	gone, err := w.remove(ctx, catalogKey(name), repoLease(name))
	if gone {
		w.got.Repositories++
	}
	return err
}

// blobs removes the bytes that no repository has.
func (w *sweep) blobs(ctx context.Context) error {
	return w.List(ctx, "blobs/", func(i storage.Info) error {
		d, ok := blobDigest(i.Key)
		if !ok || !i.Changed.Before(w.since) {
			return nil
		}
		if _, ok := w.used[d]; ok {
			return nil
		}
		gone, err := w.remove(ctx, i.Key, blobLease(d))
		if gone && err == nil {
			w.got.Blobs++
			w.got.Bytes += i.Size
		}
		return err
	})
}
