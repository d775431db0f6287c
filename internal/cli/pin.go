package cli

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"gantry/internal/client"
)

// Beyond Docker: images that prunes and the disk budget leave alone.

func imagePinCommand(a *App) *cobra.Command {
	return pinCommand(a, "pin", "Keep images from prunes and the disk budget", http.MethodPost)
}

func imageUnpinCommand(a *App) *cobra.Command {
	return pinCommand(a, "unpin", "Leave images to prunes and the disk budget again", http.MethodDelete)
}

func pinCommand(a *App, name, short, method string) *cobra.Command {
	cmd := leaf(name+" IMAGE [IMAGE...]", short, minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var all []error
		for _, ref := range args {
			res, err := c.Stream(cmd.Context(), client.Request{Method: method, Path: "/gantry/images/" + ref + "/pin", Raw: true})
			if err != nil {
				all = append(all, err)
				continue
			}
			res.Body.Close()
			fmt.Fprintln(a.Out, ref)
		}
		return errors.Join(all...)
	})
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}
