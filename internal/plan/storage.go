package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// rootSize reads --storage-opt: "size" is how much the container's own layer may
// hold, and the only option.
func rootSize(opts map[string]string) (int64, error) {
	var size int64
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if strings.ToLower(k) != "size" {
			return 0, errs.New(errs.Invalid, "Unknown option %s", k)
		}
		n, err := units.RAMInBytes(opts[k])
		if err != nil {
			return 0, errs.New(errs.Invalid, "storage option size: %w", err)
		}
		if n <= 0 {
			return 0, errs.New(errs.Invalid, "storage option size: %s: must be more than nothing", opts[k])
		}
		size = n
	}
	return size, nil
}
