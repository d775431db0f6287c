package content

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// fetchPrefix begins the names of ingests that can be continued, also by
// another process, and of the leases that keep them and what became of them.
const fetchPrefix = "fetch-"

// partialTime is how long a part of a blob waits for somebody to continue.
const partialTime = 24 * time.Hour

// fetchLease is the id of the lease that keeps a blob which is being fetched.
func fetchLease(d digest.Digest) string {
	return fetchPrefix + d.Algorithm().String() + "-" + d.Encoded()
}

// An Intake takes blobs of registries into a store, and notes which registry has
// them.
type Intake struct{ s *Store }

// NewIntake returns the intake of a store.
func NewIntake(s *Store) *Intake { return &Intake{s} }

// An Ingest is a blob that arrives bit by bit. What has arrived outlives Close,
// a crash of the process, and the hold of whoever began it.
type Ingest struct {
	store *Store
	w     blobs.Writer
	desc  ocispec.Descriptor
	ctx   context.Context // with its lease
	n     int64
}

// Continue begins a blob of d's digest and size, or goes on where an earlier
// Ingest of it has ended. Only one may be open for a digest: errs.Unavailable
// otherwise. errs.Conflict if the blob is complete.
func (in *Intake) Continue(ctx context.Context, d ocispec.Descriptor) (*Ingest, error) {
	s := in.s
	if err := d.Digest.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "digest %q: %w", d.Digest, err)
	}
	ctx = Namespaced(ctx)
	id := fetchLease(d.Digest)
	_, err := s.leases.Create(ctx, leases.WithID(id), leases.WithExpiration(partialTime))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, kind(err)
	}
	ctx = leases.WithLease(ctx, id)
	w, err := s.Blobs().Writer(ctx, blobs.WithRef(id), blobs.WithDescriptor(ocispec.Descriptor{Digest: d.Digest, Size: d.Size}))
	if errdefs.IsUnavailable(err) {
		return nil, errs.With(errs.Unavailable, err)
	} else if err != nil {
		return nil, kind(err)
	}
	i := &Ingest{store: s, w: w, desc: d, ctx: ctx}
	st, err := w.Status()
	if err != nil {
		return nil, errors.Join(kind(err), w.Close())
	}
	if i.n = st.Offset; i.n > d.Size {
		if err := i.Reset(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return i, nil
}

// Offset is how much has arrived, in bytes.
func (i *Ingest) Offset() int64 { return i.n }

// Write appends to the blob. More than its size is errs.Invalid.
func (i *Ingest) Write(p []byte) (int, error) {
	if int64(len(p)) > i.desc.Size-i.n {
		return 0, errs.New(errs.Invalid, "%s has more than the %d bytes it shall have", i.desc.Digest, i.desc.Size)
	}
	n, err := patient{i.w, i.store, i.ctx}.Write(p)
	i.n += int64(n)
	return n, err
}

// Reset throws away what has arrived.
func (i *Ingest) Reset() error {
	i.n = 0
	return kind(i.w.Truncate(0))
}

// Commit makes the blob one of the store, on disk. If it does not have its size
// and digest it is thrown away: errs.Invalid. The blob is kept for a day, so
// that the caller's hold, or another process, can take it over.
func (i *Ingest) Commit() error {
	if i.n != i.desc.Size {
		return errs.New(errs.Invalid, "%s has %d bytes, not %d", i.desc.Digest, i.n, i.desc.Size)
	}
	err := i.w.Commit(i.ctx, i.desc.Size, i.desc.Digest)
	switch {
	case err == nil, errdefs.IsAlreadyExists(err):
		return nil
	case errdefs.IsFailedPrecondition(err):
		return errors.Join(errs.New(errs.Invalid, "content of %s has another digest", i.desc.Digest), (&Intake{i.store}).Forget(i.ctx, i.desc.Digest))
	}
	return kind(err)
}

// Close ends the writing; what has arrived stays to be continued.
func (i *Ingest) Close() error { return kind(i.w.Close()) }

// Forget throws away the parts of blobs that have arrived, and lets go of those
// that Commit has completed: they stay as long as something else keeps them.
func (in *Intake) Forget(ctx context.Context, list ...digest.Digest) error {
	s := in.s
	ctx = Namespaced(ctx)
	var all []error
	for _, d := range list {
		id := fetchLease(d)
		if err := s.Blobs().Abort(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			all = append(all, kind(err))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.Join(append(all, s.Ledger.Atomic(ctx, func(ctx context.Context) error {
		for _, d := range list {
			if err := s.leases.Delete(ctx, leases.Lease{ID: fetchLease(d)}); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	}))...)
}

// Expect prepares for blobs that will come by Continue, and be forgotten by Forget:
// what each of those would write alone is one transaction.
func (in *Intake) Expect(ctx context.Context, list ...digest.Digest) error {
	s := in.s
	if len(list) == 0 {
		return nil
	}
	return s.Atomic(ctx, func(ctx context.Context) error {
		for _, d := range list {
			_, err := s.leases.Create(ctx, leases.WithID(fetchLease(d)), leases.WithExpiration(partialTime))
			if err != nil && !errdefs.IsAlreadyExists(err) {
				return err
			}
		}
		return nil
	})
}

// Reserve adds blobs, which need not exist yet, to the hold of ctx: from when
// they exist, they stay.
func (in *Intake) Reserve(ctx context.Context, list ...digest.Digest) error {
	s := in.s
	hold, ok := leases.FromContext(ctx)
	if !ok {
		return errs.New(errs.Unknown, "reserve: the context holds nothing")
	}
	return s.Atomic(ctx, func(ctx context.Context) error {
		for _, d := range list {
			if err := s.leases.AddResource(ctx, leases.Lease{ID: hold}, leases.Resource{ID: d.String(), Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropIngests removes the half-written blobs of a process that is no more from
// their directory, except those that can be continued. Each is a directory with
// its name in the file ref, the part after the last slash being ours.
func dropIngests(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		ref, rerr := os.ReadFile(filepath.Join(path, "ref"))
		if rerr == nil && strings.Contains(string(ref), "/"+fetchPrefix) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// sourcePrefix begins the label by which a blob tells in which repositories of a
// registry it is known to be, as containerd's clients write it.
const sourcePrefix = "containerd.io/distribution.source."

// maxSources is how many repositories of a registry are remembered for a blob.
const maxSources = 8

// originLabel is the label by which an image tells in which repositories it is known
// to be, each with its registry.
const originLabel = "gantry.origins"

// An Origin is a repository that blobs came from or went to.
type Origin struct {
	Name string // with the registry's host and port
	Host string // of the registry, without the port
	Path string // in the registry
}

// AddSource notes that a registry has a blob in a repository, so that a push to
// another one there need not send it.
func (in *Intake) AddSource(ctx context.Context, d digest.Digest, host, repository string) error {
	return in.addFirst(ctx, []mark{{d, sourcePrefix + host, repository}})
}

// AddOrigin notes that a repository has an image, and that it has blobs of it, as
// AddSource does, all in one transaction.
func (in *Intake) AddOrigin(ctx context.Context, image digest.Digest, o Origin, list ...digest.Digest) error {
	marks := []mark{{image, originLabel, o.Name}}
	for _, d := range list {
		marks = append(marks, mark{d, sourcePrefix + o.Host, o.Path})
	}
	return in.addFirst(ctx, marks)
}

// Origins returns what AddOrigin has noted of an image, the last first.
func (in *Intake) Origins(ctx context.Context, image digest.Digest) ([]string, error) {
	info, err := in.s.Blobs().Info(Namespaced(ctx), image)
	if err != nil || info.Labels[originLabel] == "" {
		return nil, kind(err)
	}
	return strings.Split(info.Labels[originLabel], ","), nil
}

// A mark is something to note in a label, which is a list, of a blob.
type mark struct {
	blob       digest.Digest
	key, value string
}

// addFirst notes what is not noted yet, of blobs that are here.
func (in *Intake) addFirst(ctx context.Context, marks []mark) error {
	s := in.s
	ctx = Namespaced(ctx)
	var news []blobs.Info
	var fields []string
	for _, m := range marks {
		info, err := s.Blobs().Info(ctx, m.blob)
		if errdefs.IsNotFound(err) {
			continue
		} else if err != nil {
			return kind(err)
		}
		if value, changed := withFirst(info.Labels[m.key], m); changed {
			news = append(news, blobs.Info{Digest: m.blob, Labels: map[string]string{m.key: value}})
			fields = append(fields, "labels."+m.key)
		}
	}
	if len(news) == 0 {
		return nil
	}
	return s.Ledger.Atomic(ctx, func(ctx context.Context) error {
		for i, info := range news {
			if _, err := s.Blobs().Update(ctx, info, fields[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// withFirst returns a list with what m notes before the others, of which not too many
// are kept; false if it is in the list. Pure.
func withFirst(list string, m mark) (string, bool) {
	all := []string{m.value}
	for r := range strings.SplitSeq(list, ",") {
		if r == m.value {
			return list, false
		}
		if r != "" {
			all = append(all, r)
		}
	}
	value := strings.Join(all[:min(len(all), maxSources)], ",")
	if len(m.key)+len(value) > 4000 { // a label's limit is 4096
		value = m.value
	}
	return value, true
}

// Sources returns the labels that AddSource has written for a blob.
func (in *Intake) Sources(ctx context.Context, d digest.Digest) (map[string]string, error) {
	s := in.s
	info, err := s.Blobs().Info(Namespaced(ctx), d)
	if err != nil {
		return nil, kind(err)
	}
	out := map[string]string{}
	for k, v := range info.Labels {
		if strings.HasPrefix(k, sourcePrefix) {
			out[k] = v
		}
	}
	return out, nil
}
