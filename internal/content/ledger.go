package content

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"gantry/internal/durable"
)

// A Ledger is a manager of leases that writes them to the stores some time after
// they have changed, many in one transaction, and those that have come and gone
// meanwhile never. A build makes and drops leases hundreds of times, and each
// transaction of the stores waits for the disk.
//
// Until they are in the stores changes are in a journal, which is not flushed: the
// end of the process loses none, a power cut may. So it is for books that a power
// cut may cost (package build). The collector sees all changes.
//
// The journal is <root>/content/leases.journal: a line with the boot that it was
// written in, then one JSON object a change. That of another boot is void.
type Ledger struct {
	s    *Store
	path string
	live context.Context // of what nobody waits for
	wait time.Duration   // how long changes wait

	gate  sync.RWMutex // held for reading by changes, for writing by the collector
	flush sync.Mutex   // held while changes are written to the stores

	together group

	mu      sync.Mutex
	known   map[string]map[string]bool // namespace → ids of all leases
	todo    []change
	journal *os.File // nil while there is none
	size    int64    // of the journal, in bytes
	soon    *time.Timer
}

// Bounds of how long changes wait.
const (
	flushAfter   = 2 * time.Second
	flushChanges = 4000
)

// What a change does.
const (
	opCreate = "create"
	opDelete = "delete"
	opAdd    = "add"
	opDrop   = "drop"
)

// A change of a lease. Times are the stores' own.
type change struct {
	Do        string
	Namespace string
	Lease     string
	Labels    map[string]string `json:",omitempty"`
	Resource  leases.Resource   `json:",omitzero"`
}

// openLedger does what the journal of an earlier process says.
func openLedger(ctx context.Context, s *Store, path string) (*Ledger, error) {
	l := &Ledger{s: s, path: path, live: context.WithoutCancel(ctx), wait: flushAfter, known: map[string]map[string]bool{}}
	l.together.update = s.meta.Update
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	} else if err != nil {
		return nil, err
	}
	boot, err := durable.Boot()
	if err != nil {
		return nil, err
	}
	if err := l.write(ctx, net(replay(data, boot))); err != nil {
		return nil, err
	}
	return l, os.Remove(path)
}

// replay reads a journal; nothing of another boot, and not the line that was being
// written. Pure.
func replay(data []byte, boot string) []change {
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	if boot == "" || string(first) != boot {
		return nil
	}
	var list []change
	for line := range bytes.Lines(rest) {
		var c change
		if json.Unmarshal(line, &c) != nil {
			break
		}
		list = append(list, c)
	}
	return list
}

// net leaves out what later changes make void. Pure.
func net(list []change) []change {
	type key struct{ namespace, lease string }
	last := map[key]int{} // the last deletion
	made := map[key]bool{}
	seen := map[key]bool{}
	for i, c := range list {
		k := key{c.Namespace, c.Lease}
		if !seen[k] {
			seen[k], made[k] = true, c.Do == opCreate
		}
		if c.Do == opDelete {
			last[k] = i
		}
	}
	var out []change
	for i, c := range list {
		k := key{c.Namespace, c.Lease}
		if end, ok := last[k]; ok && (i < end || i == end && made[k]) {
			continue
		}
		out = append(out, c)
	}
	return out
}

// Create makes a lease.
func (l *Ledger) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	var made leases.Lease
	for _, opt := range opts {
		if err := opt(&made); err != nil {
			return leases.Lease{}, err
		}
	}
	if made.ID == "" {
		return leases.Lease{}, fmt.Errorf("lease id must be provided: %w", errdefs.ErrInvalidArgument)
	}
	made.CreatedAt = time.Now().UTC()
	return made, l.change(ctx, change{Do: opCreate, Lease: made.ID, Labels: made.Labels})
}

// Delete ends a lease.
func (l *Ledger) Delete(ctx context.Context, lease leases.Lease, _ ...leases.DeleteOpt) error {
	return l.change(ctx, change{Do: opDelete, Lease: lease.ID})
}

// AddResource lets a lease keep something.
func (l *Ledger) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.change(ctx, change{Do: opAdd, Lease: lease.ID, Resource: r})
}

// DeleteResource lets a lease keep something no more.
func (l *Ledger) DeleteResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.change(ctx, change{Do: opDrop, Lease: lease.ID, Resource: r})
}

// List lists leases.
func (l *Ledger) List(ctx context.Context, filters ...string) ([]leases.Lease, error) {
	if err := l.Flush(ctx); err != nil {
		return nil, err
	}
	return l.s.leases.List(ctx, filters...)
}

// ListResources lists what a lease keeps.
func (l *Ledger) ListResources(ctx context.Context, lease leases.Lease) ([]leases.Resource, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	// What is on its way is neither there nor here.
	l.flush.Lock()
	defer l.flush.Unlock()
	list, err := l.s.leases.ListResources(ctx, lease)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := changed(list, err == nil, l.todo, ns, lease.ID)
	if !ok {
		return nil, fmt.Errorf("lease %q: %w", lease.ID, errdefs.ErrNotFound)
	}
	return list, nil
}

