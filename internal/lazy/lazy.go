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
//	Wait  ◀── file <dir>/N.filled ───  that blob is complete
//	takes the blob in as any layer, and unpacks it
//	      ◀── file <dir>/filled ─────  all blobs are complete
//	records the image; Settle makes N/fs a link to that layer
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
	"io"
	"time"

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
	Eager  time.Duration   // what can be here as a whole in that time is not shown
	Memo   json.RawMessage // what the daemon wants to remember besides
}

// A Source reads parts of layers' blobs, from wherever they are.
type Source interface {
	// OpenBlob returns n bytes of the blob from off on. They need not be right.
	OpenBlob(ctx context.Context, l Layer, off, n int64) (io.ReadCloser, error)
}

// What is fetched as a whole faster than by parts.
const (
	// EagerSize is that of images that are not worth it, in bytes of blobs.
	EagerSize = 16 << 20
	// EagerTime is that in which images are better waited for.
	EagerTime = time.Second

	eagerSpeed = 150 << 20 // bytes of blobs that are unpacked in a second
	sampleSize = 8 << 20   // what is fetched to know how fast the registry is,
	sampleTime = 250 * time.Millisecond
)

// eagerEnd estimates how long it takes until all bytes are here and unpacked, if so
// many came in a time. Pure.
func eagerEnd(total, sample int64, took time.Duration) time.Duration {
	fetch := took.Seconds() * float64(max(total-sample, 0)) / float64(max(sample, 1))
	all := fetch + float64(total)/eagerSpeed
	return time.Duration(min(all, 1e6) * float64(time.Second))
}
