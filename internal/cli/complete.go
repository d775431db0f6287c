package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/ref"
	"gantry/internal/wire"
)

// completeTimeout bounds what a press of the tab key may take.
const completeTimeout = 2 * time.Second

func completionCommand(a *App, root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "completion SHELL", Short: "Generate the completion script for bash, zsh, fish or powershell", GroupID: groupOther,
		DisableFlagsInUseLine: true, ValidArgs: []string{"bash", "zsh", "fish", "powershell"}, Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return fmt.Errorf("unknown shell %q: must be one of bash, zsh, fish, powershell", args[0])
		},
	}
	addHelpFlag(cmd)
	return cmd
}

func completeContainers(a *App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		var list []wire.ContainerSummary
		if err := c.Get(ctx, "/containers/json", map[string][]string{"all": {"1"}}, &list); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, ct := range list {
			for _, n := range ct.Names {
				out = append(out, n[min(1, len(n)):])
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeImages(a *App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if (cmd.Name() == "run" || cmd.Name() == "create") && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault // the container's own arguments
		}
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		var list []wire.ImageSummary
		if err := c.Get(ctx, "/images/json", nil, &list); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, i := range list {
			for _, t := range i.RepoTags {
				out = append(out, t)
				if n, err := ref.Parse(t); err == nil && n.Tag == "latest" {
					out = append(out, n.Familiar())
				}
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
