package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
	"gantry/internal/keyed"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/storage"
)

// A Cache is the copies of all remotes. It is safe for concurrent use.
type Cache struct {
	store   *repo.Store
	clients []*client
	tags    keyed.Flight[string, repo.Content]
	mu      sync.Mutex
	fetches map[string]*fetch
	done    sync.WaitGroup
	ctx     context.Context
	stop    context.CancelFunc
}

// NewCache returns the cache of some remotes in a store. Fetches end with ctx, at
// the latest.
func NewCache(ctx context.Context, s *repo.Store, remotes []Remote) (*Cache, error) {
	c := &Cache{store: s, fetches: map[string]*fetch{}}
	for _, r := range remotes {
		cl, err := newClient(r)
		if err != nil {
			return nil, err
		}
		c.clients = append(c.clients, cl)
	}
	c.ctx, c.stop = context.WithCancel(ctx)
	return c, nil
}

// Close ends what is being fetched.
func (c *Cache) Close() error {
	c.stop()
	c.done.Wait()
	return nil
}

// find returns the remote of a name, the one of the longest prefix, and what the
// name is there.
func (c *Cache) find(name string) (best *client, there string) {
	for _, cl := range c.clients {
		rest, ok := strings.CutPrefix(name, cl.Prefix+"/")
		if cl.Prefix == "" {
			rest, ok = name, true
		}
		if ok && (best == nil || len(cl.Prefix) > len(best.Prefix)) {
			best, there = cl, rest
		}
	}
	return best, there
}

// Has reports whether a name is a copy, and how long its tags are kept.
func (c *Cache) Has(name string) (bool, time.Duration) {
	cl, _ := c.find(name)
	if cl == nil {
		return false, 0
	}
	return true, cl.Keep
}

// Manifest returns a manifest of a copy by tag or digest. stale: the remote can't
// be asked whether the tag still means it.
func (c *Cache) Manifest(ctx context.Context, name, ref string) (m repo.Content, stale bool, err error) {
	cl, there := c.find(name)
	if d, err := digest.Parse(ref); err == nil {
		if m, err := c.store.Manifest(ctx, name, ref); err == nil {
			return m, false, nil
		}
		m, err = c.tags.Do(ctx, name+"@"+ref, func(ctx context.Context) (repo.Content, error) {
			return c.keep(ctx, cl, name, there, d.String(), repo.Push{Digest: d})
		})
		return m, false, unknown(err, name, ref)
	}
	if !repo.IsTag(ref) {
		return m, false, unknown(errs.New(errs.NotFound, "not a tag"), name, ref)
	}
	old, oldErr := c.store.TagOf(ctx, name, ref)
	if oldErr == nil && time.Since(old.Checked) < cl.TTL {
		if m, err := c.store.Manifest(ctx, name, old.Digest.String()); err == nil {
			return m, false, nil
		}
	}
	m, err = c.tags.Do(ctx, name+":"+ref, func(ctx context.Context) (repo.Content, error) {
		return c.refresh(ctx, cl, name, there, ref, old)
	})
	if errs.Is(err, errs.Unavailable) && oldErr == nil {
		if m, e := c.store.Manifest(ctx, name, old.Digest.String()); e == nil {
			return m, true, nil
		}
	}
	if errs.Is(err, errs.NotFound) && oldErr == nil {
		if e := c.store.DeleteTag(ctx, name, ref); e != nil && !errs.Is(e, errs.NotFound) {
			return m, false, e
		}
	}
	return m, false, unknown(err, name, ref)
}

// unknown is how clients hear of errors of the remote.
func unknown(err error, name, ref string) error {
	var f *repo.Fault
	switch {
	case err == nil || errors.As(err, &f):
		return err
	case errs.Is(err, errs.NotFound):
		return errs.With(errs.NotFound, &repo.Fault{Code: repo.ManifestUnknown, Text: "manifest unknown", Detail: map[string]string{"name": name, "reference": ref}})
	case errs.Is(err, errs.Unavailable):
		return repo.NewFault(errs.Unavailable, repo.Unavailable, "%v", err)
	}
	return err
}

// refresh asks the remote what a tag means now.
func (c *Cache) refresh(ctx context.Context, cl *client, name, there, tag string, old repo.Tag) (repo.Content, error) {
	now := time.Now()
	if old.Digest != "" {
		d, err := cl.head(ctx, there, tag)
		if err != nil {
			return repo.Content{}, err
		}
		if d == old.Digest {
			if m, err := c.store.Manifest(ctx, name, d.String()); err == nil {
				old.Checked = now
				return m, c.store.Retag(ctx, name, tag, old)
			}
		}
	}
	return c.keep(ctx, cl, name, there, tag, repo.Push{Tags: []string{tag}, Checked: now})
}

// keep fetches a manifest and stores it.
func (c *Cache) keep(ctx context.Context, cl *client, name, there, ref string, p repo.Push) (repo.Content, error) {
	m, err := cl.manifest(ctx, there, ref)
	if err != nil {
		return m, err
	}
	p.Name, p.ContentType, p.Data, p.Unchecked = name, m.MediaType, m.Data, true
	d, parsed, err := c.store.PutManifest(ctx, p)
	if errs.Is(err, errs.Invalid) {
		return m, errs.New(errs.Unavailable, "upstream %s: %w", cl.base.Host, errors.New(err.Error()))
	}
	if err != nil {
		return m, err
	}
	m.Digest, m.MediaType = d, parsed.MediaType
	return m, nil
}

