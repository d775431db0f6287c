package why

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Store is a directory of records.
type Store struct{ Dir string }

// maxRecords bounds how many builds are remembered; maxFiles how many files of
// one.
const (
	maxRecords = 200
	maxFiles   = 20000
)

// path of the record of a build, by what tells builds apart.
func (s Store) path(key []string) string {
	sum := sha256.Sum256([]byte(strings.Join(key, "\x00")))
	return filepath.Join(s.Dir, hex.EncodeToString(sum[:16])+".json")
}

// Load returns the record of key, nil if there is none that can be read.
func (s Store) Load(key []string) *Record {
	b, err := os.ReadFile(s.path(key))
	if err != nil {
		return nil
	}
	var r Record
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// Save replaces the record of key and forgets the oldest ones.
func (s Store) Save(key []string, r Record) error {
	if len(r.Files) > maxFiles {
		r.Files = nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.Dir, ".record-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), s.path(key))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return s.trim()
}

func (s Store) trim() error {
	list, err := os.ReadDir(s.Dir)
	if err != nil || len(list) <= maxRecords {
		return err
	}
	type aged struct {
		name string
		time int64
	}
	var all []aged
	for _, e := range list {
		if fi, err := e.Info(); err == nil {
			all = append(all, aged{e.Name(), fi.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return cmp.Compare(a.time, b.time) })
	var errs []error
	for _, a := range all[:max(0, len(all)-maxRecords)] {
		if err := os.Remove(filepath.Join(s.Dir, a.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
