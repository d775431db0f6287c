package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/bootstrap"
	"gantry/internal/cli/progress"
	"gantry/internal/cli/ref"
	"gantry/internal/client"
)

type bootstrapOptions struct {
	bootstrap.Plan
	name, date string
	quiet      bool
}

// imageBootstrapCommand is `gantry image bootstrap`. Beyond Docker: a base image
// without any registry. The programs run here, and the daemon may be elsewhere.
func imageBootstrapCommand(a *App) *cobra.Command {
	var o bootstrapOptions
	cmd := leaf("bootstrap [OPTIONS] DISTRIBUTION:SUITE", "Make a base image with this host's mmdebstrap or debootstrap, without a registry", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		if err := o.complete(args[0], cmd.Flags().Changed("date")); err != nil {
			return err
		}
		return a.bootstrapImage(cmd.Context(), o)
	})
	fs := cmd.Flags()
	fs.StringVar(&o.Arch, "arch", "", "Debian's name of the architecture (default: this machine's)")
	fs.StringVar(&o.date, "date", "", "Time of the image: no file is newer, and the same packages give the same image (default: $SOURCE_DATE_EPOCH, or now)")
	fs.StringSliceVar(&o.Include, "include", nil, "Further packages")
	fs.StringArrayVar(&o.Mirrors, "mirror", nil, "Address of a mirror, or a line of sources.list (default: what this host's apt uses)")
	fs.StringVarP(&o.name, "tag", "t", "", "Name of the image (default: DISTRIBUTION:SUITE)")
	fs.StringVar(&o.Tool, "tool", "", "mmdebstrap or debootstrap (default: what is there)")
	fs.StringVar(&o.Variant, "variant", "", "Set of packages, as the tool calls it (default: minbase)")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Print the ID of the image alone")
	return cmd
}

// complete checks what the user said and fills in the rest.
func (o *bootstrapOptions) complete(release string, dated bool) error {
	var err error
	if o.Release, err = bootstrap.ParseRelease(release); err != nil {
		return err
	}
	for _, p := range o.Include {
		if err := bootstrap.CheckPackage(p); err != nil {
			return err
		}
	}
	for _, m := range append([]string{"x" + o.Arch, "x" + o.Variant}, o.Mirrors...) {
		if m == "" || strings.HasPrefix(m, "-") || strings.ContainsAny(m, "\n\r") {
			return fmt.Errorf("invalid value %q", m)
		}
	}
	if o.name == "" {
		o.name = release
	}
	if v, ok := lookupEnv("SOURCE_DATE_EPOCH"); ok && v != "" && !dated {
		o.date, dated = v, true
	}
	if !dated {
		o.Date = time.Now().UTC().Truncate(time.Second)
		return nil
	}
	o.Date, err = bootstrap.ParseDate(o.date)
	return err
}

// bootstrapImage streams the root file system to the daemon while it is made.
func (a *App) bootstrapImage(ctx context.Context, o bootstrapOptions) error {
	n, err := ref.Parse(o.name)
	if err != nil {
		return err
	}
	if n = n.Tagged(); n.Digest != "" {
		return errors.New("an image that is made can't be named by a digest")
	}
	if _, err := bootstrap.Find(o.Tool); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if err := c.Get(ctx, "/version", nil, nil); err != nil { // before minutes of work
		return err
	}
	tell := func(line string) { fmt.Fprintln(a.Err, line) }
	if o.quiet {
		tell = func(string) {}
	}
	q := url.Values{
		"fromSrc": {"-"}, "repo": {n.Repository()}, "tag": {n.Tag}, "platform": {bootstrap.Platform(o.Arch)},
		"changes": {`CMD ["bash"]`}, "created": {strconv.FormatInt(o.Date.Unix(), 10)},
		"message": {"bootstrap " + o.Distro + " " + o.Suite},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pr, pw := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := bootstrap.Make(ctx, o.Plan, pw, tell)
		pw.CloseWithError(err)
		made <- err
	}()
	err = a.importStream(ctx, c, q, pr)
	pr.CloseWithError(errors.New("the daemon takes no more"))
	if err != nil {
		cancel(err)
	}
	if merr := <-made; merr != nil && (err == nil || ctx.Err() == nil || !errors.Is(merr, err)) {
		// Why nothing came is the cause of what the daemon says.
		return merr
	}
	return err
}

func (a *App) importStream(ctx context.Context, c *client.Client, q url.Values, body io.ReadCloser) error {
	res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Body: body, Header: http.Header{"Content-Type": {"application/x-tar"}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return progress.Show(a.Out, res.Body, nil)
}
