package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/wire"
)

// completeObjects gives a command that takes networks, volumes or contexts, and
// has no completion of its own, their names.
func completeObjects(a *App, cmd *cobra.Command, group string) {
	_, args, _ := strings.Cut(cmd.Use, " ")
	if cmd.ValidArgsFunction != nil || cmd.Name() == "create" || cmd.Name() == "import" {
		return
	}
	list := map[string]func(context.Context, *App) ([]string, error){"network": networkNames, "volume": volumeNames, "context": contextNames}[group]
	if list == nil || !strings.Contains(args, strings.ToUpper(group)) {
		return
	}
	several := strings.Contains(args, "...")
	containers := completeContainers(a)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 1 && (cmd.Name() == "connect" || cmd.Name() == "disconnect"):
			return containers(cmd, args, text)
		case len(args) > 0 && !several:
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		names, err := list(ctx, a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func networkNames(ctx context.Context, a *App) ([]string, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var list []wire.NetworkSummary
	err = c.Get(ctx, "/networks", nil, &list)
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out, err
}

func volumeNames(ctx context.Context, a *App) ([]string, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var list wire.VolumeList
	err = c.Get(ctx, "/volumes", nil, &list)
	var out []string
	for _, v := range list.Volumes {
		out = append(out, v.Name)
	}
	return out, err
}

func contextNames(_ context.Context, a *App) ([]string, error) {
	list, err := a.contexts().List()
	out := []string{conf.DefaultContext}
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out, err
}
