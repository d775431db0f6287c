package buildx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
)

// past is a build of the daemon's history.
type past struct {
	Ref       string     `json:"ref"`
	Name      string     `json:"name"`
	Status    string     `json:"status"`
	Created   time.Time  `json:"created_at"`
	Completed *time.Time `json:"completed_at,omitempty"`
	Total     int32      `json:"total_steps"`
	Done      int32      `json:"completed_steps"`
	Cached    int32      `json:"cached_steps"`
	Error     string     `json:"error,omitempty"`
	attrs     map[string]string
}

func (p past) duration() string {
	end := time.Now()
	if p.Completed != nil {
		end = *p.Completed
	}
	return end.Sub(p.Created).Round(100 * time.Millisecond).String()
}

// pastName names a build by its target and where it came from.
func pastName(attrs map[string]string) string {
	name := attrs["context"]
	if name == "" {
		name = attrs["filename"]
		if i := strings.IndexByte(attrs["local-sharedkeyhint:context"], ':'); i > 0 {
			name = attrs["local-sharedkeyhint:context"][:i]
		}
	} else {
		name = path.Base(name)
	}
	if t := attrs["target"]; t != "" {
		name += " (" + t + ")"
	}
	return name
}

// pastBuilds asks for the history, the newest first.
func pastBuilds(ctx context.Context, a *App, ref string) ([]past, error) {
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.ControlClient().ListenBuildHistory(ctx, &control.BuildHistoryRequest{EarlyExit: true, Ref: ref})
	if err != nil {
		return nil, err
	}
	var out []past
	for {
		ev, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		r := ev.GetRecord()
		if r == nil || ev.Type == control.BuildHistoryEventType_DELETED {
			continue
		}
		p := past{Ref: r.Ref, Name: pastName(r.FrontendAttrs), Status: "Running", Created: r.CreatedAt.AsTime(), Total: r.NumTotalSteps, Done: r.NumCompletedSteps, Cached: r.NumCachedSteps, attrs: r.FrontendAttrs}
		if r.CompletedAt != nil {
			t := r.CompletedAt.AsTime()
			p.Completed, p.Status = &t, "Completed"
		}
		if r.Error != nil {
			p.Status, p.Error = "Error", r.Error.Message
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y past) int { return y.Created.Compare(x.Created) })
	return out, nil
}

// pastBuild returns the build that args name: the newest, ^N, or by a part of its
// reference.
func pastBuild(ctx context.Context, a *App, args []string) (past, error) {
	list, err := pastBuilds(ctx, a, "")
	if err != nil {
		return past{}, err
	}
	ref := ""
	if len(args) > 0 {
		ref = path.Base(args[0])
	}
	if n := 0; strings.HasPrefix(ref, "^") || ref == "" {
		if _, err := fmt.Sscanf(ref, "^%d", &n); err != nil && ref != "" && ref != "^" {
			return past{}, fmt.Errorf("invalid reference %q", ref)
		}
		if n < len(list) {
			return list[n], nil
		}
		return past{}, errors.New("no record found")
	}
	for _, p := range list {
		if strings.HasPrefix(p.Ref, ref) {
			return p, nil
		}
	}
	return past{}, fmt.Errorf("no record found for ref %q", ref)
}

func historyCommand(a *App) *cobra.Command {
	group := &cobra.Command{Use: "history", Short: "Commands to work on build records"}
	group.AddCommand(historyLsCommand(a), historyInspectCommand(a), historyLogsCommand(a), historyRmCommand(a))
	return group
}

func historyLsCommand(a *App) *cobra.Command {
	var format string
	var noTrunc, local bool
	cmd := leaf("ls [OPTIONS]", "List build records", atMost(0), func(cmd *cobra.Command, _ []string) error {
		list, err := pastBuilds(cmd.Context(), a, "")
		if err != nil {
			return err
		}
		if done, err := formatted(a.Out, format, list); done || err != nil {
			return err
		}
		rows := [][]string{{"BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"}}
		for _, p := range list {
			name := p.Name
			if r := []rune(name); len(r) > 36 && !noTrunc {
				name = string(r[:35]) + "…"
			}
			rows = append(rows, []string{p.Ref, name, p.Status, units.HumanDuration(time.Since(p.Created)) + " ago", p.duration()})
		}
		return table(a.Out, rows)
	})
	cmd.Flags().StringVar(&format, "format", "table", "Format the output")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	cmd.Flags().BoolVar(&local, "local", false, "List records for current repository only")
	return cmd
}

func historyInspectCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("inspect [OPTIONS] [REF]", "Inspect a build record", atMost(1), func(cmd *cobra.Command, args []string) error {
		p, err := pastBuild(cmd.Context(), a, args)
		if err != nil {
			return err
		}
		switch format {
		case "pretty":
		case "json":
			e := json.NewEncoder(a.Out)
			e.SetIndent("", "  ")
			return e.Encode(p)
		default:
			return formatEach(a.Out, format, []past{p})
		}
		rows := [][]string{{"Name:", p.Name}, {"Status:", p.Status}, {"Started:", p.Created.Local().Format(time.DateTime)}, {"Duration:", p.duration()}, {"Build Steps:", fmt.Sprintf("%d/%d (%.0f%% cached)", p.Done, p.Total, float64(p.Cached)/float64(max(p.Total, 1))*100)}}
		for k, v := range p.attrs {
			if n, ok := strings.CutPrefix(k, "build-arg:"); ok {
				rows = append(rows, []string{"Build arg:", n + "=" + v})
			}
		}
		if p.Error != "" {
			rows = append(rows, []string{"Error:", p.Error})
		}
		slices.SortStableFunc(rows[5:], func(x, y []string) int { return strings.Compare(x[0]+x[1], y[0]+y[1]) })
		return table(a.Out, rows)
	})
	cmd.Flags().StringVar(&format, "format", "pretty", "Format the output")
	return cmd
}

func historyLogsCommand(a *App) *cobra.Command {
	var mode string
	cmd := leaf("logs [OPTIONS] [REF]", "Print the logs of a build record", atMost(1), func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		p, err := pastBuild(ctx, a, args)
		if err != nil {
			return err
		}
		c, err := a.buildkit(ctx)
		if err != nil {
			return err
		}
		s, err := c.ControlClient().Status(ctx, &control.StatusRequest{Ref: p.Ref})
		if err != nil {
			return err
		}
		d, err := progressui.NewDisplay(a.Out, progressui.DisplayMode(mode))
		if err != nil {
			return err
		}
		ch := make(chan *client.SolveStatus)
		got := make(chan error, 1)
		go func() {
			defer close(ch)
			for {
				res, err := s.Recv()
				if errors.Is(err, io.EOF) {
					got <- nil
					return
				}
				if err != nil {
					got <- err
					return
				}
				select {
				case ch <- client.NewSolveStatus(res):
				case <-ctx.Done():
					got <- context.Cause(ctx)
					return
				}
			}
		}()
		if _, err := d.UpdateFrom(ctx, ch); err != nil {
			return err
		}
		return <-got
	})
	cmd.Flags().StringVar(&mode, "progress", "plain", `Set type of progress output ("plain", "rawjson", "tty")`)
	return cmd
}

func historyRmCommand(a *App) *cobra.Command {
	var all bool
	cmd := leaf("rm [OPTIONS] [REF...]", "Remove build records", cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) == 0 && !all {
			return errors.New("rm requires at least one argument")
		}
		if len(args) > 0 && all {
			return errors.New("rm requires either --all or at least one argument")
		}
		var refs []string
		if all {
			list, err := pastBuilds(ctx, a, "")
			if err != nil {
				return err
			}
			for _, p := range list {
				refs = append(refs, p.Ref)
			}
		}
		for _, arg := range args {
			p, err := pastBuild(ctx, a, []string{arg})
			if err != nil {
				return err
			}
			refs = append(refs, p.Ref)
		}
		c, err := a.buildkit(ctx)
		if err != nil {
			return err
		}
		for _, r := range refs {
			if _, err := c.ControlClient().UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: r, Delete: true}); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&all, "all", false, "Remove all build records")
	return cmd
}

// registryOf returns the key under which credentials for an image are known.
func registryOf(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return conf.ServerKey(reference.Domain(ref)), nil
}
