// Package shimbin holds the program of the shim inside the daemon, so that one
// file is installed and no container can reach what the next one is started
// from. The daemon's wiring gives the bytes to whoever starts shims; nothing
// else uses them.
package shimbin

import (
	"embed"
	"errors"
	"io/fs"

	"gantry/internal/errs"
)

// The pattern takes whatever is there: the program is not in a fresh checkout.
//
//go:embed *
var files embed.FS

// Program returns the shim's program. errs.Unavailable if this daemon was built
// without it.
func Program() ([]byte, error) {
	data, err := files.ReadFile("gantry-shim")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Unavailable, "this gantryd was built without gantry-shim: build it with `make build`")
	}
	return data, err
}
