package archive

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage adds up the disk space in bytes of all files below dir, a directory of
// the host, each file once. What can't be read, or vanishes meanwhile, counts
// nothing.
func Usage(ctx context.Context, dir string) int64 {
	return total(ctx, dir, nil)
}

// UpperUsage is Usage of the writable directory of a container, without what an
// engine has put there to mount over.
func UpperUsage(ctx context.Context, dir string) int64 {
	return total(ctx, dir, stubs[:])
}

func total(ctx context.Context, dir string, stubs []string) int64 {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return 0
	}
	u := usage{ctx: ctx, seen: map[inode]bool{}, stubs: stubs, total: st.Blocks * 512}
	u.dir(fd, "")
	return u.total
}

type usage struct {
	ctx   context.Context
	seen  map[inode]bool
	stubs []string // paths that count nothing while they are empty
	total int64
}

// dir adds what is in the open directory fd, and closes it. It reports whether
// there is nothing but stubs.
func (u *usage) dir(fd int, path string) (bare bool) {
	defer unix.Close(fd)
	names, err := listDir(fd)
	if err != nil || strings.Count(path, "/") > maxDepth || u.ctx.Err() != nil {
		return false
	}
	bare = true
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		below := path + "/" + name
		stub := slices.Contains(u.stubs, below)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			empty := false
			if sub, err := unix.Openat(fd, name, dirFlags, 0); err == nil {
				empty = u.dir(sub, below)
			}
			// /etc is no stub, but made for those in it.
			stub = empty && (stub || below == "/etc" && u.stubs != nil)
		} else {
			stub = stub && st.Size == 0
			if key := (inode{st.Dev, st.Ino}); st.Nlink > 1 {
				if u.seen[key] {
					continue
				}
				u.seen[key] = true
			}
		}
		if !stub {
			bare = false
			u.total += st.Blocks * 512
		}
	}
	return bare
}
