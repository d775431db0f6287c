package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/cli/ref"
	"gantry/internal/client"
	"gantry/internal/wire"
)

type imagesOptions struct {
	all, digests, noTrunc, quiet, tree bool
	format                             string
	filter                             opt.Filter
}

func imagesCommand(a *App) *cobra.Command {
	var o imagesOptions
	cmd := leaf("ls [OPTIONS] [REPOSITORY[:TAG]]", "List images", maxArgs(1), func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			o.filter.Add("reference", args[0])
		}
		return listImages(cmd.Context(), a, &o)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	fs.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func listImages(ctx context.Context, a *App, o *imagesOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{}
	if o.all {
		q.Set("all", "1")
	}
	setFilters(q, o.filter)
	var list []wire.ImageSummary
	if o.tree {
		if o.quiet || o.noTrunc || o.digests || o.format != "" {
			return errors.New("--tree can't be used together with --quiet, --no-trunc, --digests or --format")
		}
		q.Set("manifests", "1")
	}
	if err := c.Get(ctx, "/images/json", q, &list); err != nil {
		return err
	}
	if o.tree {
		return formatter.ImageTree(a.Out, list)
	}
	format := listFormat(a, listFlags{format: o.format, key: "imagesFormat", quiet: o.quiet})
	rows := formatter.Images(list, formatter.ImageOptions{Trunc: !o.noTrunc, Digests: o.digests, Now: time.Now()})
	if o.quiet {
		return quietIDs(a, rows)
	}
	return formatter.ImageTable(formatter.TableOptions{Digests: o.digests}).Render(a.Out, format, rows)
}

func historyCommand(a *App) *cobra.Command {
	var human, noTrunc, quiet bool
	var format, platform string
	cmd := leaf("history [OPTIONS] IMAGE", "Show the history of an image", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var list []wire.ImageHistory
		if err := c.Get(cmd.Context(), imagePath(args[0], "history"), platformQuery(platform), &list); err != nil {
			return err
		}
		rows := formatter.History(list, formatter.HistoryOptions{Trunc: !noTrunc, Human: human, Now: time.Now()})
		if quiet {
			return quietIDs(a, rows)
		}
		return formatter.HistoryTable().Render(a.Out, format, rows)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&format, "format", "", formatUsage)
	fs.StringVar(&platform, "platform", "", "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

// platformQuery names a platform as the API wants it: JSON.
func platformQuery(s string) url.Values {
	p, err := platformJSON(s)
	if s == "" || err != nil {
		return nil
	}
	return url.Values{"platform": {p}}
}

func platformJSON(s string) (string, error) {
	os, arch, variant, err := opt.Platform(s)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(ocispec.Platform{OS: os, Architecture: arch, Variant: variant})
	return string(b), err
}

func tagCommand(a *App) *cobra.Command {
	cmd := leaf("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		n, err := ref.Parse(args[1])
		if err != nil {
			return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
		}
		if n.Digest != "" {
			return errors.New("refusing to create a tag with a digest reference")
		}
		n = n.Tagged()
		return c.Post(cmd.Context(), imagePath(args[0], "tag"), url.Values{"repo": {n.Repository()}, "tag": {n.Tag}}, nil, nil)
	})
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func rmiCommand(a *App) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := leaf("rm [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if force {
			q.Set("force", "1")
		}
		if noPrune {
			q.Set("noprune", "1")
		}
		for _, p := range platforms {
			j, err := platformJSON(p)
			if err != nil {
				return err
			}
			q.Add("platforms", j)
		}
		var failed []error
		fatal := false
		for _, n := range args {
			var res []wire.ImageDeleted
			if err := c.Delete(cmd.Context(), imagePath(n), q, &res); err != nil {
				fatal = fatal || !client.IsNotFound(err)
				failed = append(failed, err)
				continue
			}
			for _, r := range res {
				if r.Deleted != "" {
					fmt.Fprintln(a.Out, "Deleted:", r.Deleted)
				} else {
					fmt.Fprintln(a.Out, "Untagged:", r.Untagged)
				}
			}
		}
		if err := errors.Join(failed...); err != nil {
			if force && !fatal {
				fmt.Fprintln(a.Err, err)
				return nil
			}
			return err
		}
		return nil
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}
