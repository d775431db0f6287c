// Command gantry-registry is the registry server, and a plugin of the command
// line: `gantry registry …`. It is a program of its own so that neither the
// command line nor the daemon carries it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gantry registry:", err)
		os.Exit(1)
	}
}
