// Command gantry-buildx builds images: a plugin of the command line, behind
// `gantry build`, `gantry buildx …`, `gantry builder …` and `gantry bake`, and of
// the docker CLI under the name docker-buildx. It is a program of its own so that
// gantry does not carry BuildKit's client.
package main

import (
	"context"
	"os"

	"gantry/internal/cli/buildx"
	"gantry/internal/version"
)

func main() {
	streams := buildx.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(buildx.Run(context.Background(), streams, buildx.Version{Version: version.Version, Commit: version.Commit}, os.Args[1:]))
}
