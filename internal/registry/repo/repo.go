// Package repo owns the repositories of the registry server: blobs by digest,
// which of them each repository has, manifests, tags, referrers, uploads that
// are under way, and the collector of what nothing refers to any more.
//
// Package registry calls it for its clients, who are allowed what they ask for.
// It writes objects of package storage, and uploads into a directory of this
// machine. It must not know HTTP, users or other registries.
//
// # What is where
//
//	blobs/<algorithm>/<2 digits>/<hex>         the bytes, whoever has them
//	repos/<name>/layers/<digest>               the repository has this blob
//	repos/<name>/manifests/<digest>            … and this manifest, of a media type
//	repos/<name>/tags/<tag>                    what a tag means
//	repos/<name>/referrers/<digest>/<digest>   who refers to a manifest by its subject
//	catalog/<name>                             there is such a repository
//
// A <name> there has + for /. Everything is read from there for each request, so
// what one repository has is never seen through another. A write begins with what
// is referred to and ends with what refers to it: a crash leaves objects that
// nobody uses, never a reference to what is not there.
package repo

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/keyed"
	"gantry/internal/registry/storage"
)

// Code is the code of an error of the OCI distribution-spec.
type Code string

// The codes.
const (
	BlobUnknown         Code = "BLOB_UNKNOWN"
	BlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	BlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	DigestInvalid       Code = "DIGEST_INVALID"
	ManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	ManifestInvalid     Code = "MANIFEST_INVALID"
	ManifestUnknown     Code = "MANIFEST_UNKNOWN"
	NameInvalid         Code = "NAME_INVALID"
	NameUnknown         Code = "NAME_UNKNOWN"
	RangeInvalid        Code = "RANGE_INVALID"
	SizeInvalid         Code = "SIZE_INVALID"
	TagInvalid          Code = "TAG_INVALID"
	Denied              Code = "DENIED"
	Unauthorized        Code = "UNAUTHORIZED"
	Unsupported         Code = "UNSUPPORTED"
	TooManyRequests     Code = "TOOMANYREQUESTS"
	Unavailable         Code = "UNAVAILABLE"
)

// A Fault is an error that a client is told of by its code.
type Fault struct {
	Code   Code
	Text   string
	Detail any
}

func (f *Fault) Error() string { return f.Text }

// NewFault returns an error of a kind with a code.
func NewFault(k errs.Kind, c Code, format string, args ...any) error {
	return errs.With(k, &Fault{Code: c, Text: fmt.Sprintf(format, args...)})
}

// Limits of what clients may send, in bytes.
const (
	MaxManifest = 4 << 20
	maxRecord   = 64 << 10
	maxName     = 255
)

// Options say where repositories are.
type Options struct {
	Backend storage.Backend
	Spool   string        // directory of uploads, on the file system of a storage.Local
	Grace   time.Duration // how long what nobody refers to is kept: what a push has sent, or found here
	MaxBlob int64         // bytes; 0 for no bound
	// Sparse allows an index of manifests that the repository does not have.
	Sparse bool
	Log    *slog.Logger
}

// A Store is the repositories. It is safe for concurrent use.
type Store struct {
	Options
	*Uploads
	*Collector
	objects
	leases *leases
	names  keyed.Mutex[string] // held while manifests and tags of a repository change
	lock   *durable.Lock
}

// Open opens the repositories. Only one process may use a spool at a time:
// errs.Conflict otherwise.
func Open(o Options) (*Store, error) {
	lock, err := durable.LockDir(o.Spool)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{Options: o, objects: objects{o.Backend}, leases: newLeases(), lock: lock}
	s.Uploads = newUploads(s)
	s.Collector = &Collector{s: s}
	return s, nil
}

// Recover removes what a server that was killed has left: half-written objects,
// uploads that can't go on, and those that nothing has arrived for within life.
// It is called before the first request.
func (s *Store) Recover(ctx context.Context, life time.Duration) error {
	if err := storage.Recover(ctx, s.Backend); err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	_, err := s.purge(ctx, time.Now().Add(-life))
	return err
}

// Close lets go of the spool. Nothing may be using the repositories.
func (s *Store) Close() error { return s.lock.Close() }

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// CheckName finds what is wrong with the name of a repository.
func CheckName(name string) error {
	if len(name) > maxName || !nameForm.MatchString(name) {
		return NewFault(errs.Invalid, NameInvalid, "invalid repository name")
	}
	return nil
}

// IsTag reports whether a reference has the form of a tag.
func IsTag(ref string) bool { return tagForm.MatchString(ref) }

// ParseDigest reads a digest of an algorithm that this registry has: sha256,
// sha384 or sha512.
func ParseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", NewFault(errs.Invalid, DigestInvalid, "invalid digest: %v", err)
	}
	return d, nil
}

func flat(name string) string                      { return strings.ReplaceAll(name, "/", "+") }
func unflat(key string) string                     { return strings.ReplaceAll(key, "+", "/") }
func encode(d digest.Digest) string                { return strings.Replace(d.String(), ":", "-", 1) }
func catalogKey(name string) string                { return "catalog/" + flat(name) }
func part(name, what string) string                { return "repos/" + flat(name) + "/" + what + "/" }
func tagKey(name, tag string) string               { return part(name, "tags") + tag }
func base(key string) string                       { return key[strings.LastIndexByte(key, '/')+1:] }
func repoLease(name string) string                 { return "repository " + name }
func blobLease(d digest.Digest) string             { return d.String() }
func layerKey(n string, d digest.Digest) string    { return part(n, "layers") + encode(d) }
func manifestKey(n string, d digest.Digest) string { return part(n, "manifests") + encode(d) }

func referrersPrefix(n string, d digest.Digest) string {
	return part(n, "referrers") + encode(d) + "/"
}

func blobKey(d digest.Digest) string {
	hex := d.Encoded()
	return "blobs/" + d.Algorithm().String() + "/" + hex[:2] + "/" + hex
}

// decode reads the last part of a key that encode made.
func decode(key string) (digest.Digest, bool) {
	d := digest.Digest(strings.Replace(base(key), "-", ":", 1))
	return d, d.Validate() == nil
}

// blobDigest reads a key that blobKey made.
func blobDigest(key string) (digest.Digest, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return "", false
	}
	d := digest.Digest(parts[1] + ":" + parts[3])
	return d, d.Validate() == nil
}

// objects reads and writes small objects.
type objects struct{ b storage.Backend }

// exists reports whether there is an object.
func (s objects) exists(ctx context.Context, key string) (bool, error) {
	o, err := s.b.Open(ctx, key)
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, o.Close()
}

// record reads a small JSON object.
func (s objects) record(ctx context.Context, key string, v any) error {
	data, err := storage.Read(ctx, s.b, key, maxRecord)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errs.New(errs.Corrupt, "%s: %w", key, err)
	}
	return nil
}

// save writes a small JSON object.
func (s objects) save(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.b.Put(ctx, key, data)
}

// enter makes sure that a repository, whose lease is held, is in the catalog.
func (s *Store) enter(ctx context.Context, name string) error {
	if ok, err := s.exists(ctx, catalogKey(name)); ok || err != nil {
		return err
	}
	return s.Backend.Put(ctx, catalogKey(name), []byte("{}"))
}
