package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/buildkit/cache/metadata"

	"gantry/internal/content"
	"gantry/internal/durable"
)

// BuildKit's books on the cache are not flushed at every change, which were
// hundreds of times in a build. They are safe from the end of this process, since
// the kernel has what was written, but a power cut may leave them torn, and files
// of steps unwritten that they tell of. So a mark is on disk as long as they are
// open: the boot that it was made in. Where it is found in another boot, the cache
// is given up, and nothing else: images, and the layers that they have adopted,
// are flushed before the stores record them.

// openMark is the file that is there while the books are open.
const openMark = "open"

// torn decides whether the books can't be trusted: mark is what the last to open
// them has left, empty if it has closed them. Pure.
func torn(mark, boot string) bool { return mark != "" && (boot == "" || mark != boot) }

// markOpen notes that the books in dir are about to be open. It reports whether
// they can't be trusted.
func markOpen(dir string) (bool, error) {
	mark, err := os.ReadFile(filepath.Join(dir, openMark))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	boot, err := durable.Boot()
	if err != nil {
		return false, err
	}
	bad := torn(strings.TrimSpace(string(mark)), boot)
	if bad {
		return true, nil // marked until they are dropped
	}
	return false, durable.WriteFile(filepath.Join(dir, openMark), []byte(boot+"\n"), 0o600)
}

// markClosed notes that the books in dir, and the files of steps, are on disk.
func markClosed(dir string) error {
	if err := content.Flush(dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, openMark)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// checkBooks makes the books in dir ready to be opened: those that a power cut may
// have torn are dropped, with what they kept in the stores.
func checkBooks(ctx context.Context, dir string, s *content.Store) error {
	bad, err := markOpen(dir)
	if err != nil || !bad {
		return err
	}
	list, err := s.Ledger.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range list {
		if ofCache(l) {
			if err := s.Ledger.Delete(ctx, l); err != nil {
				return err
			}
		}
	}
	if err := s.Collect(ctx); err != nil {
		return err
	}
	for _, name := range []string{"metadata.db", "cache.db", openMark} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_, err = markOpen(dir)
	return err
}

// ofCache tells whether a lease is one of BuildKit's cache. Those of its history,
// and ours, have no such label. Pure.
func ofCache(l leases.Lease) bool {
	_, flat := l.Labels["containerd.io/gc.flat"]
	_, temporary := l.Labels["buildkit/lease.temporary"]
	return flat || temporary || strings.HasSuffix(l.ID, "-variants")
}

// openBooks opens what BuildKit knows of the files of its cache.
func openBooks(dir string) (*metadata.Store, error) {
	books, err := metadata.NewStore(filepath.Join(dir, "metadata.db"))
	if err != nil {
		return nil, err
	}
	// Within a change nobody else reads it.
	return books, books.DB().Update(content.Unflushed)
}
