package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/term"
	"gantry/internal/client"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// Beyond Docker: work that the daemon goes on with when nobody waits for it.

func startJob(ctx context.Context, a *App, req wire.JobRequest) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/gantry/jobs", JSON: req, Raw: true})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return eachJSON(ctx, res.Body, func(j wire.Job) error {
		_, err := fmt.Fprintln(a.Out, j.ID)
		return err
	})
}

func listJobs(ctx context.Context, a *App) ([]wire.Job, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/gantry/jobs", Raw: true})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list []wire.Job
	err = eachJSON(ctx, res.Body, func(l []wire.Job) error { list = l; return nil })
	return list, err
}

func jobsCommand(a *App) *cobra.Command {
	var format string
	var quiet bool
	cmd := leaf("ls [OPTIONS]", "List background jobs", noArgs, func(cmd *cobra.Command, _ []string) error {
		list, err := listJobs(cmd.Context(), a)
		if err != nil {
			return err
		}
		if quiet {
			for _, j := range list {
				fmt.Fprintln(a.Out, id.Short(j.ID))
			}
			return nil
		}
		return formatter.JobTable().Render(a.Out, format, formatter.Jobs(list, time.Now()))
	})
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display job IDs")
	return cmd
}

func jobWaitCommand(a *App) *cobra.Command {
	var quiet bool
	cmd := leaf("wait [OPTIONS] JOB", "Wait for a background job and print its report", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		return waitJob(cmd.Context(), a, args[0], quiet)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Do not show progress")
	cmd.ValidArgsFunction = completeJobs(a)
	return cmd
}

// waitJob follows a job and prints its report. Without one to its end, the
// command fails.
func waitJob(ctx context.Context, a *App, ref string, quiet bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/gantry/jobs/" + ref + "/progress", Raw: true})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var last wire.Job
	live := !quiet && term.IsTerminal(os.Stderr)
	err = eachJSON(ctx, res.Body, func(j wire.Job) error {
		last = j
		if live {
			fmt.Fprintf(a.Err, "\r\033[K%s", jobLine(j.Progress))
		}
		return nil
	})
	if live {
		fmt.Fprint(a.Err, "\r\033[K")
	}
	if err != nil {
		return err
	}
	if err := printJobReport(a, last); err != nil {
		return err
	}
	switch last.State {
	case wire.JobDone:
		return nil
	case wire.JobRunning:
		return fmt.Errorf("the daemon has ended before the job %s", id.Short(last.ID))
	}
	return fmt.Errorf("job %s: %s", last.State, last.Error)
}

// jobLine says how far a job is.
func jobLine(p wire.JobProgress) string {
	var b strings.Builder
	if p.Steps > 0 {
		fmt.Fprintf(&b, "[%d/%d] ", p.Step, p.Steps)
	}
	fmt.Fprintf(&b, "%s: %d removed", p.Doing, p.Removed)
	if p.Last != "" {
		fmt.Fprintf(&b, ", last %.40s", p.Last)
	}
	return b.String()
}

// printJobReport prints what a job has removed, as a prune does.
func printJobReport(a *App, j wire.Job) error {
	if j.Report == nil {
		return nil
	}
	if j.Kind != "prune" {
		_, err := fmt.Fprintln(a.Out, string(j.Report))
		return err
	}
	var r pruned
	if err := json.Unmarshal(j.Report, &r); err != nil {
		return fmt.Errorf("reading the job's report: %w", err)
	}
	for _, p := range []pruner{containerPruner(), networkPruner(), volumePruner(), imagePruner(), buildPruner()} {
		if list := p.deleted(r); len(list) > 0 {
			fmt.Fprintf(a.Out, "%s:\n%s\n\n", p.heading, strings.Join(list, "\n"))
		}
	}
	_, err := fmt.Fprintln(a.Out, "Total reclaimed space:", units.HumanSize(float64(r.SpaceReclaimed)))
	return err
}

func jobCancelCommand(a *App) *cobra.Command {
	cmd := leaf("cancel JOB [JOB...]", "Cancel background jobs, and forget those that have ended", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		for _, ref := range args {
			res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodDelete, Path: "/gantry/jobs/" + ref, Raw: true})
			if err != nil {
				return err
			}
			res.Body.Close()
			fmt.Fprintln(a.Out, ref)
		}
		return nil
	})
	cmd.ValidArgsFunction = completeJobs(a)
	return cmd
}

func completeJobs(a *App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		list, err := listJobs(ctx, a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, j := range list {
			out = append(out, id.Short(j.ID))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
