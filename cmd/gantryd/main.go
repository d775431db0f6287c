// Command gantryd is the Gantry daemon: it runs containers and serves the
// Docker Engine API.
package main

import (
	"context"
	"fmt"
	"os"

	"gantry/internal/daemon"
)

func main() {
	if err := daemon.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gantryd:", err)
		os.Exit(1)
	}
}
