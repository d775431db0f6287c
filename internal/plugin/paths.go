package plugin

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/rootpath"
)

// Locate returns what a path that the plugin called name speaks of is on the host.
// For one that has a root of its own no link leads out of that, and f is what was
// found there (O_PATH): the plugin may put something else there at any time, so
// what shall be used is f, and its path is for people. The caller closes it. For
// others f is nil. errs.Invalid if there is nothing.
func (p *Plugins) Locate(name, at string) (place string, f *os.File, err error) {
	p.mu.Lock()
	e := p.managed[name]
	if e.Root == "" {
		e = p.managed[name+":latest"]
	}
	p.mu.Unlock()
	if e.Root == "" {
		return at, nil, nil
	}
	if !path.IsAbs(at) {
		return "", nil, errs.New(errs.Invalid, "plugin %q names %q, which is no absolute path", name, at)
	}
	dir, rest := scoped(e, at)
	root, err := rootpath.Open(dir)
	if err != nil {
		return "", nil, fmt.Errorf("plugin %q: %w", name, err)
	}
	defer root.Close()
	f, err = root.Open(rest, unix.O_PATH, 0)
	if err != nil {
		return "", nil, errs.New(errs.Invalid, "plugin %q names %s, which it does not have: %w", name, at, err)
	}
	place, err = os.Readlink(descriptor(f))
	if err != nil {
		f.Close()
		return "", nil, err
	}
	return place, f, nil
}

// descriptor is the name that an open file has in this process.
func descriptor(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// scoped returns the directory of the host that at is to be found in, and its path
// there. Pure.
func scoped(e Endpoint, at string) (dir, rest string) {
	at = path.Clean(at)
	if e.Propagated == "" {
		return e.Root, at
	}
	if prefix := path.Clean(e.Propagated); at == prefix || strings.HasPrefix(at, prefix+"/") {
		return e.PropagatedTo, "/" + strings.TrimPrefix(strings.TrimPrefix(at, prefix), "/")
	}
	return e.Root, at
}
