package buildx

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"

	"gantry/internal/cli/opt"
	"gantry/internal/cli/term"
)

// adminCommands are what looks after the builder.
func adminCommands(a *App) []*cobra.Command {
	out := []*cobra.Command{duCommand(a), pruneCommand(a), cacheCommand(a), lsCommand(a), inspectCommand(a), useCommand(a), historyCommand(a), imagetoolsCommand(a), versionCommand(a)}
	for _, name := range []string{"create", "rm", "stop"} {
		out = append(out, &cobra.Command{Use: name, Hidden: true, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%s: builds run on the daemon, there are no other builders; gantry context create adds a daemon to build on", name)
		}})
	}
	return out
}

func versionCommand(a *App) *cobra.Command {
	return leaf("version", "Show buildx version information", atMost(0), func(*cobra.Command, []string) error {
		fmt.Fprintf(a.Out, "gantry-buildx %s %s\n", a.version.plugin(), a.version.Commit)
		return nil
	})
}

// cacheFilter turns a filter of the command line into the builder's.
func cacheFilter(s string) (filter string, age time.Duration, err error) {
	k, v, valued := strings.Cut(s, "=")
	switch name := strings.TrimSuffix(k, "~"); name {
	case "until", "unused-for":
		age, err = time.ParseDuration(v)
		return "", age, err
	case "id", "parents", "description", "type":
		if !valued {
			return "", 0, fmt.Errorf("invalid filter %q: a value is needed", s)
		}
		if strings.HasSuffix(k, "~") {
			return name + "~=" + v, 0, nil
		}
		return name + "==" + v, 0, nil
	case "parent":
		return "parents==" + v, 0, nil
	case "inuse", "mutable", "immutable", "shared", "private":
		if valued && v == "false" {
			return "!" + name, 0, nil
		}
		return name, 0, nil
	}
	return "", 0, fmt.Errorf("invalid filter %q", s)
}

// cacheFilters joins filters: all must hold.
func cacheFilters(list []string) (string, time.Duration, error) {
	var parts []string
	var age time.Duration
	for _, s := range list {
		f, d, err := cacheFilter(s)
		if err != nil {
			return "", 0, err
		}
		if f != "" {
			parts = append(parts, f)
		}
		age = max(age, d)
	}
	return strings.Join(parts, ","), age, nil
}

type duOptions struct {
	filters []string
	format  string
	verbose bool
}

func duCommand(a *App) *cobra.Command {
	o := &duOptions{}
	var timeout time.Duration
	cmd := leaf("du [OPTIONS]", "Disk usage", atMost(0), func(cmd *cobra.Command, _ []string) error { return a.du(cmd.Context(), o) })
	fs := cmd.Flags()
	fs.StringArrayVar(&o.filters, "filter", nil, "Provide filter values")
	fs.StringVar(&o.format, "format", "", "Format the output")
	fs.BoolVar(&o.verbose, "verbose", false, "Shorthand for `--format=pretty`")
	fs.DurationVar(&timeout, "timeout", 20*time.Second, "Override the default timeout for loading builder status")
	return cmd
}

func (a *App) du(ctx context.Context, o *duOptions) error {
	if o.format != "" && o.verbose {
		return errors.New("--format and --verbose cannot be used together")
	}
	filter, age, err := cacheFilters(o.filters)
	if err != nil {
		return err
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return err
	}
	var opts []client.DiskUsageOption
	if filter != "" {
		opts = append(opts, client.WithFilter([]string{filter}))
	}
	if age > 0 {
		opts = append(opts, client.WithAgeLimit(age))
	}
	list, err := c.DiskUsage(ctx, opts...)
	if err != nil {
		return err
	}
	if o.format != "" && o.format != "pretty" {
		if done, err := formatted(a.Out, o.format, list); done || err != nil {
			return err
		}
	}
	switch {
	case o.verbose || o.format == "pretty":
		printPretty(a.Out, list)
	default:
		if err := printUsage(a.Out, list); err != nil {
			return err
		}
	}
	if len(o.filters) == 0 {
		return printTotals(a.Out, list)
	}
	return nil
}

// formatted prints a list as --format asks for it, and reports whether it has: a
// table is the caller's to draw.
func formatted[T any](w io.Writer, format string, list []T) (done bool, err error) {
	switch format {
	case "table":
		return false, nil
	case "json":
		e := json.NewEncoder(w)
		for _, x := range list {
			if err := e.Encode(x); err != nil {
				return true, err
			}
		}
		return true, nil
	default:
		return true, formatEach(w, format, list)
	}
}

