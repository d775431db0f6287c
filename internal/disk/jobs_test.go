package disk

import (
	"path/filepath"
	"testing"
	"time"

	"gantry/internal/job"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// TestJobBooks: a prune that a daemon's end has cut off is found in the database
// by the next.
func TestJobBooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := wire.Job{ID: "0123456789abcdef", Kind: "prune", State: wire.JobRunning, Started: time.Unix(1000, 0).UTC()}
	over := cut
	over.ID = "over"
	for _, err := range []error{JobBooks(db).Begun(cut), JobBooks(db).Begun(over), JobBooks(db).Gone("over"), JobBooks(db).Gone("never there"), db.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if db, err = store.Open(path); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	jobs, err := job.Open(t.Context(), JobBooks(db))
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Close()
	list := jobs.List()
	if len(list) != 1 || list[0].ID != cut.ID || list[0].State != wire.JobInterrupted || !list[0].Started.Equal(cut.Started) {
		t.Errorf("%+v", list)
	}
}
