package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/opt"
	"gantry/internal/cli/progress"
	"gantry/internal/cli/ref"
	"gantry/internal/cli/term"
	"gantry/internal/client"
)

func loadCommand(a *App) *cobra.Command {
	var input string
	var quiet bool
	var platforms []string
	cmd := leaf("load [OPTIONS]", "Load an image from a tar archive or STDIN", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		in, err := a.archive(input, "load")
		if err != nil {
			return err
		}
		defer in.Close()
		q := url.Values{"quiet": {"0"}}
		if quiet || !a.outIsTerminal() {
			q.Set("quiet", "1")
		}
		if err := addPlatforms(q, platforms); err != nil {
			return err
		}
		res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodPost, Path: "/images/load", Query: q, Body: in, Header: http.Header{"Content-Type": {"application/x-tar"}}})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
			return progress.Show(a.Out, res.Body, nil)
		}
		_, err = io.Copy(a.Out, res.Body)
		return err
	})
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Load only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8").`)
	return cmd
}

// archive opens the archive that a command reads: the file of its --input, else
// standard input, which must not be a terminal then.
func (a *App) archive(input, command string) (io.ReadCloser, error) {
	if input != "" {
		return os.Open(input)
	}
	if term.IsTerminal(a.In) {
		return nil, fmt.Errorf("requested %s from stdin, but stdin is empty", command)
	}
	return io.NopCloser(a.In), nil
}

func addPlatforms(q url.Values, platforms []string) error {
	for _, p := range platforms {
		j, err := platformJSON(p)
		if err != nil {
			return err
		}
		q.Add("platform", j)
	}
	return nil
}

func saveCommand(a *App) *cobra.Command {
	var output string
	var platforms []string
	cmd := leaf("save [OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"names": args}
		if err := addPlatforms(q, platforms); err != nil {
			return err
		}
		return download(cmd.Context(), a, c, "/images/get", q, output, "save")
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Save only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")`)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func exportCommand(a *App) *cobra.Command {
	var output string
	cmd := leaf("export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return download(cmd.Context(), a, c, containerPath(args[0], "export"), nil, output, "export")
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

// download writes a GET's body to standard output, or to a file that appears only
// when it is complete.
func download(ctx context.Context, a *App, c *client.Client, path string, q url.Values, output, what string) error {
	if output == "" && a.outIsTerminal() {
		return errors.New("cowardly refusing to " + what + " to a terminal. Use the -o flag or redirect")
	}
	if output != "" {
		if _, err := os.Stat(filepath.Dir(output)); err != nil {
			return fmt.Errorf("failed to %s: invalid output path: %w", map[string]string{"save": "save image", "export": "export container", "export volume": "export volume"}[what], err)
		}
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: path, Query: q})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if output == "" {
		_, err = io.Copy(a.Out, res.Body)
	} else {
		err = writeStream(output, res.Body)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func writeStream(path string, r io.Reader) error {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		if fi.IsDir() {
			return fmt.Errorf("invalid output path: %q is a directory", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // a device or a pipe: written in place
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".gantry-*")
	if err != nil {
		return fmt.Errorf("invalid output path: %w", err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(0o600)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func importCommand(a *App) *cobra.Command {
	var changes opt.List
	var message, platform string
	cmd := leaf("import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"fromSrc": {"-"}}
		var body io.Reader
		switch src := args[0]; {
		case src == "-":
			body = a.In
		case strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://"):
			q.Set("fromSrc", src)
		default:
			f, err := os.Open(src)
			if err != nil {
				return err
			}
			defer f.Close()
			body = f
		}
		if len(args) > 1 {
			n, err := ref.Parse(args[1])
			if err != nil {
				return err
			}
			n = n.Tagged()
			q.Set("repo", n.Repository())
			q.Set("tag", n.Tag)
		}
		if message != "" {
			q.Set("message", message)
		}
		if platform != "" {
			q.Set("platform", strings.ToLower(platform))
		}
		for _, ch := range changes.Values {
			q.Add("changes", ch)
		}
		r := client.Request{Method: http.MethodPost, Path: "/images/create", Query: q}
		if body != nil {
			r.Body, r.Header = io.NopCloser(body), http.Header{"Content-Type": {"application/x-tar"}}
		}
		res, err := c.Stream(cmd.Context(), r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return progress.Show(a.Out, res.Body, nil)
	})
	cmd.Flags().VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	cmd.Flags().StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	return cmd
}
