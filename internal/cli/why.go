package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"gantry/internal/client"
)

// whyCommand is beyond Docker: it explains which packet rule lets packets for a
// port pass, or stops them. A container called "why" goes by its ID.
func whyCommand(a *App) *cobra.Command {
	var from string
	cmd := leaf("why [OPTIONS] CONTAINER PORT[/PROTO]", "Explain which packet rule lets packets for a port pass, or stops them", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"port": {args[1]}}
		if from != "" {
			q.Set("from", from)
		}
		res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/gantry/containers/" + url.PathEscape(args[0]) + "/why", Query: q, Raw: true})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var answer struct {
			Reachable, Doubt bool
			Steps            []string
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			return fmt.Errorf("reading the daemon's answer: %w", err)
		}
		for _, s := range answer.Steps {
			fmt.Fprintln(a.Out, s)
		}
		switch {
		case !answer.Reachable:
			return &StatusError{Text: "not reachable", Code: 1}
		case answer.Doubt:
			fmt.Fprintln(a.Out, "reachable, unless a chain named above drops it")
		default:
			fmt.Fprintln(a.Out, "reachable")
		}
		return nil
	})
	cmd.Flags().StringVar(&from, "from", "", "Address that the packets come from (default: some host elsewhere)")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}
