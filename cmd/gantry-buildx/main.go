// Command gantry-buildx builds images: a plugin of the command line, behind
// `gantry build`, `gantry buildx …`, `gantry builder …` and `gantry bake`, and of
// the docker CLI under the name docker-buildx. It is a program of its own so that
// gantry does not carry BuildKit's client.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"gantry/internal/cli/buildx"
	"gantry/internal/version"
)

// garbage is how much the heap grows, in percent, before it is searched for garbage:
// the process lives shortly, and what it tells of a large context is kept to its end.
const garbage = 400

func main() {
	debug.SetGCPercent(garbage)
	streams := buildx.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(buildx.Run(context.Background(), streams, buildx.Version{Version: version.Version, Commit: version.Commit}, os.Args[1:]))
}