// changed does changes to what a lease keeps; ok tells whether there is one. Pure.
func changed(list []leases.Resource, ok bool, todo []change, ns, lease string) ([]leases.Resource, bool) {
	for _, c := range todo {
		if c.Namespace != ns || c.Lease != lease {
			continue
		}
		switch c.Do {
		case opCreate:
			ok = true
		case opDelete:
			list, ok = nil, false
		case opAdd:
			if ok && !slices.Contains(list, c.Resource) {
				list = append(list, c.Resource)
			}
		case opDrop:
			list = slices.DeleteFunc(list, func(r leases.Resource) bool { return r == c.Resource })
		}
	}
	return list, ok
}

// change notes a change.
func (l *Ledger) change(ctx context.Context, c change) error {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	c.Namespace = ns
	if c.Do == opAdd || c.Do == opDrop {
		if kind, _, _ := strings.Cut(c.Resource.Type, "/"); kind != "content" && kind != "snapshots" && kind != "ingests" {
			return fmt.Errorf("resource type %s: %w", c.Resource.Type, errdefs.ErrNotImplemented)
		}
	}
	l.gate.RLock()
	defer l.gate.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	known, err := l.ids(ctx, ns)
	if err != nil {
		return err
	}
	switch {
	case c.Do == opCreate && known[c.Lease]:
		return fmt.Errorf("lease %q: %w", c.Lease, errdefs.ErrAlreadyExists)
	case c.Do != opCreate && !known[c.Lease]:
		return fmt.Errorf("lease %q: %w", c.Lease, errdefs.ErrNotFound)
	}
	if err := l.note(c); err != nil {
		return err
	}
	switch c.Do {
	case opCreate:
		known[c.Lease] = true
	case opDelete:
		delete(known, c.Lease)
	}
	l.todo = append(l.todo, c)
	l.later()
	return nil
}

// ids returns the leases of a namespace. mu is held.
func (l *Ledger) ids(ctx context.Context, ns string) (map[string]bool, error) {
	if known := l.known[ns]; known != nil {
		return known, nil
	}
	list, err := l.s.leases.List(ctx)
	if err != nil {
		return nil, err
	}
	l.known[ns] = map[string]bool{}
	for _, one := range list {
		l.known[ns][one.ID] = true
	}
	return l.known[ns], nil
}

// note writes a change to the journal. mu is held.
func (l *Ledger) note(c change) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if l.journal == nil {
		boot, err := durable.Boot()
		if err != nil {
			return err
		}
		if l.journal, err = os.OpenFile(l.path, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		line, l.size = append([]byte(boot+"\n"), line...), 0
	}
	n, err := l.journal.Write(append(line, '\n'))
	if err != nil {
		// Nothing after half a line would be read.
		return fmt.Errorf("journal of leases: %w", errors.Join(err, l.journal.Truncate(l.size)))
	}
	l.size += int64(n)
	return nil
}

// later makes sure that changes get to the stores. mu is held.
func (l *Ledger) later() {
	wait := l.wait
	if len(l.todo) >= flushChanges {
		wait = 0
	}
	if l.soon != nil {
		if wait == 0 {
			l.soon.Reset(0)
		}
		return
	}
	// An error is met again, and told, by who needs the changes there.
	l.soon = time.AfterFunc(wait, func() { _ = l.Flush(l.live) })
}

// Flush writes all changes to the stores. When it returns they are on disk.
func (l *Ledger) Flush(ctx context.Context) error {
	l.flush.Lock()
	defer l.flush.Unlock()
	l.mu.Lock()
	list := l.todo
	l.todo = nil
	if l.soon != nil {
		l.soon.Stop()
		l.soon = nil
	}
	l.mu.Unlock()
	err := l.write(ctx, net(list))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.todo = append(list, l.todo...)
		return err
	}
	if len(l.todo) > 0 || l.journal == nil {
		return nil
	}
	file := l.journal
	l.journal = nil
	return errors.Join(os.Remove(l.path), file.Close())
}

// write writes changes to the stores in one transaction.
func (l *Ledger) write(ctx context.Context, list []change) error {
	if len(list) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	return kind(l.s.meta.Update(func(tx *bolt.Tx) error {
		for _, c := range list {
			ctx := boltutil.WithTransaction(namespaces.WithNamespace(ctx, c.Namespace), tx)
			if err := l.apply(ctx, c); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsAlreadyExists(err) {
				return err
			}
		}
		return nil
	}))
}

// apply does one change.
func (l *Ledger) apply(ctx context.Context, c change) error {
	m, lease := l.s.leases, leases.Lease{ID: c.Lease}
	switch c.Do {
	case opCreate:
		_, err := m.Create(ctx, leases.WithID(c.Lease), leases.WithLabels(c.Labels))
		return err
	case opDelete:
		return m.Delete(ctx, lease)
	case opAdd:
		return m.AddResource(ctx, lease, c.Resource)
	case opDrop:
		return m.DeleteResource(ctx, lease, c.Resource)
	}
	return nil
}

// collecting keeps changes away until done is called. Those before are in the
// stores when it returns.
func (l *Ledger) collecting(ctx context.Context) (done func(), _ error) {
	l.gate.Lock()
	if err := l.Flush(ctx); err != nil {
		l.gate.Unlock()
		return nil, err
	}
	return l.gate.Unlock, nil
}

// Has tells whether there is a lease.
func (l *Ledger) Has(ctx context.Context, id string) bool {
	ns, ok := namespaces.Namespace(ctx)
	if !ok {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known, err := l.ids(ctx, ns)
	return err == nil && known[id]
}

// ledgerPath is where the journal is.
func ledgerPath(root string) string { return filepath.Join(root, "content", "leases.journal") }
