package cli

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"gantry/internal/cli/opt"
	"gantry/internal/cli/ref"
)

func commitCommand(a *App) *cobra.Command {
	var author, message string
	var pause, noPause bool
	var changes opt.List
	cmd := leaf("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", rangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("pause") && cmd.Flags().Changed("no-pause") {
			return errors.New("conflicting options: --no-pause and --pause cannot be used together")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"container": {args[0]}, "comment": {message}, "author": {author}}
		if !pause || noPause {
			q.Set("pause", "0")
		}
		for _, ch := range changes.Values {
			q.Add("changes", ch)
		}
		if len(args) == 2 {
			n, err := ref.Parse(args[1])
			if err != nil {
				return err
			}
			if n.Digest != "" {
				return errors.New("refusing to create a tag with a digest reference")
			}
			n = n.Tagged()
			q.Set("repo", n.Repository())
			q.Set("tag", n.Tag)
		}
		var res struct {
			ID string `json:"Id"`
		}
		if err := c.Post(cmd.Context(), "/commit", q, nil, &res); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, res.ID)
		return nil
	})
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.BoolVar(&noPause, "no-pause", false, "Disable pausing container during commit")
	fs.StringVarP(&message, "message", "m", "", "Commit message")
	fs.StringVarP(&author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}
