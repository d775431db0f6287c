package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"gantry/internal/client"
	"gantry/internal/wire"
)

// The commands that carry what volumes hold in and out, which Docker has not.

func transferPath(name, what string) string {
	return objectPath("/gantry/volumes/", name) + "/" + what
}

func volumeExportCommand(a *App) *cobra.Command {
	var output string
	cmd := leaf("export [OPTIONS] VOLUME", "Write what a volume holds as a tar archive", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return download(cmd.Context(), a, c, transferPath(args[0], "export"), nil, output, "export volume")
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

func volumeImportCommand(a *App) *cobra.Command {
	var input string
	cmd := leaf("import [OPTIONS] VOLUME", "Fill an empty or new volume from a tar archive or STDIN", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		in, err := a.archive(input, "import")
		if err != nil {
			return err
		}
		defer in.Close()
		res, err := c.Stream(cmd.Context(), client.Request{
			Method: http.MethodPost, Path: transferPath(args[0], "import"), Body: in, Header: http.Header{"Content-Type": {"application/x-tar"}},
		})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var got wire.VolumeCopied
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, got.Name)
		return nil
	})
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	return cmd
}

func volumeCloneCommand(a *App) *cobra.Command {
	var quiet bool
	return withFlags(leaf("clone [OPTIONS] VOLUME NEW_VOLUME", "Make a volume with what another one holds", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		return cloneVolume(cmd, a, args[0], wire.VolumeClone{To: args[1]}, quiet)
	}), func(cmd *cobra.Command) { quietFlag(cmd, &quiet) })
}

func volumeSnapshotCommand(a *App) *cobra.Command {
	var quiet bool
	return withFlags(leaf("snapshot [OPTIONS] VOLUME [NEW_VOLUME]", "Keep what a volume holds now as another volume", rangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		req := wire.VolumeClone{Snapshot: true}
		if len(args) == 2 {
			req.To = args[1]
		}
		return cloneVolume(cmd, a, args[0], req, quiet)
	}), func(cmd *cobra.Command) { quietFlag(cmd, &quiet) })
}

func quietFlag(cmd *cobra.Command, quiet *bool) {
	cmd.Flags().BoolVarP(quiet, "quiet", "q", false, "Suppress the progress")
}

// cloneVolume asks for a copy, shows how far it is at a terminal, and prints its
// name.
func cloneVolume(cmd *cobra.Command, a *App, from string, req wire.VolumeClone, quiet bool) error { //nolint:revive // the flag of the command
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodPost, Path: transferPath(from, "clone"), JSON: req})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	show := !quiet && a.outIsTerminal()
	for dec := json.NewDecoder(res.Body); ; {
		var p wire.VolumeProgress
		if err := dec.Decode(&p); err != nil {
			return fmt.Errorf("the copy has ended early: %w", err)
		}
		if show {
			fmt.Fprintf(a.Err, "\r\x1b[K%s copied", units.HumanSize(float64(p.Bytes)))
		}
		if show && (p.Done != nil || p.Error != "") {
			fmt.Fprint(a.Err, "\r\x1b[K")
		}
		switch {
		case p.Error != "":
			return errors.New("Error response from daemon: " + p.Error)
		case p.Done != nil:
			fmt.Fprintln(a.Out, p.Done.Name)
			return nil
		}
	}
}
