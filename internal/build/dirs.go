package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/util/progress"
	"github.com/tonistiigi/fsutil"

	"gantry/internal/wire"
)

// A directory of a client is mostly what it was when it was sent last. BuildKit
// finds that out file by file; a client of ours is asked for a checksum, and if the
// cache has what was sent with this checksum, that is it. What is in the cache never
// changes: a transfer that does not begin with nothing takes it out first. So the
// checksum, which is with it in BuildKit's books, is right as long as it is there.
//
// It says as much as BuildKit compares, and more, so a build is told no more than it
// is by BuildKit: a client that knows the name of another's directory and what all
// its files look like can have them in a build.

// knownDirs are clients' directories, as builds read them.
type knownDirs struct {
	source.Source
	refs cache.Accessor
}

// Resolve returns one of them.
func (k knownDirs) Resolve(ctx context.Context, id source.Identifier, sessions *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	in, err := k.Source.Resolve(ctx, id, sessions, v)
	l, ok := id.(*local.LocalIdentifier)
	// The other ways to compare are for files that their metadata say too little of.
	if err != nil || !ok || l.MetadataOnly || l.Differ != fsutil.DiffMetadata {
		return in, err
	}
	return &knownDir{SourceInstance: in, id: *l, sessions: sessions, refs: k.refs}, nil
}

// knownDir is a directory of a client.
type knownDir struct {
	source.SourceInstance
	id       local.LocalIdentifier
	sessions *session.Manager
	refs     cache.Accessor
}

// Snapshot returns what is in the directory.
func (k *knownDir) Snapshot(ctx context.Context, job solver.JobContext) (cache.ImmutableRef, error) {
	id := k.id.SessionID
	if id == "" {
		id = job.Session().SessionIterator().NextSession()
	}
	c, err := k.sessions.Get(ctx, id, true)
	if err != nil || c == nil || !c.Supports(wire.ContextSum) {
		return k.SourceInstance.Snapshot(ctx, job)
	}
	began := time.Now()
	sum := k.ask(ctx, c, wire.ContextSum)
	key := dirKey(k.id.Name, k.id.SharedKeyHint, c.SharedKey(), sum)
	if ref := k.held(ctx, key); sum != "" && ref != nil {
		k.report(ctx, began, len(sum))
		return ref, nil
	}
	ref, err := k.SourceInstance.Snapshot(ctx, job)
	if err == nil && sum != "" && k.ask(ctx, c, wire.ContextSent) == sum {
		_ = ref.SetString(dirSum, key, dirIndex+key) // else it is not known by it
	}
	return ref, err
}

// Where BuildKit's books have the checksum.
const (
	dirSum   = "gantry.dir"
	dirIndex = dirSum + ":"
)

// dirKey is what a directory is known by: whose it is, as BuildKit knows it, and
// what is in it. Pure.
func dirKey(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return hex.EncodeToString(sum[:])
}

// held returns what the cache has with a key, or nil.
func (k *knownDir) held(ctx context.Context, key string) cache.ImmutableRef {
	list, err := k.refs.Search(ctx, dirIndex+key, false)
	if err != nil {
		return nil
	}
	for _, m := range list {
		ref, err := k.refs.Get(ctx, m.ID(), nil)
		if err != nil {
			continue // gone meanwhile
		}
		if ref.GetString(dirSum) == key {
			return ref
		}
		_ = ref.Release(context.WithoutCancel(ctx)) // the next one may be it
	}
	return nil
}

// ask asks a session for a checksum; a session that has none says nothing.
func (k *knownDir) ask(ctx context.Context, c session.Caller, method string) string {
	q, err := json.Marshal(wire.ContextAsk{Name: k.id.Name, Include: k.id.IncludePatterns, Exclude: k.id.ExcludePatterns, Follow: k.id.FollowPaths})
	if err != nil {
		return ""
	}
	var out filesync.BytesMessage
	if err := c.Conn().Invoke(c.Context(ctx), method, &filesync.BytesMessage{Data: q}, &out); err != nil {
		return "" // what is wrong is said when it is sent
	}
	return string(out.Data)
}

// report shows that there was nothing to send.
func (k *knownDir) report(ctx context.Context, began time.Time, bytes int) {
	now := time.Now()
	w, _, _ := progress.NewFromContext(ctx)
	_ = w.Write("transferring "+k.id.Name+":", progress.Status{Action: "transferring", Current: bytes, Started: &began, Completed: &now})
	_ = w.Close() // both are to be seen, no more
}
