package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/term"
)

// help prints the help of the command that path names, of root if path is empty.
func showHelp(ctx context.Context, a *App, root *cobra.Command, path []string) error {
	if len(path) == 0 {
		rootHelp(ctx, a, a.Out, root)
		return nil
	}
	cmd, rest, err := root.Find(path)
	if err != nil || cmd == root || len(rest) > 0 && cmd.HasSubCommands() {
		return fmt.Errorf("unknown help topic: %s", strings.Join(path, " "))
	}
	commandHelp(a, a.Out, cmd)
	return nil
}

func width() int {
	if s := term.SizeOf(os.Stdin); s.Width > 0 {
		return int(s.Width)
	}
	return 80
}

func rootHelp(ctx context.Context, a *App, w io.Writer, root *cobra.Command) {
	fmt.Fprintf(w, "Usage:  %s [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n", a.name)
	byGroup := map[string][]*cobra.Command{}
	order := map[string]int{}
	for _, e := range entries() {
		order[e.top] = e.common
	}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			byGroup[c.GroupID] = append(byGroup[c.GroupID], c)
		}
	}
	for _, g := range root.Groups() {
		if list := byGroup[g.ID]; len(list) > 0 {
			fmt.Fprintf(w, "\n%s\n", g.Title)
			if g.ID == groupCommon {
				sort.Slice(list, func(i, j int) bool { return order[list[i].Name()] < order[list[j].Name()] })
			}
			listCommands(a, w, list)
		}
	}
	pluginHelp(ctx, a, w)
	fmt.Fprintf(w, "\nGlobal Options:\n%s\nRun '%s COMMAND --help' for more information on a command.\n", a.globals().FlagUsagesWrapped(width()-1), a.name)
}

func listCommands(a *App, w io.Writer, list []*cobra.Command) {
	for _, c := range list {
		fmt.Fprintf(w, "  %-11s %s\n", c.Name(), c.Short)
	}
}

// usageText is the line behind "Usage:" in help.
func usageText(cmd *cobra.Command) string {
	if cmd.HasSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

func commandHelp(a *App, w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "Usage:  %s\n\n", usageText(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintln(w, text)
	if names := cmd.Annotations[aliasKey]; names != "" {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.ReplaceAll(names, "$0", a.name))
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasSubCommands() {
		fmt.Fprint(w, "\nCommands:\n")
		var list []*cobra.Command
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				list = append(list, c)
			}
		}
		listCommands(a, w, list)
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
		return
	}
	if s := flagUsages(cmd.Flags()); s != "" {
		fmt.Fprintf(w, "\nOptions:\n%s", s)
	}
}

// flagUsages lists the flags; --help is listed only where -h means something else.
func flagUsages(fs *pflag.FlagSet) string {
	if h := fs.Lookup("help"); h != nil && fs.ShorthandLookup("h") == h {
		hidden := h.Hidden
		h.Hidden = true
		defer func() { h.Hidden = hidden }()
	}
	return fs.FlagUsagesWrapped(width() - 1)
}

// unknownCommand is the error for a name that is no command, with what was
// probably meant.
func unknownCommand(a *App, path, usage string, near []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: unknown command: %s\n", a.name, path)
	if len(near) > 0 {
		b.WriteString("\nDid you mean ")
		if len(near) > 1 {
			b.WriteString("one of these")
		} else {
			b.WriteString("this")
		}
		b.WriteString("?\n")
		for _, n := range near {
			fmt.Fprintf(&b, "  %s\n", n)
		}
	}
	help := path[:strings.LastIndexByte(path, ' ')]
	if usage != "" {
		fmt.Fprintf(&b, "\nUsage:  %s\n", usage)
	}
	fmt.Fprintf(&b, "\nRun '%s --help' for more information", help)
	return &StatusError{Text: b.String(), Code: 1}
}

// similar returns those of names that are near to typed: a few edits away, or
// beginning with it. At most three.
func similar(typed string, names []string) []string {
	type scored struct {
		name string
		d    int
	}
	var hits []scored
	for _, n := range names {
		d := distance(typed, n)
		if d <= max(1, min(len(typed), len(n))/3) || len(typed) > 1 && strings.HasPrefix(n, typed) {
			hits = append(hits, scored{n, d})
		}
	}
	sort.Slice(hits, func(i, j int) bool {
		return hits[i].d < hits[j].d || hits[i].d == hits[j].d && hits[i].name < hits[j].name
	})
	var out []string
	for _, h := range hits {
		if len(out) == 3 || h.d > hits[0].d+1 {
			break
		}
		out = append(out, h.name)
	}
	return out
}

// distance counts the letters to insert, drop, replace or swap (optimal string
// alignment).
func distance(a, b string) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
