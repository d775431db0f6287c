package execute

import (
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/launch"
	"gantry/internal/launch/rootfs"
	"gantry/internal/rootpath"
)

// ours are the places where every container has something mounted.
var ours = [...]string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// A stub is a file or directory that is made only to be mounted over: dir is the
// directory it is in, as the root has it, without links.
type stub struct{ dir, name string }

// stubs looks for the places of a step's mounts that its root lacks. The runtime
// makes them, and the function returned removes them again if they are still
// empty, so that they do not become part of a layer. above says that the
// directories above count too.
//
// Nothing is removed by path: the directory that holds a stub is found by
// descriptor in what the step has written, and no link on the way is followed.
func stubs(in launch.Input, above bool) func() {
	if in.Root == nil {
		return func() {}
	}
	view, err := rootfs.Open(in.Root.Upper, in.Lower)
	if err != nil {
		return func() {} // the launch says what is wrong
	}
	defer view.Close()
	targets := slices.Clone(ours[:])
	for _, m := range in.Plan.Mounts {
		targets = append(targets, m.Target)
	}
	var list []stub
	times := map[string]unix.Timespec{}
	for _, t := range targets {
		first := len(list)
		for t != "/" && view.Missing(t) {
			s := stub{path.Dir(t), path.Base(t)}
			dir, was, ok := view.Resolve(s.dir)
			if ok { // those below it are there too, whatever links led to it
				for i := first; i < len(list); i++ {
					list[i].dir = path.Join(dir, strings.TrimPrefix(list[i].dir, s.dir))
				}
				s.dir, times[dir] = dir, was
			}
			list = append(list, s)
			if ok || !above {
				break
			}
			t = path.Dir(t)
		}
	}
	if len(list) == 0 {
		return func() {}
	}
	return func() { removeStubs(in.Root.Upper, list, times) }
}

// removeStubs removes what is empty of list below root. What can't be removed
// stays: it does no harm. times are those of directories before.
func removeStubs(dir string, list []stub, times map[string]unix.Timespec) {
	root, err := rootpath.Open(dir)
	if err != nil {
		return
	}
	defer root.Close()
	for len(list) > 0 {
		in, n := list[0].dir, 0
		for _, s := range list {
			if s.dir == in {
				list[n], n = s, n+1
			}
		}
		together := slices.Clone(list[:n])
		list = slices.DeleteFunc(list, func(s stub) bool { return s.dir == in })
		_ = removeFrom(root, in, together, times)
	}
}

// removeFrom removes stubs from one directory, which then looks as if they had
// never been there.
func removeFrom(root *rootpath.Root, dir string, list []stub, times map[string]unix.Timespec) error {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	name := strings.TrimPrefix(dir, "/")
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat2(root.Fd(), name, &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var above unix.Stat_t
	if err := unix.Fstat(fd, &above); err != nil {
		return err
	}
	var made int64 // when the last of them was made
	gone := 0
	for _, s := range list {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, s.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue
		}
		err := os.ErrExist
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = unix.Unlinkat(fd, s.name, unix.AT_REMOVEDIR)
		case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
			err = unix.Unlinkat(fd, s.name, 0)
		}
		if err == nil {
			made, gone = max(made, st.Ctim.Nano()), gone+1
		}
	}
	if gone == 0 {
		return nil
	}
	mtime := above.Mtim
	if was, ok := times[dir]; ok && above.Mtim.Nano() <= made {
		mtime = was // nothing else was made there
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{above.Atim, mtime}, unix.AT_EMPTY_PATH)
}
