package buildx

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/progress"
	"gantry/internal/cli/ref"
	api "gantry/internal/client"
	"gantry/internal/wire"
)

// cacheCommand looks after the mounts of RUN --mount=type=cache: they go to
// another daemon as an image.
func cacheCommand(a *App) *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "Export and import the cache mounts of builds", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(cacheLs(a), cacheExport(a), cacheImport(a))
	return cmd
}

func cacheLs(a *App) *cobra.Command {
	var format string
	cmd := leaf("ls [OPTIONS]", "List cache mounts", atMost(0), func(cmd *cobra.Command, _ []string) error {
		list, err := a.cacheMounts(cmd.Context(), "list", "", nil)
		if err != nil {
			return err
		}
		if done, err := formatted(a.Out, format, list); done || err != nil {
			return err
		}
		rows := [][]string{{"ID", "SIZE", "IN USE", "EXPORT", "LAST USED"}}
		for _, m := range list {
			used := ""
			if m.LastUsedAt != nil {
				used = units.HumanDuration(time.Since(*m.LastUsedAt)) + " ago"
			}
			rows = append(rows, []string{m.ID, units.HumanSize(float64(m.Size)), fmt.Sprint(m.InUse), fmt.Sprint(!m.Stays), used})
		}
		return table(a.Out, rows)
	})
	cmd.Flags().StringVar(&format, "format", "table", "Format the output")
	return cmd
}

func cacheExport(a *App) *cobra.Command {
	var ids []string
	var push bool
	cmd := leaf("export [OPTIONS] IMAGE", "Make an image of cache mounts", exactly(1), func(cmd *cobra.Command, args []string) error {
		list, err := a.cacheMounts(cmd.Context(), "export", args[0], ids)
		if err != nil {
			return err
		}
		a.printMounts(list, "exported")
		if !push {
			return nil
		}
		return a.pushImage(cmd.Context(), args[0])
	})
	cmd.Flags().StringArrayVar(&ids, "id", nil, "Export this mount (its id, or its target if it has none); all without")
	cmd.Flags().BoolVar(&push, "push", false, "Push the image to its registry")
	return cmd
}

func cacheImport(a *App) *cobra.Command {
	var ids []string
	var pull bool
	cmd := leaf("import [OPTIONS] IMAGE", "Replace cache mounts by those of an image", exactly(1), func(cmd *cobra.Command, args []string) error {
		if err := a.haveImage(cmd.Context(), args[0], pull); err != nil {
			return err
		}
		list, err := a.cacheMounts(cmd.Context(), "import", args[0], ids)
		if err != nil {
			return err
		}
		a.printMounts(list, "imported")
		return nil
	})
	cmd.Flags().StringArrayVar(&ids, "id", nil, "Import this mount; all of the image without")
	cmd.Flags().BoolVar(&pull, "pull", false, "Pull the image even if it is here")
	return cmd
}

func (a *App) printMounts(list []wire.CacheMount, done string) {
	for _, m := range list {
		if m.Stays {
			fmt.Fprintf(a.Err, "%s: not %s: it begins with other files (from=, uid=, gid= or mode=), which only this daemon knows\n", m.ID, done)
			continue
		}
		fmt.Fprintf(a.Out, "%s: %s (%s compressed)\n", m.ID, done, units.HumanSize(float64(m.Size)))
	}
}

// cacheMounts has the daemon do something with cache mounts, and returns which.
func (a *App) cacheMounts(ctx context.Context, action, image string, ids []string) ([]wire.CacheMount, error) {
	c, err := a.buildkit(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	var list []wire.CacheMount
	ask := func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
		res, err := gw.Solve(ctx, gateway.SolveRequest{Frontend: wire.CacheMountsFrontend, FrontendOpt: map[string]string{
			wire.CacheMountsAction: action, wire.CacheMountsImage: image, wire.CacheMountsIDs: string(chosen),
		}})
		if err != nil {
			return nil, err
		}
		return res, json.Unmarshal(res.Metadata[wire.CacheMountsAnswer], &list)
	}
	news := make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range news { // there are no steps to tell of
		}
	}()
	_, err = c.Build(ctx, client.SolveOpt{Internal: true}, "gantry", ask, news)
	<-done
	return list, err
}

// registry sends a request about an image to the daemon that makes it talk to the
// image's registry, and shows how it goes.
func (a *App) registry(ctx context.Context, n ref.Name, r api.Request) error {
	d, err := a.daemon()
	if err != nil {
		return err
	}
	auth, err := a.config().Credentials(conf.ServerKey(n.Domain))
	if err != nil {
		return err
	}
	r.Method, r.Header = http.MethodPost, http.Header{"X-Registry-Auth": {auth.Header()}}
	res, err := d.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return progress.Show(a.Out, res.Body, nil)
}

func (a *App) pushImage(ctx context.Context, image string) error {
	n, err := ref.Parse(image)
	if err != nil {
		return err
	}
	n = n.Tagged()
	return a.registry(ctx, n, api.Request{Path: "/images/" + n.Repository() + "/push", Query: url.Values{"tag": {n.Tag}}})
}

// haveImage pulls an image that is not here, or any if that is asked for.
func (a *App) haveImage(ctx context.Context, image string, always bool) error {
	n, err := ref.Parse(image)
	if err != nil {
		return err
	}
	d, err := a.daemon()
	if err != nil {
		return err
	}
	if !always {
		if _, err := d.Raw(ctx, "/images/"+(&url.URL{Path: image}).EscapedPath()+"/json", nil); !api.IsNotFound(err) {
			return err
		}
	}
	q := url.Values{"fromImage": {n.Repository()}, "tag": {n.Digest}}
	if n.Digest == "" {
		q.Set("tag", n.Tagged().Tag)
	}
	return a.registry(ctx, n, api.Request{Path: "/images/create", Query: q})
}
