// Package ocicli is the OCI runtime command line of gantry-shim.
package ocicli

import (
	"fmt"
	"os"
)

// Main runs one command and returns the exit code.
func Main(name string, args []string) int {
	fmt.Fprintf(os.Stderr, "%s: no such command: %q\n", name, args)
	return 1
}
