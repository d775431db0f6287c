// Command gantry-shim is one program with four parts to play, told apart by how
// it is called: a container's init stage, the supervisor of a container, the
// program of the embedded hello image, and an OCI runtime command line.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gantry/internal/ociruntime"
	"gantry/internal/shim/hello"
	"gantry/internal/shim/ocicli"
	"gantry/internal/shim/protocol"
	"gantry/internal/shim/server"
)

func main() {
	ociruntime.ChildMain() // returns unless this is an init stage
	switch {
	case len(os.Args) == 0:
		os.Exit(2)
	case len(os.Args) > 1 && os.Args[1] == protocol.SuperviseArg:
		if err := server.Main(); err != nil {
			fmt.Fprintln(os.Stderr, "gantry-shim:", err)
			os.Exit(1)
		}
	case filepath.Base(os.Args[0]) == "hello":
		if _, err := os.Stdout.WriteString(hello.Text); err != nil {
			os.Exit(1)
		}
	default:
		os.Exit(ocicli.Main(context.Background(), os.Args[0], os.Args[1:]))
	}
}
