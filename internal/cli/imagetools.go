package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"gantry/internal/cli/progress"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// imageDiffCommand is `gantry image diff`. Beyond Docker.
func imageDiffCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("diff [OPTIONS] IMAGE IMAGE", "Show how the second image differs from the first: configuration, layers and files", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		if format != "" && format != "json" {
			return fmt.Errorf("invalid format %q: json is the only one", format)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		var d wire.ImageDiff
		if err := c.Get(cmd.Context(), "/gantry/images/diff", url.Values{"from": {args[0]}, "to": {args[1]}}, &d); err != nil {
			return err
		}
		if format == "json" {
			return json.NewEncoder(a.Out).Encode(d)
		}
		return writeImageDiff(a.Out, &d)
	})
	cmd.Flags().StringVar(&format, "format", "", `Output format: "json", or a table without`)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func writeImageDiff(w io.Writer, d *wire.ImageDiff) error {
	var b strings.Builder
	for _, c := range d.Config {
		fmt.Fprintf(&b, "config %s: %s -> %s\n", c.Field, orNone(c.Old), orNone(c.New))
	}
	if len(d.FromLayers)+len(d.ToLayers) > 0 {
		fmt.Fprintf(&b, "layers: %d shared\n", d.Shared)
	}
	for _, side := range []struct {
		mark   string
		layers []wire.ImageDiffLayer
	}{{"-", d.FromLayers}, {"+", d.ToLayers}} {
		for _, l := range side.layers {
			fmt.Fprintf(&b, "%s layer %s %s %s\n", side.mark, shortDigest(l.DiffID), units.HumanSize(float64(l.Size)), l.CreatedBy)
		}
	}
	for _, f := range d.Files {
		switch change := f.New - f.Old; {
		case f.Kind == 1:
			fmt.Fprintf(&b, "A %s %s\n", f.Path, units.HumanSize(float64(f.New)))
		case f.Kind == 2:
			fmt.Fprintf(&b, "D %s %s\n", f.Path, units.HumanSize(float64(f.Old)))
		case change != 0:
			fmt.Fprintf(&b, "C %s %s -> %s\n", f.Path, units.HumanSize(float64(f.Old)), units.HumanSize(float64(f.New)))
		default:
			fmt.Fprintf(&b, "C %s\n", f.Path)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orNone(v json.RawMessage) string {
	if v == nil {
		return "none"
	}
	return string(v)
}

func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(len(hex), 12)]
}

// imageVerifyCommand is `gantry image verify`. Beyond Docker.
func imageVerifyCommand(a *App) *cobra.Command {
	var repair bool
	var format string
	cmd := leaf("verify [OPTIONS] [IMAGE...]", "Read images' blobs and unpack their layers again, and compare", minArgs(0), func(cmd *cobra.Command, args []string) error {
		v, err := verifyImages(cmd.Context(), a, args, repair)
		if err != nil {
			return err
		}
		if format == "json" {
			err = json.NewEncoder(a.Out).Encode(v)
		} else {
			err = writeCheck(a.Out, v)
		}
		if err != nil {
			return err
		}
		for _, f := range v.Faults {
			if !f.Repaired {
				return fmt.Errorf("images are damaged")
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&repair, "repair", false, "Get damaged blobs from their registries again, and unpack damaged layers anew")
	cmd.Flags().StringVar(&format, "format", "", `Output format: "json", or text without`)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

// verifyImages has images verified. For repairs the daemon is told what the registries
// want to see.
func verifyImages(ctx context.Context, a *App, names []string, repair bool) (*wire.ImageCheck, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	r := client.Request{Method: http.MethodPost, Path: "/gantry/images/verify", Query: url.Values{"name": names, "repair": {strconv.FormatBool(repair)}}}
	if repair {
		if r.Header, err = registryConfig(a, names...); err != nil {
			return nil, err
		}
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	v := &wire.ImageCheck{}
	return v, json.NewDecoder(res.Body).Decode(v)
}

func writeCheck(w io.Writer, v *wire.ImageCheck) error {
	var b strings.Builder
	for _, f := range v.Faults {
		fmt.Fprintf(&b, "%s: %s %s: %s", f.Image, f.Kind, f.Digest, f.Problem)
		if f.Repaired {
			b.WriteString("; repaired")
		} else if f.Why != "" {
			fmt.Fprintf(&b, "; not repaired: %s", f.Why)
		}
		b.WriteByte('\n')
		for _, p := range f.Paths {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	fmt.Fprintf(&b, "%d images, %d blobs (%s), %d unpacked layers: %d faults\n", v.Images, v.Blobs, units.HumanSize(float64(v.Bytes)), v.Layers, len(v.Faults))
	_, err := io.WriteString(w, b.String())
	return err
}

// imageConvertCommand is `gantry image convert`. Beyond Docker.
func imageConvertCommand(a *App) *cobra.Command {
	var form bool
	var platforms []string
	cmd := leaf("convert --estargz [OPTIONS] IMAGE NAME[:TAG]", "Make an image of the same files that can be started before it is here", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		if !form {
			return fmt.Errorf("say which form: --estargz is the only one")
		}
		made, err := convertImage(cmd.Context(), a, url.Values{"from": {args[0]}, "to": {args[1]}, "form": {"estargz"}, "platform": platforms})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Out, "%s: %d of %d layers converted, %s packed\n%s\n", made.Name, made.Converted, made.Layers, units.HumanSize(float64(made.Size)), made.ID)
		return err
	})
	cmd.Flags().BoolVar(&form, "estargz", false, "Pack layers in eStargz form")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Convert what the image has for these platforms, as os/arch[/variant], or "all"`)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

// convertImage has an image converted, and shows how far it is.
func convertImage(ctx context.Context, a *App, q url.Values) (made wire.ImageConverted, err error) {
	c, err := a.client()
	if err != nil {
		return made, err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/gantry/images/convert", Query: q})
	if err != nil {
		return made, err
	}
	defer res.Body.Close()
	var bad error
	err = progress.Show(a.Out, res.Body, func(m progress.Message) { bad = json.Unmarshal(m.Aux, &made) })
	if ctx.Err() != nil {
		return made, context.Cause(ctx)
	}
	if err == nil && made.ID == "" && bad == nil {
		bad = io.ErrUnexpectedEOF
	}
	return made, errors.Join(err, bad)
}
