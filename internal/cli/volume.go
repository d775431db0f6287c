package cli

import (
	"errors"
	"fmt"
	"net/url"
	"sort"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/client"
	"gantry/internal/wire"
)

func volumeCreateCommand(a *App) *cobra.Command {
	var name, driver string
	var opts opt.Map
	labels := opt.List{Check: opt.Label}
	cmd := leaf("create [OPTIONS] [VOLUME]", "Create a volume", maxArgs(1), func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if name != "" {
				return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			name = args[0]
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		req := wire.VolumeCreate{Name: name, Driver: driver, DriverOpts: opts.Values, Labels: opt.ToMap(labels.Values)}
		var v wire.Volume
		if err := c.Post(cmd.Context(), "/volumes/create", nil, req, &v); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, v.Name)
		return nil
	})
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&name, "name", "", "Specify volume name")
	_ = fs.MarkHidden("name")
	fs.Var(&labels, "label", "Set metadata for a volume")
	fs.VarP(&opts, "opt", "o", "Set driver specific options")
	return cmd
}

func volumeLsCommand(a *App) *cobra.Command {
	var quiet bool
	var format string
	var filter opt.Filter
	cmd := leaf("ls [OPTIONS]", "List volumes", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		setFilters(q, filter)
		var res struct{ Volumes []*wire.Volume }
		if err := c.Get(cmd.Context(), "/volumes", q, &res); err != nil {
			return err
		}
		sort.Slice(res.Volumes, func(i, j int) bool { return res.Volumes[i].Name < res.Volumes[j].Name })
		if quiet {
			for _, v := range res.Volumes {
				fmt.Fprintln(a.Out, v.Name)
			}
			return nil
		}
		return formatter.VolumeTable().Render(a.Out, listFormat(a, listFlags{format: format, key: "volumesFormat", quiet: quiet}), formatter.Volumes(res.Volumes))
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	cmd.Flags().VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	cmd.Flags().Bool("cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
	_ = cmd.Flags().MarkHidden("cluster")
	return cmd
}

func volumeRmCommand(a *App) *cobra.Command {
	var force bool
	return withFlags(leaf("rm [OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if force {
			q.Set("force", "1")
		}
		return a.each(args, func(n string) error { return c.Delete(cmd.Context(), objectPath("/volumes/", n), q, nil) })
	}), func(cmd *cobra.Command) {
		cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	})
}

func withFlags(cmd *cobra.Command, add func(*cobra.Command)) *cobra.Command {
	add(cmd)
	return cmd
}

func networkLsCommand(a *App) *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter opt.Filter
	cmd := leaf("ls [OPTIONS]", "List networks", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		setFilters(q, filter)
		var list []wire.NetworkSummary
		if err := c.Get(cmd.Context(), "/networks", q, &list); err != nil {
			return err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
		rows := formatter.Networks(list, formatter.RowOptions{Trunc: !noTrunc})
		if quiet {
			return quietIDs(a, rows)
		}
		return formatter.NetworkTable().Render(a.Out, listFormat(a, listFlags{format: format, key: "networksFormat", quiet: quiet}), rows)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	cmd.Flags().VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

func networkRmCommand(a *App) *cobra.Command {
	var force bool
	return withFlags(leaf("rm NETWORK [NETWORK...]", "Remove one or more networks", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		failed := false
		for _, n := range args {
			if err := c.Delete(cmd.Context(), objectPath("/networks/", n), nil, nil); err != nil {
				if force && client.IsNotFound(err) {
					continue
				}
				fmt.Fprintln(a.Err, err)
				failed = true
				continue
			}
			fmt.Fprintln(a.Out, n)
		}
		if failed {
			return &StatusError{Text: "exit status 1", Code: 1}
		}
		return nil
	}), func(cmd *cobra.Command) {
		cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	})
}
