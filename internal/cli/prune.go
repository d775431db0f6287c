package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"gantry/internal/cli/opt"
	"gantry/internal/wire"
)

// pruned is any prune's answer.
type pruned struct {
	ContainersDeleted, NetworksDeleted, VolumesDeleted, CachesDeleted []string
	ImagesDeleted                                                     []struct{ Untagged, Deleted string }
	SpaceReclaimed                                                    uint64
}

type pruneOptions struct {
	force, all, volumes bool
	background          bool
	filter              opt.Filter
}

// confirm asks for a yes. Without one the command ends with code 1, as Docker's.
func confirm(ctx context.Context, a *App, question string) error {
	fmt.Fprintf(a.Out, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(a.In).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- strings.TrimSpace(line)
	}()
	select {
	case s := <-answer:
		if strings.EqualFold(s, "y") {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(a.Out)
		return context.Cause(ctx)
	}
	return errNotConfirmed
}

var errNotConfirmed = errors.New("prune has been cancelled")

// pruner describes the prune command of one kind.
type pruner struct {
	short, path, warning, allWarning, heading string
	hasAll                                    bool
	allUsage                                  string
	query                                     func(q url.Values, o *pruneOptions)
	deleted                                   func(pruned) []string
	noSpace                                   bool
}

func pruneCommand(a *App, p pruner) *cobra.Command {
	var o pruneOptions
	cmd := leaf("prune [OPTIONS]", p.short, noArgs, func(cmd *cobra.Command, _ []string) error {
		if !o.force {
			w := p.warning
			if o.all && p.allWarning != "" {
				w = p.allWarning
			}
			if err := confirm(cmd.Context(), a, "WARNING! "+w+"\nAre you sure you want to continue?"); err != nil {
				return err
			}
		}
		space, err := pruneOne(cmd.Context(), a, p, &o)
		if err != nil {
			return err
		}
		if !p.noSpace {
			fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(space)))
		}
		return nil
	})
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	if p.hasAll {
		cmd.Flags().BoolVarP(&o.all, "all", "a", false, p.allUsage)
	}
	cmd.Flags().Var(&o.filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneOne prunes and lists what went.
func pruneOne(ctx context.Context, a *App, p pruner, o *pruneOptions) (uint64, error) {
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	f := opt.Filter{}
	for k, vs := range o.filter {
		for v := range vs {
			f.Add(k, v)
		}
	}
	// Filters that config.json sets for every prune are left to the user's own.
	q := url.Values{}
	o2 := *o
	o2.filter = f
	if p.query != nil {
		p.query(q, &o2)
	}
	setFilters(q, o2.filter)
	var res pruned
	if err := c.Post(ctx, p.path, q, nil, &res); err != nil {
		return 0, err
	}
	if list := p.deleted(res); len(list) > 0 {
		fmt.Fprintf(a.Out, "%s:\n%s\n\n", p.heading, strings.Join(list, "\n"))
	}
	return res.SpaceReclaimed, nil
}

func containerPruner() pruner {
	return pruner{
		short: "Remove all stopped containers", path: "/containers/prune", warning: "This will remove all stopped containers.", heading: "Deleted Containers",
		deleted: func(r pruned) []string { return r.ContainersDeleted },
	}
}

func networkPruner() pruner {
	return pruner{
		short: "Remove all unused networks", path: "/networks/prune", warning: "This will remove all custom networks not used by at least one container.", heading: "Deleted Networks",
		deleted: func(r pruned) []string { return r.NetworksDeleted }, noSpace: true,
	}
}

func volumePruner() pruner {
	return pruner{
		short: "Remove unused local volumes", path: "/volumes/prune", heading: "Deleted Volumes",
		warning:    "This will remove anonymous local volumes not used by at least one container.",
		allWarning: "This will remove all local volumes not used by at least one container.",
		hasAll:     true, allUsage: "Remove all unused volumes, not just anonymous ones",
		query: func(_ url.Values, o *pruneOptions) {
			if o.all {
				o.filter.Add("all", "true")
			}
		},
		deleted: func(r pruned) []string { return r.VolumesDeleted },
	}
}

func imagePruner() pruner {
	return pruner{
		short: "Remove unused images", path: "/images/prune", heading: "Deleted Images",
		warning:    "This will remove all dangling images.",
		allWarning: "This will remove all images without at least one container associated to them.",
		hasAll:     true, allUsage: "Remove all unused images, not just dangling ones",
		query: func(_ url.Values, o *pruneOptions) { o.filter.Add("dangling", fmt.Sprint(!o.all)) },
		deleted: func(r pruned) []string {
			var out []string
			for _, i := range r.ImagesDeleted {
				if i.Untagged != "" {
					out = append(out, "untagged: "+i.Untagged)
				} else {
					out = append(out, "deleted: "+i.Deleted)
				}
			}
			return out
		},
	}
}

func buildPruner() pruner {
	return pruner{
		short: "Remove build cache", path: "/build/prune", heading: "Deleted build cache objects",
		warning:    "This will remove all dangling build cache.",
		allWarning: "This will remove all build cache.",
		hasAll:     true, allUsage: "Remove all unused build cache, not just dangling ones",
		query: func(q url.Values, o *pruneOptions) {
			if o.all {
				q.Set("all", "1")
			}
		},
		deleted: func(r pruned) []string { return r.CachesDeleted },
	}
}

func containerPruneCommand(a *App) *cobra.Command { return pruneCommand(a, containerPruner()) }
func networkPruneCommand(a *App) *cobra.Command   { return pruneCommand(a, networkPruner()) }
func volumePruneCommand(a *App) *cobra.Command    { return pruneCommand(a, volumePruner()) }
func imagePruneCommand(a *App) *cobra.Command     { return pruneCommand(a, imagePruner()) }

func builderPruneCommand(a *App) *cobra.Command {
	cmd := pruneCommand(a, buildPruner())
	cmd.Flags().Var(new(opt.Bytes), "keep-storage", "Amount of disk space to keep for cache")
	return cmd
}

func systemPruneCommand(a *App) *cobra.Command {
	var o pruneOptions
	cmd := leaf("prune [OPTIONS]", "Remove unused data", noArgs, func(cmd *cobra.Command, _ []string) error {
		if !o.force {
			if err := confirm(cmd.Context(), a, systemPruneWarning(o)); err != nil {
				return err
			}
		}
		if o.background {
			return startJob(cmd.Context(), a, wire.JobRequest{Kind: "prune", Prune: o.request()})
		}
		steps := []pruner{containerPruner(), networkPruner()}
		if o.volumes {
			steps = append(steps, volumePruner())
		}
		var total uint64
		for _, p := range append(steps, imagePruner(), buildPruner()) {
			so := o
			if p.path == "/volumes/prune" {
				so.all = false // system prune takes anonymous volumes only
			}
			n, err := pruneOne(cmd.Context(), a, p, &so)
			if err != nil {
				return err
			}
			total += n
		}
		fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(total)))
		return nil
	})
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	cmd.Flags().BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
	cmd.Flags().BoolVar(&o.background, "background", false, "Have the daemon do it as a job, and print the job's ID")
	cmd.Flags().Var(&o.filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

// request is what `system prune` asks a job to do.
func (o pruneOptions) request() *wire.PruneRequest {
	r := &wire.PruneRequest{All: o.all}
	if o.volumes {
		r.Kinds = []string{"container", "network", "volume", "image", "build-cache"}
	}
	if len(o.filter) > 0 {
		r.Filters = map[string]map[string]bool{}
		for k, vs := range o.filter {
			r.Filters[k] = map[string]bool{}
			for v := range vs {
				r.Filters[k][v] = true
			}
		}
	}
	return r
}

func systemPruneWarning(o pruneOptions) string {
	lines := []string{"all stopped containers", "all networks not used by at least one container"}
	if o.volumes {
		lines = append(lines, "all anonymous volumes not used by at least one container")
	}
	if o.all {
		lines = append(lines, "all images without at least one container associated to them", "all build cache")
	} else {
		lines = append(lines, "all dangling images", "unused build cache")
	}
	return "WARNING! This will remove:\n  - " + strings.Join(lines, "\n  - ") + "\n\nAre you sure you want to continue?"
}