// formatEach prints each of a list by a template.
func formatEach[T any](w io.Writer, format string, list []T) error {
	t, err := template.New("").Parse(strings.TrimPrefix(format, "table "))
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	for _, x := range list {
		if err := t.Execute(w, x); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return nil
}

func usageRow(u *client.UsageInfo) []string {
	id := u.ID
	if u.Mutable {
		id += "*"
	}
	size := units.HumanSize(float64(u.Size))
	if u.Shared {
		size += "*"
	}
	used := ""
	if u.LastUsedAt != nil {
		used = units.HumanDuration(time.Since(*u.LastUsedAt)) + " ago"
	}
	return []string{id, fmt.Sprint(!u.InUse), size, used}
}

func printUsage(w io.Writer, list []*client.UsageInfo) error {
	rows := [][]string{{"ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"}}
	for _, u := range list {
		rows = append(rows, usageRow(u))
	}
	return table(w, rows)
}

func printPretty(w io.Writer, list []*client.UsageInfo) {
	for _, u := range list {
		row := usageRow(u)
		fmt.Fprintf(w, "ID:           %s\n", u.ID)
		if len(u.Parents) > 0 {
			fmt.Fprintf(w, "Parents:\n - %s\n", strings.Join(u.Parents, "\n - "))
		}
		fmt.Fprintf(w, "Created at:   %s\nMutable:      %v\nReclaimable:  %v\nShared:       %v\nSize:         %s\n", u.CreatedAt.UTC(), u.Mutable, !u.InUse, u.Shared, row[2])
		if u.Description != "" {
			fmt.Fprintf(w, "Description:  %s\n", u.Description)
		}
		fmt.Fprintf(w, "Usage count:  %d\n", u.UsageCount)
		if row[3] != "" {
			fmt.Fprintf(w, "Last used:    %s\n", row[3])
		}
		fmt.Fprintf(w, "Type:         %s\n\n", u.RecordType)
	}
}

// printTotals prints what of the cache is shared with images and what can go.
func printTotals(w io.Writer, list []*client.UsageInfo) error {
	var total, reclaimable, shared int64
	for _, u := range list {
		if u.Size <= 0 {
			continue
		}
		total += u.Size
		if !u.InUse {
			reclaimable += u.Size
		}
		if u.Shared {
			shared += u.Size
		}
	}
	var rows [][]string
	if shared > 0 {
		rows = append(rows, []string{"Shared:", units.HumanSize(float64(shared))}, []string{"Private:", units.HumanSize(float64(total - shared))})
	}
	return table(w, append(rows, []string{"Reclaimable:", units.HumanSize(float64(reclaimable))}, []string{"Total:", units.HumanSize(float64(total))}))
}

type pruneOptions struct {
	filters             []string
	all, force, verbose bool
	reserved, max, free opt.Bytes
}

func pruneCommand(a *App) *cobra.Command {
	o := &pruneOptions{}
	cmd := leaf("prune [OPTIONS]", "Remove build cache", atMost(0), func(cmd *cobra.Command, _ []string) error { return a.prune(cmd.Context(), o) })
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Include internal/frontend images")
	fs.StringArrayVar(&o.filters, "filter", nil, `Provide filter values (e.g., "until=24h")`)
	fs.Var(&o.reserved, "reserved-space", "Amount of disk space always allowed to keep for cache")
	fs.Var(&o.reserved, "keep-storage", "Amount of disk space to keep for cache")
	fs.Var(&o.max, "max-used-space", "Maximum amount of disk space allowed to keep for cache")
	fs.Var(&o.free, "min-free-space", "Target amount of free disk space after pruning")
	fs.BoolVar(&o.verbose, "verbose", false, "Provide a more verbose output")
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.Lookup("keep-storage").Hidden = true
	return cmd
}

func (a *App) prune(ctx context.Context, o *pruneOptions) error {
	filter, age, err := cacheFilters(o.filters)
	if err != nil {
		return err
	}
	if !o.force {
		warning := "WARNING! This will remove all dangling build cache. Are you sure you want to continue?"
		if o.all {
			warning = "WARNING! This will remove all build cache. Are you sure you want to continue?"
		}
		if err := a.confirm(warning); err != nil {
			return err
		}
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return err
	}
	opts := []client.PruneOption{client.WithKeepOpt(age, int64(o.reserved), int64(o.max), int64(o.free))}
	if filter != "" {
		opts = append(opts, client.WithFilter([]string{filter}))
	}
	if o.all {
		opts = append(opts, client.PruneAll)
	}
	ch := make(chan client.UsageInfo)
	done := make(chan struct{})
	var gone []*client.UsageInfo
	go func() {
		defer close(done)
		for u := range ch {
			gone = append(gone, &u)
		}
	}()
	err = c.Prune(ctx, ch, opts...)
	close(ch)
	<-done
	if err != nil {
		return err
	}
	if o.verbose {
		printPretty(a.Out, gone)
	} else if err := printUsage(a.Out, gone); err != nil {
		return err
	}
	var total int64
	for _, u := range gone {
		total += max(u.Size, 0)
	}
	fmt.Fprintf(a.Out, "Total:\t%s\n", units.HumanSize(float64(total)))
	return nil
}

// confirm asks; anything but y is a no.
func (a *App) confirm(text string) error {
	fmt.Fprint(a.Out, text+" [y/N] ")
	if term.IsTerminal(a.In) {
		defer fmt.Fprintln(a.Out)
	}
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if s := strings.ToLower(strings.TrimSpace(line)); s != "y" && s != "yes" {
		return errors.New("cancelled")
	}
	return nil
}
