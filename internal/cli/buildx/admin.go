package buildx

import (
	"errors"
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

func (a *App) bakeCommand() *cobra.Command {
	return leaf("bake [OPTIONS] [TARGET...]", "Build from a file", cobra.ArbitraryArgs, func(*cobra.Command, []string) error {
		return errors.New("bake: not supported by this version of Gantry")
	})
}
