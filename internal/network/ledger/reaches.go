package ledger

import (
	"reflect"
	"slices"

	"gantry/internal/network/driver"
)

// SetReaches writes down what a sandbox reaches by links, as r says, and returns
// its endpoints for which that is new. Without a sandbox nothing happens.
func SetReaches(b *Book, r AttachRequest) (changed []driver.Endpoint, err error) {
	now := reaches(r)
	b.mu.Lock()
	old := b.entries[r.ID]
	if old == nil {
		b.mu.Unlock()
		return nil, nil
	}
	e := *old
	e.Links = slices.Clone(old.Links)
	for i := range e.Links {
		if l := &e.Links[i]; len(l.Reaches)+len(now) > 0 && !reflect.DeepEqual(l.Reaches, now) {
			l.Reaches = now
			changed = append(changed, *l)
		}
	}
	if len(changed) == 0 {
		b.mu.Unlock()
		return nil, nil
	}
	b.entries[r.ID] = &e
	b.mu.Unlock()
	return changed, b.records.write(&e)
}
