// Package lazy lets containers start from images in eStargz form before their
// layers are here: a process of its own for each such image shows every layer as a
// read-only file system (FUSE) that fetches what is read, checked chunk by chunk
// against the digests in the layer's table of contents, whose own digest the
// manifest names. Besides, it fetches everything else in the background.
//
//	daemon                         process (Serve)                  containers
//	Start ── job on standard input ──▶ mounts <dir>/N/fs
//	      ◀── "ready" ───────────────  serves reads  ◀───────────── overlay over N/fs
//	                                   fetches <dir>/N.blob
//	Wait  ◀── file <dir>/filled ─────  all blobs are complete
//	takes the blobs in as any layer; Settle makes N/fs a link to that layer
//
// The process outlives the daemon, which finds it again by the lock it holds. It
// alone writes below <dir>, but for Settle and Remove. Nothing of it is an image or
// a layer before the daemon has taken it in like any other: a crash leaves a
// directory that the next pull replaces.
//
// The daemon's wiring calls it. It must not know the stores of images, containers,
// or how registries are asked: that is a Source. Format: eStargz of containerd's
// stargz-snapshotter, docs/estargz.md.
package lazy

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// TOCAnnotation is the annotation of a layer by which it says that it is in
// eStargz form, and the digest of its table of contents.
const TOCAnnotation = "containerd.io/snapshot/stargz/toc.digest"

// A Layer is one of an image, lowest first.
type Layer struct {
	Digest digest.Digest // of the blob
	Size   int64         // of the blob
	TOC    digest.Digest // of its table of contents
}

// A Job is an image that is to be shown.
type Job struct {
	Name   string          // full, with tag or digest
	Target digest.Digest   // of what the name means
	Layers []Layer         // lowest first
	Memo   json.RawMessage // what the daemon wants to remember besides
}

// A Source reads parts of layers' blobs, from wherever they are.
type Source interface {
	// ReadBlob fills p with the blob's bytes from off on. They need not be right.
	ReadBlob(ctx context.Context, l Layer, p []byte, off int64) error
}

// Eager is what is fetched as a whole faster than by parts: below so many bytes an
// image is not worth it.
const Eager = 16 << 20
