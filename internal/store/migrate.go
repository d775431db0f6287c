package store

import (
	"fmt"

	"gantry/internal/errs"
)

// A Migration changes the records of one schema version into those of the next.
type Migration struct {
	// To is the version that the file has afterwards, 1 or more.
	To int
	// Do reads and writes through Bucket[json.RawMessage] or bucket types that
	// mirror the old shape.
	Do func(*Tx) error
}

// schema is the bucket of the file's own record.
var schema = NewBucket[int]("gantry.schema")

const versionKey = "version"

// Version returns the schema version of the file: 0 for a new one without
// migrations.
func (d *DB) Version() (v int, err error) {
	err = d.View(func(tx *Tx) error {
		v, err = version(tx)
		return err
	})
	return v, err
}

func version(tx *Tx) (int, error) {
	v, err := schema.Get(tx, versionKey)
	if errs.Is(err, errs.NotFound) {
		return 0, nil
	}
	return v, err
}

// migrate brings the file to the last migration's version in one transaction:
// a crash in between leaves the old schema whole.
func (d *DB) migrate(ms []Migration) error {
	target := 0
	for _, m := range ms {
		if m.To <= target {
			return fmt.Errorf("migrations out of order: %d after %d", m.To, target)
		}
		target = m.To
	}
	have, err := d.Version()
	switch {
	case err != nil:
		return err
	case have > target:
		return errs.New(errs.Unsupported, "written by a newer program: schema %d, this one knows %d", have, target)
	case have == target:
		return nil
	}
	return d.Update(func(tx *Tx) error {
		for _, m := range ms {
			if m.To <= have {
				continue
			}
			if err := m.Do(tx); err != nil {
				return fmt.Errorf("migrate to schema %d: %w", m.To, err)
			}
		}
		return schema.Put(tx, versionKey, target)
	})
}
