package disk

import (
	"gantry/internal/job"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// running are the jobs that run, by id.
var running = store.NewBucket[wire.Job]("jobs")

// jobBooks implement job.Books.
type jobBooks struct{ db *store.DB }

// JobBooks are the books of jobs in the daemon's database.
func JobBooks(db *store.DB) job.Books { return jobBooks{db} }

// Begun implements job.Books.
func (b jobBooks) Begun(j wire.Job) error {
	return b.db.Update(func(tx *store.Tx) error { return running.Put(tx, j.ID, j) })
}

// Gone implements job.Books.
func (b jobBooks) Gone(id string) error {
	return b.db.Update(func(tx *store.Tx) error { return running.Delete(tx, id) })
}

// Left implements job.Books.
func (b jobBooks) Left() (list []wire.Job, err error) {
	err = b.db.View(func(tx *store.Tx) error {
		for _, j := range running.All(tx) {
			list = append(list, j)
		}
		return nil
	})
	return list, err
}
