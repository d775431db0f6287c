package local

import (
	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// size is how much a volume may hold in bytes; 0 is no bound.
func size(opts map[string]string) (uint64, error) {
	text, ok := opts["size"]
	if !ok {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return 0, errs.New(errs.Invalid, "invalid option: size=%q is no size", text)
	}
	return uint64(n), nil
}

// CanLimit says why a volume with these options can't be made here, for its
// size; nil if it can.
func (d *Driver) CanLimit(opts map[string]string) error {
	if n, err := size(opts); err != nil || n == 0 {
		return err
	}
	if err := d.quota.Supported(); err != nil {
		return errs.New(errs.Invalid, "quota size requested but no quota support: %w", err)
	}
	return nil
}

// limit bounds what a volume holds. What a device has is not its own.
func (d *Driver) limit(name string, opts map[string]string) error {
	n, err := size(opts)
	if err != nil || n == 0 || opts["device"] != "" {
		return err
	}
	return d.quota.Set(name, n, d.Path(name))
}
