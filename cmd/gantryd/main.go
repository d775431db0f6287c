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
	if os.Args[0] == daemon.LazyName {
		if err := daemon.ShowLazy(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Println(err) // to the daemon that waits for it
			os.Exit(1)
		}
		return
	}
	if err := daemon.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gantryd:", err)
		os.Exit(1)
	}
}
