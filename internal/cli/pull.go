package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/cli/progress"
	"gantry/internal/cli/ref"
	"gantry/internal/client"
)

type pullOptions struct {
	platform   string
	all, quiet bool
	lazy       bool
}

func contentTrustFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("disable-content-trust", true, "Skip image verification")
	_ = cmd.Flags().MarkDeprecated("disable-content-trust", "support for docker content trust was removed")
}

// registryAuth returns the X-Registry-Auth header for a registry.
func registryAuth(a *App, domain string) (http.Header, error) {
	auth, err := a.config().Credentials(conf.ServerKey(domain))
	if err != nil {
		return nil, err
	}
	return http.Header{"X-Registry-Auth": {auth.Header()}}, nil
}

// registryConfig returns the X-Registry-Config header, with the credentials of every
// registry that is known and of those of the names besides.
func registryConfig(a *App, names ...string) (http.Header, error) {
	all, err := a.config().All()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, err := ref.Parse(name)
		if err != nil {
			continue // an ID; what is none the daemon says
		}
		server := conf.ServerKey(n.Domain)
		if all[server], err = a.config().Credentials(server); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return http.Header{"X-Registry-Config": {base64.URLEncoding.EncodeToString(data)}}, nil
}

// pullImage pulls n and shows the progress on out.
func pullImage(ctx context.Context, a *App, n ref.Name, o pullOptions, out io.Writer) error {
	h, err := registryAuth(a, n.Domain)
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {n.Repository()}}
	switch {
	case n.Digest != "":
		q.Set("tag", n.Digest)
	case !o.all:
		q.Set("tag", n.Tag)
	}
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	if o.lazy {
		q.Set("lazy", "1")
	}
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Header: h})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := progress.Show(out, res.Body, nil); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

func pullCommand(a *App) *cobra.Command {
	var o pullOptions
	cmd := leaf("pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		if _, err := a.client(); err != nil {
			return err
		}
		n, err := ref.Parse(args[0])
		if err != nil {
			return err
		}
		switch {
		case o.all && o.lazy:
			return errors.New("--lazy can't be used with --all-tags/-a")
		case o.all && (n.Tag != "" || n.Digest != ""):
			return errors.New("tag can't be used with --all-tags/-a")
		case !o.all && n.Tag == "" && n.Digest == "":
			n = n.Tagged()
			if !o.quiet {
				fmt.Fprintf(a.Out, "Using default tag: %s\n", n.Tag)
			}
		}
		out := a.Out
		if o.quiet {
			out = io.Discard
		}
		if err := pullImage(cmd.Context(), a, n, o, out); err != nil {
			return err
		}
		full := n.Repository()
		if n.Tag != "" {
			full += ":" + n.Tag
		}
		if n.Digest != "" {
			full += "@" + n.Digest
		}
		fmt.Fprintln(a.Out, full)
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&o.platform, "platform", lookupOr("DOCKER_DEFAULT_PLATFORM", ""), "Set platform if server is multi-platform capable")
	fs.BoolVar(&o.lazy, "lazy", false, "Return when containers can start, and fetch the rest in the background (images in eStargz form)")
	contentTrustFlag(cmd)
	return cmd
}

func lookupOr(name, def string) string {
	if v, ok := lookupEnv(name); ok {
		return v
	}
	return def
}

func pushCommand(a *App) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := leaf("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		n, err := ref.Parse(args[0])
		if err != nil {
			return err
		}
		switch {
		case all && n.Tag != "":
			return errors.New("tag can't be used with --all-tags/-a")
		case !all && n.Tag == "":
			n = n.Tagged()
			if !quiet {
				fmt.Fprintf(a.Out, "Using default tag: %s\n", n.Tag)
			}
		}
		h, err := registryAuth(a, n.Domain)
		if err != nil {
			return err
		}
		q := url.Values{}
		if !all {
			q.Set("tag", n.Tag)
		}
		if platform != "" {
			j, err := platformJSON(platform)
			if err != nil {
				return err
			}
			q.Set("platform", j)
		}
		res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodPost, Path: imagePath(n.Repository(), "push"), Query: q, Header: h})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		out := a.Out
		if quiet {
			out = io.Discard
		}
		if err := progress.Show(out, res.Body, nil); err != nil {
			return err
		}
		if quiet {
			fmt.Fprintln(a.Out, n.Repository()+":"+n.Tag)
		}
		return nil
	})
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	cmd.Flags().StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	contentTrustFlag(cmd)
	cmd.ValidArgsFunction = completeImages(a)
	return cmd
}

func searchCommand(a *App) *cobra.Command {
	var format string
	var filter opt.Filter
	var limit int
	var noTrunc bool
	cmd := leaf("search [OPTIONS] TERM", "Search Docker Hub for images", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{"term": {args[0]}}
		if limit > 0 {
			q.Set("limit", strconv.Itoa(limit))
		}
		setFilters(q, filter)
		n, err := ref.Parse(args[0])
		var h http.Header
		if err == nil {
			if h, err = registryAuth(a, n.Domain); err != nil {
				return err
			}
		}
		res, err := c.Stream(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/images/search", Query: q, Header: h})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var list []formatter.SearchResult
		if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
			return err
		}
		return formatter.SearchTable().Render(a.Out, format, formatter.Search(list, formatter.RowOptions{Trunc: !noTrunc}))
	})
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	cmd.Flags().VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	cmd.Flags().IntVar(&limit, "limit", 0, "Max number of search results")
	cmd.Flags().StringVar(&format, "format", "", "Pretty-print search using a Go template")
	return cmd
}
