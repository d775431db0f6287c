package rootpath

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one lookup follows, the kernel's number.
const maxLinks = 40

// A walker resolves a path component by component, holding a descriptor of
// every directory from the root to where it is:
//
//	stack   root ─ a ─ b ─ c      todo   "..", "link", "x"
//
// ".." drops the last descriptor instead of asking the kernel, so a directory
// that is moved away meanwhile can't lead out; a link's text is put in front of
// todo, and an absolute one empties the stack down to the root. No descriptor
// is ever opened through a link (O_NOFOLLOW).
type walker struct {
	root int
	// mkdir makes missing directories with perm. makeLeaf makes the last
	// component, if missing, an empty file with leafPerm.
	mkdir    bool
	perm     uint32
	makeLeaf bool
	leafPerm uint32

	stack []int
	todo  []string
	links int
}

func (w *walker) open(name string, flags int, perm uint32) (int, error) {
	if name == "" {
		return -1, unix.ENOENT
	}
	defer w.drop(0)
	w.push(name)
	for len(w.todo) > 0 {
		part := w.todo[0]
		w.todo = w.todo[1:]
		last := len(w.todo) == 0
		switch part {
		case "", ".":
			continue
		case "..":
			w.drop(max(len(w.stack)-1, 0))
			continue
		}
		if last && flags&unix.O_PATH == 0 {
			fd, again, err := w.leaf(part, flags, perm)
			if again && err == nil {
				continue
			}
			return fd, err
		}
		if err := w.step(part, last, last && flags&unix.O_NOFOLLOW != 0); err != nil {
			return -1, err
		}
	}
	return w.reopen(flags, perm)
}

// push puts a path in front of what is still to be walked.
func (w *walker) push(name string) {
	if strings.HasPrefix(name, "/") {
		w.drop(0)
	}
	parts := strings.Split(strings.TrimLeft(name, "/"), "/")
	// A trailing slash means a directory, which the steps find out anyway.
	for len(parts) > 1 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	w.todo = append(parts, w.todo...)
}

// drop closes all but the first n descriptors of the stack.
func (w *walker) drop(n int) {
	for _, fd := range w.stack[n:] {
		unix.Close(fd)
	}
	w.stack = w.stack[:n]
}

func (w *walker) cur() int {
	if len(w.stack) == 0 {
		return w.root
	}
	return w.stack[len(w.stack)-1]
}

// step goes into one component, making it if that is wanted.
func (w *walker) step(part string, last, keepLink bool) error {
	const how = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	open := func() (int, error) {
		return retry(func() (int, error) { return unix.Openat(w.cur(), part, how, 0) })
	}
	fd, err := open()
	if err == unix.ENOENT && w.mkdir {
		if err = w.make(part, last); err == nil || err == unix.EEXIST {
			fd, err = open()
		}
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK && !keepLink:
		defer unix.Close(fd)
		return w.follow(fd)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR && !last:
		unix.Close(fd)
		return unix.ENOTDIR
	}
	w.stack = append(w.stack, fd)
	return nil
}

func (w *walker) make(part string, last bool) error {
	if last && w.makeLeaf {
		fd, err := retry(func() (int, error) {
			return unix.Openat(w.cur(), part, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, w.leafPerm)
		})
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	perm := w.perm
	if last && w.leafPerm != 0 {
		perm = w.leafPerm
	}
	return unix.Mkdirat(w.cur(), part, perm)
}

// follow puts a link's text in place of the link.
func (w *walker) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(link, &fs); err != nil {
		return err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", buf)
	if err != nil {
		return err
	}
	text := string(buf[:n])
	// A magic link's text is not a path in this root. The plain links of
	// procfs (self, mounts, net) are relative.
	if fs.Type == unix.PROC_SUPER_MAGIC && (strings.HasPrefix(text, "/") || strings.Contains(text, ":[")) {
		return unix.ELOOP
	}
	if text == "" {
		return unix.ENOENT
	}
	w.push(text)
	return nil
}

// leaf opens the last component for reading, writing or creating, without
// following it; if it turns out to be a link it is followed by hand (again).
func (w *walker) leaf(part string, flags int, perm uint32) (fd int, again bool, err error) {
	fd, err = retry(func() (int, error) { return unix.Openat(w.cur(), part, flags|unix.O_NOFOLLOW, perm) })
	if err != unix.ELOOP && err != unix.ENOTDIR || flags&unix.O_NOFOLLOW != 0 || flags&unix.O_EXCL != 0 {
		return fd, false, err
	}
	link, lerr := retry(func() (int, error) {
		return unix.Openat(w.cur(), part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if lerr != nil {
		return -1, false, lerr
	}
	defer unix.Close(link)
	var st unix.Stat_t
	if serr := unix.Fstat(link, &st); serr != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return -1, false, err
	}
	return -1, true, w.follow(link)
}

// reopen gives the caller its own descriptor of where the walk ended.
func (w *walker) reopen(flags int, perm uint32) (int, error) {
	if flags&unix.O_PATH == 0 {
		// The path ended in "." or "..", so this is a directory.
		return retry(func() (int, error) { return unix.Openat(w.cur(), ".", flags, perm) })
	}
	if len(w.stack) == 0 {
		return retry(func() (int, error) { return unix.Openat(w.root, ".", flags, 0) })
	}
	fd := w.cur()
	if flags&unix.O_DIRECTORY != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return -1, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return -1, unix.ENOTDIR
		}
	}
	w.stack = w.stack[:len(w.stack)-1]
	return fd, nil
}