// Stat returns the size of a blob of a copy.
func (c *Cache) Stat(ctx context.Context, name string, d digest.Digest) (int64, error) {
	if o, err := c.store.Blob(ctx, name, d); err == nil {
		defer o.Close()
		return o.Info().Size, nil
	}
	cl, there := c.find(name)
	body, size, err := cl.blob(ctx, http.MethodHead, there, d, 0)
	if err != nil {
		return 0, blobError(err, d)
	}
	return size, body.Close()
}

func blobError(err error, d digest.Digest) error {
	if errs.Is(err, errs.NotFound) {
		return errs.With(errs.NotFound, &repo.Fault{Code: repo.BlobUnknown, Text: "blob unknown to registry", Detail: map[string]string{"digest": d.String()}})
	}
	return unknown(err, "", "")
}

// Blob opens a blob of a copy. One that is being fetched can be read as far as
// it is there, and reading waits for the rest.
func (c *Cache) Blob(ctx context.Context, name string, d digest.Digest) (storage.Object, error) {
	if o, err := c.store.Blob(ctx, name, d); err == nil || !errs.Is(err, errs.NotFound) {
		return o, err
	}
	key := name + "@" + d.String()
	c.mu.Lock()
	f := c.fetches[key]
	if f == nil {
		if c.ctx.Err() != nil {
			c.mu.Unlock()
			return nil, errs.New(errs.Unavailable, "the server ends")
		}
		f = &fetch{cache: c, name: name, d: d, ready: make(chan struct{})}
		f.cond.L = &f.mu
		c.fetches[key] = f
		c.done.Go(func() {
			err := f.run(c.ctx)
			c.mu.Lock()
			delete(c.fetches, key)
			c.mu.Unlock()
			f.finish(err)
		})
	}
	c.mu.Unlock()
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return f.follow()
}

// A fetch is a blob on its way here.
type fetch struct {
	cache *Cache
	name  string
	d     digest.Digest
	id    string // of the upload
	ready chan struct{}
	once  sync.Once

	mu   sync.Mutex
	cond sync.Cond
	file *os.File // to read from; set before ready is closed, nil if it failed
	size int64
	n    int64 // bytes that may be read: the last one only when all are known to be right
	done bool
	err  error
}

// attempts is how often a fetch goes on after a cut connection.
const attempts = 5

func (f *fetch) run(ctx context.Context) (err error) {
	cl, there := f.cache.find(f.name)
	body, size, err := cl.blob(ctx, http.MethodGet, there, f.d, 0)
	if err != nil {
		return blobError(err, f.d)
	}
	store := f.cache.store
	if f.id, err = store.Begin(ctx, f.name, f.d.Algorithm()); err != nil {
		body.Close()
		return err
	}
	defer func() {
		if err != nil {
			_ = store.Cancel(context.WithoutCancel(ctx), f.name, f.id)
		}
	}()
	file, err := store.Tail(f.id)
	if err != nil {
		body.Close()
		return err
	}
	f.mu.Lock()
	f.file, f.size = file, size
	f.mu.Unlock()
	f.once.Do(func() { close(f.ready) })
	for try, at := 1, int64(0); ; try++ {
		var n int64
		n, err = store.Append(ctx, f.name, f.id, at, &progress{f: f, r: io.LimitReader(body, size-at), at: at})
		body.Close()
		if n == size {
			break
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if try == attempts || ctx.Err() != nil {
			return errs.New(errs.Unavailable, "upstream %s: %w", cl.base.Host, err)
		}
		at = n
		if body, _, err = cl.blob(ctx, http.MethodGet, there, f.d, at); err != nil {
			return err
		}
	}
	return store.Finish(ctx, f.name, f.id, size, strings.NewReader(""), f.d)
}

// finish wakes those who follow.
func (f *fetch) finish(err error) {
	f.mu.Lock()
	f.done, f.err = true, err
	if err == nil {
		f.n = f.size
	}
	f.mu.Unlock()
	f.cond.Broadcast()
	f.once.Do(func() { close(f.ready) })
	if f.file != nil {
		f.file.Close()
	}
}

// progress tells followers how much has been written: all that was read before.
type progress struct {
	f  *fetch
	r  io.Reader
	at int64
}

func (p *progress) Read(b []byte) (int, error) {
	p.f.mu.Lock()
	p.f.n = max(p.f.n, min(p.at, p.f.size-1))
	p.f.mu.Unlock()
	p.f.cond.Broadcast()
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

// follow opens what has arrived and will arrive.
func (f *fetch) follow() (storage.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		if f.err != nil {
			return nil, f.err
		}
		return f.cache.store.Blob(f.cache.ctx, f.name, f.d)
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.file.Fd()))
	if err != nil {
		return nil, err
	}
	return &follower{f: f, file: file}, nil
}

// A follower reads a blob that is on its way here.
type follower struct {
	f    *fetch
	file *os.File
	at   int64
}

// Info tells of the whole.
func (r *follower) Info() storage.Info {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return storage.Info{Size: r.f.size}
}

// Read waits for bytes.
func (r *follower) Read(p []byte) (int, error) {
	r.f.mu.Lock()
	for r.at >= r.f.n && !r.f.done {
		r.f.cond.Wait()
	}
	n, size, err := r.f.n, r.f.size, r.f.err
	r.f.mu.Unlock()
	if r.at >= size {
		return 0, io.EOF
	}
	if r.at >= n {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	got, err := r.file.ReadAt(p[:min(int64(len(p)), n-r.at)], r.at)
	r.at += int64(got)
	if got > 0 {
		err = nil
	}
	return got, err
}

// Seek sets where the next Read begins.
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.Info().Size
	}
	if offset < 0 {
		return 0, errs.New(errs.Invalid, "negative offset")
	}
	r.at = offset
	return offset, nil
}

// Close ends the reading, not the fetch.
func (r *follower) Close() error { return r.file.Close() }
