package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
	"gantry/internal/ociruntime"
	"gantry/internal/ociruntime/job"
	"gantry/internal/ocispec"
)

// Private ranges are taken from here: above what useradd(8) gives to users, and
// below what the kernel's signed interfaces can't say.
const (
	autoFirst = 1 << 30
	autoEnd   = 1<<31 - 1<<16
	autoSize  = 1 << 16
)

// Auto is the mode of a container that has a range of its own.
const Auto = "auto"

// Namespaces makes user namespaces for containers. It may be used by several
// goroutines.
type Namespaces struct {
	shared Map    // of --userns-remap; empty without
	dir    string // a file for each private range given out: its first id → container

	mu   sync.Mutex
	held map[string]bool // containers that have a range since this daemon runs
	// alive says of a container whose range an earlier daemon gave out whether
	// anything is left of it.
	alive func(id string) bool
}

// NewNamespaces returns what gives out the maps of --userns-remap, and private
// ranges that are noted in dir. alive says whether anything runs of a container
// that this daemon has not started.
func NewNamespaces(shared Map, dir string, alive func(id string) bool) *Namespaces {
	return &Namespaces{shared: shared, dir: dir, held: map[string]bool{}, alive: alive}
}

// Remaps reports whether containers get a user namespace unasked.
func (n *Namespaces) Remaps() bool { return len(n.shared.UID) > 0 }

// Open makes a user namespace for a container, and a network namespace that
// belongs to it. mode is Auto for a range of its own; what that takes is given
// back by Release.
func (n *Namespaces) Open(id, mode string) (ns ocispec.UserNamespace, err error) {
	m := n.shared
	if mode == Auto {
		if m, err = n.take(id); err != nil {
			return ns, err
		}
	}
	if len(m.UID) == 0 {
		return ns, errs.New(errs.Unavailable, "the container wants a user namespace, but this daemon runs without --userns-remap: start the daemon with it, or make the container anew")
	}
	ns.UID, ns.GID = m.UID, m.GID
	ns.User, ns.Net, err = ociruntime.NewUserNamespace(jobMap(m.UID), jobMap(m.GID))
	return ns, err
}

// Join opens the user namespace of a running process, and makes a network
// namespace that belongs to it.
func (n *Namespaces) Join(pid int) (ns ocispec.UserNamespace, err error) {
	m, err := OfProcess(pid)
	if err != nil {
		return ns, err
	}
	if m.Whole() {
		return ns, errs.New(errs.Invalid, "cannot join the namespaces of a container that is in the host's user namespace: start this one with --userns=host too")
	}
	ns.UID, ns.GID = m.UID, m.GID
	ns.User, ns.Net, err = ociruntime.JoinUserNamespace(pid)
	return ns, err
}

// take finds a range that no container has.
func (n *Namespaces) take(id string) (Map, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return Map{}, fmt.Errorf("private range of ids: %w", err)
	}
	for first := uint32(autoFirst); first < autoEnd; first += autoSize {
		file := filepath.Join(n.dir, strconv.FormatUint(uint64(first), 10))
		owner, err := os.ReadFile(file)
		switch {
		case err == nil && string(owner) != id && (n.held[string(owner)] || n.alive(string(owner))):
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return Map{}, fmt.Errorf("private range of ids: %w", err)
		}
		// No need to outlast a power failure: no container does.
		if err := os.WriteFile(file, []byte(id), 0o600); err != nil {
			return Map{}, fmt.Errorf("private range of ids: %w", err)
		}
		n.held[id] = true
		r := []specs.LinuxIDMapping{{HostID: first, Size: autoSize}}
		return Map{r, r}, nil
	}
	return Map{}, errs.New(errs.Unavailable, "no private range of ids is free: %d containers have one", (autoEnd-autoFirst)/autoSize)
}

// Release gives a container's private range back. One without is no error.
func (n *Namespaces) Release(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.held, id)
	entries, err := os.ReadDir(n.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(n.dir, e.Name())
		if owner, err := os.ReadFile(file); err == nil && string(owner) == id {
			return os.Remove(file)
		}
	}
	return nil
}

func jobMap(list []specs.LinuxIDMapping) []job.IDMap {
	var out []job.IDMap
	for _, m := range list {
		out = append(out, job.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return out
}
