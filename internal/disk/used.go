package disk

import (
	"maps"
	"sync"
	"time"

	"gantry/internal/store"
)

// lastUsed is when each image, by id, was last of use to a container.
var lastUsed = store.NewBucket[time.Time]("image.used")

// uses remembers when images were last used: at once in memory, on disk a
// minute later or at the end. A crash costs the order of a minute.
type uses struct {
	db *store.DB

	mu    sync.Mutex
	at    map[string]time.Time
	dirty bool
}

func openUses(db *store.DB) (*uses, error) {
	u := &uses{db: db, at: map[string]time.Time{}}
	err := db.View(func(tx *store.Tx) error {
		maps.Insert(u.at, lastUsed.All(tx))
		return nil
	})
	return u, err
}

func (u *uses) touch(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.at[id] = at
	u.dirty = true
}

func (u *uses) of(id string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at[id]
}

// save writes what is known of the images that exist, in one transaction, if
// anything has changed.
func (u *uses) save(exist func(id string) bool) error {
	u.mu.Lock()
	maps.DeleteFunc(u.at, func(id string, _ time.Time) bool { return !exist(id) })
	at, dirty := maps.Clone(u.at), u.dirty
	u.dirty = false
	u.mu.Unlock()
	if !dirty {
		return nil
	}
	return u.db.Update(func(tx *store.Tx) error {
		for _, id := range lastUsed.Keys(tx) {
			if _, ok := at[id]; !ok {
				if err := lastUsed.Delete(tx, id); err != nil {
					return err
				}
			}
		}
		for id, t := range at {
			if err := lastUsed.Put(tx, id, t); err != nil {
				return err
			}
		}
		return nil
	})
}
