package buildx

import "github.com/spf13/cobra"

func (a *App) adminCommands() []*cobra.Command { return nil }

func (a *App) bakeCommand() *cobra.Command { return &cobra.Command{Use: "bake"} }
