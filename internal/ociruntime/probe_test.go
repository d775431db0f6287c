package ociruntime

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// probeArg makes the test binary print facts about its own process when it runs
// inside a container.
const probeArg = "probe"

func probe(args []string) {
	for _, a := range args {
		switch a {
		case "umask":
			fmt.Printf("%#o\n", unix.Umask(0))
		case "signals":
			data, _ := os.ReadFile("/proc/self/status")
			for line := range strings.Lines(string(data)) {
				if strings.HasPrefix(line, "SigBlk") || strings.HasPrefix(line, "SigIgn") {
					fmt.Print(line)
				}
			}
		case "fds":
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			for _, e := range entries {
				link, _ := os.Readlink("/proc/self/fd/" + e.Name())
				fmt.Println(e.Name(), link)
			}
		}
	}
}
