package buildx

import (
	"fmt"

	"github.com/spf13/cobra"
)

// adminCommands are what looks after the builder.
func (a *App) adminCommands() []*cobra.Command {
	return []*cobra.Command{a.versionCommand()}
}

func (a *App) versionCommand() *cobra.Command {
	return leaf("version", "Show buildx version information", atMost(0), func(*cobra.Command, []string) error {
		fmt.Fprintf(a.Out, "gantry-buildx %s %s\n", a.version.Version, a.version.Commit)
		return nil
	})
}
