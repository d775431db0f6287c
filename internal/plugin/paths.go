package plugin

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/rootpath"
)

// HostPath returns what a path that the plugin called name speaks of is on the
// host. For one that has a root of its own no link leads out of that. errs.Invalid
// if there is nothing.
func (p *Plugins) HostPath(name, at string) (string, error) {
	p.mu.Lock()
	e := p.managed[name]
	if e.Root == "" {
		e = p.managed[name+":latest"]
	}
	p.mu.Unlock()
	if e.Root == "" || !path.IsAbs(at) {
		return at, nil
	}
	dir, rest := scoped(e, at)
	root, err := rootpath.Open(dir)
	if err != nil {
		return "", fmt.Errorf("plugin %q: %w", name, err)
	}
	defer root.Close()
	fd, err := root.OpenFd(rest, unix.O_PATH, 0)
	if err != nil {
		return "", errs.New(errs.Invalid, "plugin %q names %s, which it does not have: %w", name, at, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

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
