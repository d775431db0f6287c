package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/client"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// getter returns an object as the daemon described it.
type getter func(ctx context.Context, name string) ([]byte, error)

// localGetter is a getter that asks no daemon.
func localGetter(f func(string) ([]byte, error)) getter {
	return func(_ context.Context, name string) ([]byte, error) { return f(name) }
}

// inspectEach gets each name and prints them all: as a JSON array, or each with
// the template format. typed makes the value that a template sees first (may be
// nil): with it {{.ID}} works where the JSON says "Id".
func inspectEach(ctx context.Context, a *App, names []string, format string, get getter, typed func() any) error {
	var tmpl *template.Template
	if format == "json" {
		format = "{{json .}}"
	}
	if format != "" {
		var err error
		if tmpl, err = formatter.Parse(format); err != nil {
			return err
		}
		tmpl.Option("missingkey=error")
	}
	var out bytes.Buffer
	var raws [][]byte
	var failed []error
	for _, n := range names {
		raw, err := get(ctx, n)
		if err == nil && tmpl != nil {
			err = renderObject(&out, tmpl, raw, typed)
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		raws = append(raws, raw)
	}
	if tmpl == nil {
		if err := joinJSON(&out, raws); err != nil {
			return err
		}
	} else if out.Len() == 0 {
		out.WriteByte('\n')
	}
	if _, err := a.Out.Write(out.Bytes()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &StatusError{Text: errors.Join(failed...).Error(), Code: 1}
	}
	return nil
}

// joinJSON writes raws as one indented array, keeping the order of fields.
func joinJSON(out *bytes.Buffer, raws [][]byte) error {
	joined := append([]byte("["), bytes.Join(raws, []byte(","))...)
	if err := json.Indent(out, append(joined, ']'), "", "    "); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	out.WriteByte('\n')
	return nil
}

func renderObject(out *bytes.Buffer, t *template.Template, raw []byte, typed func() any) error {
	if typed != nil {
		v := typed()
		var b bytes.Buffer
		if json.Unmarshal(raw, v) == nil && t.Execute(&b, v) == nil {
			out.Write(b.Bytes())
			out.WriteByte('\n')
			return nil
		}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("unable to read inspect data: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return errs.New(errs.Invalid, "template parsing error: %w", err)
	}
	out.Write(b.Bytes())
	out.WriteByte('\n')
	return nil
}

func rawGetter(a *App, prefix string, q url.Values) getter {
	return func(ctx context.Context, name string) ([]byte, error) {
		if prefix == "/images/" {
			return a.api.Raw(ctx, imagePath(name, "json"), q)
		}
		path := objectPath(prefix, name)
		if prefix == "/containers/" {
			path += "/json"
		}
		return a.api.Raw(ctx, path, q)
	}
}

// inspector makes the inspect command of one kind of object.
func inspectorCommand(a *App, use, short, prefix string, typed func() any, flags func(*cobra.Command) func() url.Values) *cobra.Command {
	var format string
	var query func() url.Values
	cmd := leaf(use, short, minArgs(1), func(cmd *cobra.Command, args []string) error {
		if _, err := a.client(); err != nil {
			return err
		}
		var q url.Values
		if query != nil {
			q = query()
		}
		return inspectEach(cmd.Context(), a, args, format, rawGetter(a, prefix, q), typed)
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatUsage)
	if flags != nil {
		query = flags(cmd)
	}
	return cmd
}

func newContainer() any { return &wire.ContainerJSON{} }
func newImage() any     { return &wire.ImageInspect{} }
func newNetwork() any   { return &wire.NetworkInspect{} }
func newVolume() any    { return &wire.Volume{} }

func containerInspectCommand(a *App) *cobra.Command {
	cmd := inspectorCommand(a, "inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers", "/containers/", newContainer, func(cmd *cobra.Command) func() url.Values {
		size := cmd.Flags().BoolP("size", "s", false, "Display total file sizes")
		return func() url.Values { return sizeQuery(*size) }
	})
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func sizeQuery(size bool) url.Values {
	if size {
		return url.Values{"size": {"1"}}
	}
	return nil
}

func imageInspectCommand(a *App) *cobra.Command {
	cmd := inspectorCommand(a, "inspect [OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images", "/images/", newImage, func(cmd *cobra.Command) func() url.Values {
		platform := cmd.Flags().String("platform", "", "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
		return func() url.Values { return platformQuery(*platform) }
	})
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func networkInspectCommand(a *App) *cobra.Command {
	return inspectorCommand(a, "inspect [OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks", "/networks/", newNetwork, func(cmd *cobra.Command) func() url.Values {
		verbose := cmd.Flags().BoolP("verbose", "v", false, "Verbose output for diagnostics")
		return func() url.Values {
			if *verbose {
				return url.Values{"verbose": {"true"}}
			}
			return nil
		}
	})
}

func volumeInspectCommand(a *App) *cobra.Command {
	return inspectorCommand(a, "inspect [OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes", "/volumes/", newVolume, nil)
}

// kind is a type of object that plain inspect can find.
type kind struct {
	name, prefix string
	typed        func() any
	swarm        bool // not there without a swarm: then only "no such object"
}

func kinds() []kind {
	return []kind{
		{"container", "/containers/", newContainer, false}, {"image", "/images/", newImage, false}, {"network", "/networks/", newNetwork, false},
		{"volume", "/volumes/", newVolume, false}, {"service", "/services/", nil, true}, {"task", "/tasks/", nil, true},
		{"node", "/nodes/", nil, true}, {"plugin", "/plugins/", nil, true}, {"secret", "/secrets/", nil, true}, {"config", "/configs/", nil, true},
	}
}

func inspectCommand(a *App) *cobra.Command {
	var format, typ string
	var size bool
	cmd := leaf("inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on Docker objects", minArgs(1), func(cmd *cobra.Command, args []string) error {
		if _, err := a.client(); err != nil {
			return err
		}
		if typ == "" && cmd.Flags().Changed("type") {
			return errors.New(`type is empty: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`)
		}
		var k kind
		if typ != "" {
			for _, c := range kinds() {
				if c.name == typ {
					k = c
				}
			}
			if k.name == "" {
				return fmt.Errorf(`unknown type: %q: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`, typ)
			}
			return inspectEach(cmd.Context(), a, args, format, kindGetter(a, k, sizeQuery(size)), k.typed)
		}
		return inspectAny(cmd.Context(), a, args, format, sizeQuery(size))
	})
	fs := cmd.Flags()
	fs.StringVarP(&format, "format", "f", "", inspectFormatUsage)
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	fs.StringVar(&typ, "type", "", "Only inspect objects of the given type")
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func kindGetter(a *App, k kind, containers url.Values) getter {
	var q url.Values
	if k.name == "container" {
		q = containers
	}
	g := rawGetter(a, k.prefix, q)
	if k.name != "plugin" {
		return g
	}
	return func(ctx context.Context, name string) ([]byte, error) {
		return a.api.Raw(ctx, "/plugins/"+name+"/json", nil)
	}
}

// inspectAny tries each kind of object in turn. containers is what else is asked
// of containers.
func inspectAny(ctx context.Context, a *App, names []string, format string, containers url.Values) error {
	var found kind
	get := func(ctx context.Context, name string) ([]byte, error) {
		for _, k := range kinds() {
			raw, err := kindGetter(a, k, containers)(ctx, name)
			if err == nil {
				found = k
				return raw, nil
			}
			var e *client.Error
			if client.IsNotFound(err) || k.swarm && errors.As(err, &e) || strings.Contains(err.Error(), "no such") {
				continue
			}
			return nil, err
		}
		return nil, fmt.Errorf("Error: No such object: %s", name)
	}
	return inspectEach(ctx, a, names, format, get, func() any {
		if found.typed == nil {
			return &map[string]any{}
		}
		return found.typed()
	})
}
