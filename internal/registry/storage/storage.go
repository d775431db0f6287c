// Package storage keeps the objects of the registry server: bytes under a key,
// on a file system (Local) or in a bucket of an S3-compatible service
// (storage/s3).
//
// Package repo calls it and gives keys their meaning. It writes what it is told
// to, durably, and must not know repositories, manifests or HTTP.
//
// Keys are paths of printable ASCII without empty parts, "." and "..". An object
// is there whole or not at all, whatever ends the process.
package storage

import (
	"context"
	"io"
	"strings"
	"time"

	"gantry/internal/errs"
)

// An Info tells of one object.
type Info struct {
	Key     string
	Size    int64
	Changed time.Time
}

// An Object is an open object. Reading begins at its start.
type Object interface {
	io.ReadSeekCloser
	// Info tells of the object.
	Info() Info
}

// A Backend keeps objects. It is safe for concurrent use.
type Backend interface {
	// Open opens an object: errs.NotFound if it does not exist.
	Open(ctx context.Context, key string) (Object, error)
	// Put makes or replaces a small object. When it returns nil the object is
	// durable.
	Put(ctx context.Context, key string, data []byte) error
	// Take makes an object of a file of this machine, which is gone afterwards.
	// When it returns nil the object is durable.
	Take(ctx context.Context, key, file string) error
	// Delete removes an object; one that does not exist is no error.
	Delete(ctx context.Context, key string) error
	// List tells of every object whose key begins with prefix, which ends with a
	// slash, in any order, until told not to. Objects made or deleted meanwhile
	// may or may not be among them.
	List(ctx context.Context, prefix string, tell func(Info) error) error
}

// Recover removes what a process that has ended left half done in a backend, if
// that has such things. Nobody else may be using it.
func Recover(ctx context.Context, b Backend) error {
	if r, ok := b.(interface{ Recover(context.Context) error }); ok {
		return r.Recover(ctx)
	}
	return nil
}

// CheckKey finds what is wrong with a key.
func CheckKey(key string) error {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." || strings.HasPrefix(part, ".tmp-") || len(part) > 255 {
			return errs.New(errs.Invalid, "bad key %q", key)
		}
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' || c == '\\' {
			return errs.New(errs.Invalid, "bad key %q", key)
		}
	}
	return nil
}

// Read returns the content of an object, at most limit bytes: a longer one is
// errs.Corrupt.
func Read(ctx context.Context, b Backend, key string, limit int64) ([]byte, error) {
	o, err := b.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if n := o.Info().Size; n > limit {
		return nil, errs.New(errs.Corrupt, "%s has %d bytes, more than %d", key, n, limit)
	}
	return io.ReadAll(io.LimitReader(o, limit))
}
