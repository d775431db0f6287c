package vm

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// An archive writes the "newc" cpio format that the kernel unpacks as its first
// root (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w    io.Writer
	n    int64
	ino  int
	dirs map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive { return &archive{w: w, dirs: map[string]bool{"/": true}} }

func (a *archive) entry(name string, mode uint32, size int64, body io.Reader) {
	if a.err != nil {
		return
	}
	a.ino++
	name = strings.TrimPrefix(name, "/")
	a.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	if body != nil && a.err == nil {
		n, err := io.Copy(a.w, body)
		a.n += n
		if err == nil && n != size {
			err = fmt.Errorf("%s: %d bytes instead of %d", name, n, size)
		}
		a.err = err
	}
	a.pad()
}

func (a *archive) printf(format string, args ...any) {
	if a.err == nil {
		var n int
		n, a.err = fmt.Fprintf(a.w, format, args...)
		a.n += int64(n)
	}
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad() { a.printf("%s", "\x00\x00\x00"[:(4-a.n%4)%4]) }

func (a *archive) parents(name string) {
	dir := path.Dir(name)
	if a.dirs[dir] {
		return
	}
	a.parents(dir)
	a.dirs[dir] = true
	a.entry(dir, 0o040755, 0, nil)
}

func (a *archive) text(name, content string, perm uint32) {
	a.parents(name)
	a.entry(name, 0o100000|perm, int64(len(content)), strings.NewReader(content))
}

func (a *archive) file(name, here string) {
	a.parents(name)
	f, err := os.Open(here)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.entry(name, 0o100000|uint32(st.Mode().Perm()), st.Size(), f)
}

// tar adds the entries of a tar file. Of a hard link the content is added again,
// as cpio has it.
func (a *archive) tar(path string) {
	f, err := os.Open(path)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	content := map[string][]byte{}
	for tr := tar.NewReader(f); a.err == nil; {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			a.err = err
			return
		}
		name, perm := "/"+strings.Trim(strings.TrimPrefix(h.Name, "."), "/"), uint32(h.Mode)&0o7777
		if name == "/" || a.dirs[name] {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir:
			a.dirs[name] = true
			a.entry(name, 0o040000|perm, 0, nil)
		case tar.TypeSymlink:
			a.entry(name, 0o120777, int64(len(h.Linkname)), strings.NewReader(h.Linkname))
		case tar.TypeReg:
			data, err := io.ReadAll(tr)
			if err != nil {
				a.err = err
				return
			}
			content[strings.TrimPrefix(h.Name, "./")] = data
			a.entry(name, 0o100000|perm, h.Size, bytes.NewReader(data))
		case tar.TypeLink:
			data := content[strings.TrimPrefix(h.Linkname, "./")]
			a.entry(name, 0o100000|perm, int64(len(data)), bytes.NewReader(data))
		}
	}
}

func (a *archive) close() { a.entry("TRAILER!!!", 0, 0, nil) }
