package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"gantry/internal/client"
)

// maxParallel is how many containers one command works on at once.
const maxParallel = 50

// eachParallel runs f for all names at once and reports in the order of names.
func (a *App) eachParallel(ctx context.Context, names []string, f func(context.Context, string) error) error {
	if _, err := a.client(); err != nil {
		return err
	}
	results := make([]chan error, len(names))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, n := range names {
		results[i] = make(chan error, 1)
		wg.Go(func() {
			slots <- struct{}{}
			results[i] <- f(ctx, n)
			<-slots
		})
	}
	var failed []error
	for i, n := range names {
		switch err := <-results[i]; {
		case err == nil:
			fmt.Fprintln(a.Out, n)
		case !errors.Is(err, errSkip):
			failed = append(failed, err)
		}
	}
	wg.Wait()
	return errors.Join(failed...)
}

// verb makes a command that posts to each container.
func verbCommand(a *App, use, short, path string) *cobra.Command {
	cmd := leaf(use, short, minArgs(1), func(cmd *cobra.Command, args []string) error {
		return a.eachParallel(cmd.Context(), args, func(ctx context.Context, n string) error {
			return a.api.Post(ctx, containerPath(n, path), nil, nil, nil)
		})
	})
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func pauseCommand(a *App) *cobra.Command {
	return verbCommand(a, "pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", "pause")
}

func unpauseCommand(a *App) *cobra.Command {
	return verbCommand(a, "unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", "unpause")
}

func killCommand(a *App) *cobra.Command {
	var signal string
	cmd := leaf("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", minArgs(1), func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if signal != "" {
			q.Set("signal", signal)
		}
		return a.eachParallel(cmd.Context(), args, func(ctx context.Context, n string) error {
			return a.api.Post(ctx, containerPath(n, "kill"), q, nil, nil)
		})
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func stopCommand(a *App) *cobra.Command {
	return stopperCommand(a, "stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", "stop")
}

func restartCommand(a *App) *cobra.Command {
	return stopperCommand(a, "restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", "restart")
}

func stopperCommand(a *App, use, short, path string) *cobra.Command {
	var signal string
	var timeout int
	cmd := leaf(use, short, minArgs(1), func(cmd *cobra.Command, args []string) error {
		fs := cmd.Flags()
		if fs.Changed("time") && fs.Changed("timeout") {
			return errors.New("conflicting options: cannot specify both --timeout and --time")
		}
		q := url.Values{}
		if fs.Changed("time") || fs.Changed("timeout") {
			q.Set("t", strconv.Itoa(timeout))
		}
		if signal != "" {
			q.Set("signal", signal)
		}
		return a.eachParallel(cmd.Context(), args, func(ctx context.Context, n string) error {
			return a.api.Post(ctx, containerPath(n, path), q, nil, nil)
		})
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	cmd.Flags().IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	_ = cmd.Flags().MarkDeprecated("time", "use --timeout instead")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func rmCommand(a *App) *cobra.Command {
	var force, link, volumes bool
	cmd := leaf("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", minArgs(1), func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for k, on := range map[string]bool{"force": force, "link": link, "v": volumes} {
			if on {
				q.Set(k, "1")
			}
		}
		return a.eachParallel(cmd.Context(), args, func(ctx context.Context, n string) error {
			n = strings.Trim(n, "/")
			if n == "" {
				return errors.New("Container name cannot be empty")
			}
			err := a.api.Delete(ctx, containerPath(n), q, nil)
			if force && client.IsNotFound(err) {
				// With --force a container that is gone already is a complaint, no failure.
				fmt.Fprintln(a.Err, err)
				return errSkip
			}
			return err
		})
	})
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&link, "link", "l", false, "Remove the specified link")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

// errSkip says that a name is dealt with, and not to be printed.
var errSkip = errors.New("skip")

func renameCommand(a *App) *cobra.Command {
	cmd := leaf("rename CONTAINER NEW_NAME", "Rename a container", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
		if from == "" || to == "" {
			return errors.New("Error: Neither old nor new names may be empty")
		}
		if err := c.Post(cmd.Context(), containerPath(from, "rename"), url.Values{"name": {to}}, nil, nil); err != nil {
			fmt.Fprintln(a.Err, err)
			return fmt.Errorf("Error: failed to rename container named %s", from)
		}
		return nil
	})
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func waitCommand(a *App) *cobra.Command {
	cmd := leaf("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", minArgs(1), func(cmd *cobra.Command, args []string) error {
		if _, err := a.client(); err != nil {
			return err
		}
		var failed []error
		for _, n := range args {
			w, err := a.wait(cmd.Context(), n, "")
			if err == nil {
				<-w.done
				err = w.err
			}
			if err != nil {
				if cmd.Context().Err() != nil {
					return context.Cause(cmd.Context())
				}
				failed = append(failed, err)
				continue
			}
			if w.res.Error != nil {
				failed = append(failed, errors.New(w.res.Error.Message))
				continue
			}
			fmt.Fprintln(a.Out, w.res.StatusCode)
		}
		return errors.Join(failed...)
	})
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}
