package buildx

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	api "gantry/internal/client"
)

// builder is a daemon that builds, as ls shows it.
type builder struct {
	Name, Driver, Endpoint string
	Current                bool
	Status                 string
	Version                string
	Platforms              []string
	Err                    string
	workers                []*client.WorkerInfo
}

// look asks a daemon about itself.
func (b *builder) look(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	list, err := c.ListWorkers(ctx)
	if err != nil {
		b.Status, b.Err = "error", err.Error()
		return
	}
	b.Status, b.workers = "running", list
	for _, w := range list {
		b.Version = w.BuildkitVersion.Version
		for _, p := range w.Platforms {
			if s := platforms.Format(p); !slices.Contains(b.Platforms, s) {
				b.Platforms = append(b.Platforms, s)
			}
		}
	}
}

// builders are the daemon in use, and those of contexts.
func (a *App) builders(ctx context.Context) ([]*builder, error) {
	d, err := a.daemon()
	if err != nil {
		return nil, err
	}
	current := &builder{Name: builderName, Driver: "docker", Endpoint: d.Host(), Current: true}
	if a.target.Context != "" {
		current.Name = a.target.Context
	}
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	current.look(ctx, c)
	if current.Err != "" {
		if f := a.dialer.failed.Load(); f != nil {
			current.Err = f.Error()
		}
	}
	out := []*builder{current}
	list, err := conf.Contexts(a.global.Dir).List()
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		if x.Name != current.Name {
			out = append(out, &builder{Name: x.Name, Driver: "docker", Endpoint: x.Name, Status: "not asked"})
		}
	}
	return out, nil
}

func lsCommand(a *App) *cobra.Command {
	var format string
	var noTrunc bool
	var timeout time.Duration
	cmd := leaf("ls", "List builder instances", atMost(0), func(cmd *cobra.Command, _ []string) error {
		list, err := a.builders(cmd.Context())
		if err != nil {
			return err
		}
		if done, err := formatted(a.Out, format, list); done || err != nil {
			return err
		}
		rows := [][]string{{"NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "BUILDKIT", "PLATFORMS"}}
		for _, b := range list {
			name := b.Name
			if b.Current {
				name += "*"
			}
			ps := b.Platforms
			if len(ps) > 4 && !noTrunc {
				ps = append(slices.Clone(ps[:4]), fmt.Sprintf("(+%d)", len(b.Platforms)-4))
			}
			rows = append(rows, []string{name, b.Driver, "", "", ""}, []string{` \_ ` + b.Name, ` \_ ` + b.Name, b.Status, b.Version, strings.Join(ps, ", ")})
		}
		if err := table(a.Out, rows); err != nil {
			return err
		}
		for _, b := range list {
			if b.Err != "" {
				fmt.Fprintf(a.Err, "\nCannot load builder %s: %s\n", b.Name, b.Err)
			}
		}
		return nil
	})
	cmd.Flags().StringVar(&format, "format", "table", "Format the output")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	cmd.Flags().DurationVar(&timeout, "timeout", 20*time.Second, "Override the default timeout for loading builder status")
	return cmd
}

func inspectCommand(a *App) *cobra.Command {
	var bootstrap bool
	var timeout time.Duration
	cmd := leaf("inspect [NAME]", "Inspect current builder instance", atMost(1), func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			a.builder = args[0]
		}
		list, err := a.builders(cmd.Context())
		if err != nil {
			return err
		}
		b := list[0]
		fmt.Fprintf(a.Out, "Name:   %s\nDriver: %s\n\nNodes:\nName:             %s\nEndpoint:         %s\nStatus:           %s\n", b.Name, b.Driver, b.Name, b.Endpoint, b.Status)
		if b.Err != "" {
			fmt.Fprintf(a.Out, "Error:            %s\n", b.Err)
			return errQuiet{1}
		}
		fmt.Fprintf(a.Out, "BuildKit version: %s\nPlatforms:        %s\n", b.Version, strings.Join(b.Platforms, ", "))
		for _, w := range b.workers {
			printWorker(a, w)
		}
		return nil
	})
	cmd.Flags().BoolVar(&bootstrap, "bootstrap", false, "Ensure builder has booted before inspecting")
	cmd.Flags().DurationVar(&timeout, "timeout", 20*time.Second, "Override the default timeout for loading builder status")
	return cmd
}

