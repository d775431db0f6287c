package volume

import (
	"slices"

	"gantry/internal/store"
)

// Kept returns how many volumes were made here with a driver of one of the names.
func Kept(v *Volumes, drivers ...string) (n int, err error) {
	err = v.db.View(func(tx *store.Tx) error {
		for _, r := range volumes.All(tx) {
			if slices.Contains(drivers, r.Driver) {
				n++
			}
		}
		return nil
	})
	return n, err
}
