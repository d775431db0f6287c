// Command gantry is the command line: a client of the daemon's API. Installed
// under the name docker it behaves as docker does.
package main

import (
	"context"
	"os"

	"gantry/internal/cli"
	"gantry/internal/version"
)

func main() {
	streams := cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	build := cli.Build{Version: version.Version, Commit: version.Commit}
	os.Exit(cli.Run(context.Background(), streams, build, os.Args))
}