func printWorker(a *App, w *client.WorkerInfo) {
	if len(w.Labels) > 0 {
		fmt.Fprintln(a.Out, "Labels:")
		for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
			fmt.Fprintf(a.Out, " %s: %s\n", k, w.Labels[k])
		}
	}
	for _, d := range w.CDIDevices {
		fmt.Fprintf(a.Out, "Device: %s\n", d.Name)
	}
	for i, r := range w.GCPolicy {
		fmt.Fprintf(a.Out, "GC Policy rule#%d:\n All:            %v\n", i, r.All)
		if len(r.Filter) > 0 {
			fmt.Fprintf(a.Out, " Filters:        %s\n", strings.Join(r.Filter, " "))
		}
		if r.KeepDuration > 0 {
			fmt.Fprintf(a.Out, " Keep Duration:  %v\n", r.KeepDuration)
		}
		for _, x := range []struct {
			name string
			n    int64
		}{{"Reserved Space", r.ReservedSpace}, {"Max Used Space", r.MaxUsedSpace}, {"Min Free Space", r.MinFreeSpace}} {
			if x.n > 0 {
				fmt.Fprintf(a.Out, " %-15s %s\n", x.name+":", units.BytesSize(float64(x.n)))
			}
		}
	}
}

func useCommand(a *App) *cobra.Command {
	var global, def bool
	cmd := leaf("use [OPTIONS] NAME", "Set the current builder instance", exactly(1), func(_ *cobra.Command, args []string) error {
		if args[0] == builderName {
			return a.config().SetCurrentContext("")
		}
		if _, err := conf.Contexts(a.global.Dir).Get(args[0]); err != nil {
			return fmt.Errorf("no builder %q found: a builder is the daemon of a context", args[0])
		}
		return a.config().SetCurrentContext(args[0])
	})
	cmd.Flags().BoolVar(&global, "global", false, "Builder persists context changes")
	cmd.Flags().BoolVar(&def, "default", false, "Set builder as default for current context")
	return cmd
}

func imagetoolsCommand(a *App) *cobra.Command {
	group := &cobra.Command{Use: "imagetools", Short: "Commands to work on images in registry"}
	var raw bool
	cmd := leaf("inspect [OPTIONS] NAME", "Show details of an image in the registry", exactly(1), func(cmd *cobra.Command, args []string) error {
		d, err := a.daemon()
		if err != nil {
			return err
		}
		return inspectRemote(cmd.Context(), a, d, args[0], raw)
	})
	cmd.Flags().BoolVar(&raw, "raw", false, "Show original, unformatted JSON manifest")
	group.AddCommand(cmd)
	return group
}

// inspectRemote shows what a registry has under a name; the daemon asks it.
func inspectRemote(ctx context.Context, a *App, d *api.Client, name string, raw bool) error {
	key, err := registryOf(name)
	if err != nil {
		return err
	}
	auth, err := a.config().Credentials(key)
	if err != nil {
		return err
	}
	var out struct {
		Descriptor struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
			Size      int64  `json:"size"`
		}
		Platforms []struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
			Variant      string `json:"variant"`
		}
	}
	res, err := d.Stream(ctx, api.Request{Method: "GET", Path: "/distribution/" + name + "/json", Header: map[string][]string{"X-Registry-Auth": {auth.Header()}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return err
	}
	if raw {
		e := json.NewEncoder(a.Out)
		e.SetIndent("", "  ")
		return e.Encode(out)
	}
	fmt.Fprintf(a.Out, "Name:      %s\nMediaType: %s\nDigest:    %s\n", name, out.Descriptor.MediaType, out.Descriptor.Digest)
	for _, p := range out.Platforms {
		s := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			s += "/" + p.Variant
		}
		fmt.Fprintf(a.Out, "Platform:  %s\n", s)
	}
	return nil
}
