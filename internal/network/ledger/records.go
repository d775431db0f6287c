package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/internal/durable"
)

// records is the directory of the sandboxes' records, one file each.
type records string

func (d records) file(owner string) string { return filepath.Join(string(d), owner+".json") }

func (d records) read(owner string) (*Entry, error) {
	data, err := os.ReadFile(d.file(owner))
	if err != nil {
		return nil, err
	}
	e := &Entry{Complete: true}
	if err := json.Unmarshal(data, e); err != nil || e.ID != owner {
		return nil, fmt.Errorf("sandbox record of %s: %w", owner, errors.Join(err, fs.ErrInvalid))
	}
	return e, nil
}

// write makes the record survive this process, not a power cut: that one ends
// the sandbox, too.
func (d records) write(e *Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return durable.Replace(d.file(e.ID), data, 0o600)
}

func (d records) remove(owner string) error {
	if err := os.Remove(d.file(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Forwarding is the record of IP forwarding having been switched on.
type Forwarding string

// Forwarding returns the record of IP forwarding.
func (b *Book) Forwarding() Forwarding { return Forwarding(filepath.Join(b.run, "forwarding.json")) }

// IPv6 returns the record of IPv6 forwarding that is beside f.
func (f Forwarding) IPv6() Forwarding {
	return Forwarding(filepath.Join(filepath.Dir(string(f)), "forwarding6.json"))
}

// Closed returns the interfaces that forwarding was switched on under, or nil
// if this daemon has not done so since the last boot.
func (f Forwarding) Closed() []string {
	data, err := os.ReadFile(string(f))
	if err != nil {
		return nil
	}
	links := []string{}
	if json.Unmarshal(data, &links) != nil {
		return nil
	}
	return links
}

// SetClosed writes that forwarding is being switched on under these interfaces,
// or with nil that it is off again.
func (f Forwarding) SetClosed(links []string) error {
	if links == nil {
		if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(links)
	if err != nil {
		return err
	}
	return durable.Replace(string(f), data, 0o600)
}
