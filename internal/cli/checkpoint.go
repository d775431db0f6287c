package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func checkpointCreateCommand(a *App) *cobra.Command {
	var body struct {
		CheckpointID, CheckpointDir string
		Exit                        bool
	}
	var leave bool
	cmd := leaf("create [OPTIONS] CONTAINER CHECKPOINT", "Create a checkpoint from a running container", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		body.CheckpointID, body.Exit = args[1], !leave
		if err := c.Post(cmd.Context(), containerPath(args[0], "checkpoints"), nil, &body, nil); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, args[1])
		return nil
	})
	cmd.Flags().BoolVar(&leave, "leave-running", false, "Leave the container running after checkpoint")
	cmd.Flags().StringVar(&body.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func checkpointListCommand(a *App) *cobra.Command {
	var dir string
	cmd := leaf("ls [OPTIONS] CONTAINER", "List checkpoints for a container", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var list []struct{ Name string }
		if err := c.Get(cmd.Context(), containerPath(args[0], "checkpoints"), checkpointDir(dir), &list); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, "CHECKPOINT NAME")
		for _, p := range list {
			fmt.Fprintln(a.Out, p.Name)
		}
		return nil
	})
	cmd.Flags().StringVar(&dir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func checkpointRemoveCommand(a *App) *cobra.Command {
	var dir string
	cmd := leaf("rm [OPTIONS] CONTAINER CHECKPOINT", "Remove a checkpoint", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.Delete(cmd.Context(), containerPath(args[0], "checkpoints/"+url.PathEscape(args[1])), checkpointDir(dir), nil)
	})
	cmd.Flags().StringVar(&dir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func checkpointDir(dir string) url.Values {
	q := url.Values{}
	if dir != "" {
		q.Set("dir", dir)
	}
	return q
}
