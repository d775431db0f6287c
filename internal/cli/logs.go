package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"gantry/internal/cli/term"
	"gantry/internal/client"
)

func lookupEnv(name string) (string, bool) { return os.LookupEnv(name) }

type logsOptions struct {
	follow, timestamps, details bool
	since, until, tail          string
}

func logsCommand(a *App) *cobra.Command {
	var o logsOptions
	cmd := leaf("logs [OPTIONS] CONTAINER", "Fetch the logs of a container", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		return showLogs(cmd.Context(), a, args[0], &o)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&o.timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&o.details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&o.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func showLogs(ctx context.Context, a *App, name string, o *logsOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {o.tail}}
	for k, on := range map[string]bool{"follow": o.follow, "timestamps": o.timestamps, "details": o.details} {
		if on {
			q.Set(k, "1")
		}
	}
	if err := setTimes(q, o.since, o.until); err != nil {
		return err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "logs"), Query: q})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	framed, err := isFramed(ctx, a, name, res.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	if framed {
		err = term.Demux(a.Out, a.Err, res.Body)
	} else {
		_, err = io.Copy(a.Out, res.Body)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// framed says whether a stream of name's output has frames. Daemons of 1.42 and
// newer say it themselves; else the container's terminal decides.
func isFramed(ctx context.Context, a *App, name, contentType string) (bool, error) {
	if contentType == "application/vnd.docker.multiplexed-stream" {
		return true, nil
	}
	if a.api.AtLeast("1.42") {
		return false, nil
	}
	c, err := a.inspectContainer(ctx, name)
	if err != nil {
		return false, err
	}
	return !c.Config.Tty, nil
}
