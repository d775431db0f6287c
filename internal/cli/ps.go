package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/wire"
)

// formatUsage is the text of --format, the same for every list.
const formatUsage = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// inspectFormatUsage is the text of --format of commands that show one object.
const inspectFormatUsage = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// setFilters puts f into q as the API wants it.
func setFilters(q url.Values, f opt.Filter) {
	if len(f) == 0 {
		return
	}
	b, err := json.Marshal(f)
	if err == nil { // maps of strings and bools always encode
		q.Set("filters", string(b))
	}
}

type psOptions struct {
	all, latest, noTrunc, quiet, size bool
	last                              int
	format                            string
	filter                            opt.Filter

	sizeGiven bool // --size was given, be it as false
}

func psCommand(a *App) *cobra.Command {
	var o psOptions
	cmd := leaf("ls [OPTIONS]", "List containers", noArgs, func(cmd *cobra.Command, _ []string) error {
		o.sizeGiven = cmd.Flags().Changed("size")
		return listContainers(cmd.Context(), a, &o)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.StringVar(&o.format, "format", "", formatUsage)
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

func listContainers(ctx context.Context, a *App, o *psOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	format := listFormat(a, listFlags{format: o.format, key: "psFormat", quiet: o.quiet})
	if o.format != "" && o.quiet {
		fmt.Fprintln(a.Err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
	}
	if err := formatter.CheckContainers(format); err != nil {
		return err
	}
	q := url.Values{}
	if o.all {
		q.Set("all", "1")
	}
	if o.latest && o.last == -1 {
		o.last = 1
	}
	if o.last > 0 {
		q.Set("limit", strconv.Itoa(o.last))
	}
	// A template that shows the size needs the daemon to measure it.
	if o.size || !o.sizeGiven && formatter.ShowsSize(format) {
		q.Set("size", "1")
	}
	setFilters(q, o.filter)
	var list []wire.ContainerSummary
	if err := c.Get(ctx, "/containers/json", q, &list); err != nil {
		return err
	}
	rows := formatter.Containers(list, formatter.RowOptions{Trunc: !o.noTrunc, Now: time.Now()})
	if o.quiet {
		return quietIDs(a, rows)
	}
	return formatter.ContainerTable(formatter.TableOptions{Size: o.size}).Render(a.Out, format, rows)
}

// listFlags say how a list is shown.
type listFlags struct {
	format string // of the flag
	key    string // in config.json
	quiet  bool
}

// listFormat returns the format of a list: the flag, or what config.json says.
func listFormat(a *App, l listFlags) string {
	if l.format == "" && !l.quiet {
		return a.config().Formats[l.key]
	}
	return l.format
}

// quietIDs prints the ids of rows.
func quietIDs[T interface{ ID() string }](a *App, rows []T) error {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r.ID())
		b.WriteByte('\n')
	}
	_, err := a.Out.Write([]byte(b.String()))
	return err
}
