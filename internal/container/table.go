package container

import (
	"strings"
	"sync"

	"gantry/internal/errs"
	"gantry/internal/id"
)

// table finds a container's actor by what a user calls it. Whether a name is
// free is decided by the store; the table only mirrors it.
type table struct {
	mu     sync.RWMutex
	byID   map[string]*actor
	byName map[string]*actor
}

func newTable() *table {
	return &table{byID: map[string]*actor{}, byName: map[string]*actor{}}
}

// find returns the container that ref names: a full ID, a name with or without
// its slash, or a unique prefix of an ID, in this order.
func (t *table) find(ref string) (*actor, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if a := t.byID[ref]; a != nil {
		return a, nil
	}
	if a := t.byName[strings.TrimPrefix(ref, "/")]; a != nil {
		return a, nil
	}
	if a := t.linked(ref); a != nil {
		return a, nil
	}
	var found *actor
	if id.ValidPrefix(ref) {
		for full, a := range t.byID {
			if !strings.HasPrefix(full, ref) {
				continue
			}
			if found != nil {
				return nil, errs.New(errs.Invalid, "multiple IDs found with provided prefix: %s", ref)
			}
			found = a
		}
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "No such container: %s", ref)
	}
	return found, nil
}

// linked returns the container that a link's name, "web/mydb", stands for, or nil.
// The lock is held.
func (t *table) linked(ref string) *actor {
	parent, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/")
	if !ok || t.byName[parent] == nil {
		return nil
	}
	for _, l := range t.byName[parent].view().rec.Plan.Links {
		if l.Alias == alias {
			return t.byID[l.Container]
		}
	}
	return nil
}

// named returns the container that has a name, or nil.
func (t *table) named(name string) *actor {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byName[name]
}

// all returns every actor, in no order.
func (t *table) all() []*actor {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]*actor, 0, len(t.byID))
	for _, a := range t.byID {
		list = append(list, a)
	}
	return list
}

func (t *table) add(a *actor, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[a.id], t.byName[name] = a, a
}

func (t *table) rename(a *actor, old, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName[old] == a {
		delete(t.byName, old)
	}
	t.byName[name] = a
}

func (t *table) forget(a *actor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, a.id)
	if name := a.view().rec.Name; t.byName[name] == a {
		delete(t.byName, name)
	}
}
