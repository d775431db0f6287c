package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/cli/progress"
	"gantry/internal/cli/ref"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// Commands for plugins of the daemon, which are installed as images; plugins of
// the command line are in plugin.go.

func pluginEntries() []entry {
	return []entry{
		{group: "plugin", name: "create", build: pluginCreateCommand},
		{group: "plugin", name: "disable", build: pluginDisableCommand},
		{group: "plugin", name: "enable", build: pluginEnableCommand},
		{group: "plugin", name: "inspect", build: pluginInspectCommand},
		{group: "plugin", name: "install", build: pluginInstallCommand},
		{group: "plugin", name: "ls", aliases: []string{"list"}, build: pluginLsCommand},
		{group: "plugin", name: "push", build: pluginPushCommand},
		{group: "plugin", name: "rm", aliases: []string{"remove"}, build: pluginRmCommand},
		{group: "plugin", name: "set", build: pluginSetCommand},
		{group: "plugin", name: "upgrade", build: pluginUpgradeCommand},
	}
}

func pluginCreateCommand(a *App) *cobra.Command {
	var compress bool
	cmd := leaf("create [OPTIONS] PLUGIN PLUGIN-DATA-DIR", "Create a plugin from a rootfs and configuration. Plugin data directory must contain config.json and rootfs directory.", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		if _, err := ref.Parse(args[0]); err != nil {
			return err
		}
		dir, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		for _, name := range []string{"config.json", "rootfs"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("plugin data directory %s: %w", args[1], err)
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(packPlugin(pw, dir, compress)) }()
		defer pr.Close()
		res, err := c.Stream(cmd.Context(), client.Request{
			Method: http.MethodPost, Path: "/plugins/create", Query: url.Values{"name": {args[0]}}, Body: pr,
			Header: http.Header{"Content-Type": {"application/x-tar"}},
		})
		if err != nil {
			return err
		}
		res.Body.Close()
		fmt.Fprintln(a.Out, args[0])
		return nil
	})
	cmd.Flags().BoolVar(&compress, "compress", false, "Compress the context using gzip")
	return cmd
}

// packPlugin writes config.json and rootfs of a directory as a tar.
func packPlugin(w io.Writer, dir string, compress bool) error {
	var zip *gzip.Writer
	if compress {
		zip = gzip.NewWriter(w)
		w = zip
	}
	t := tar.NewWriter(w)
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if rel != "config.json" && rel != "rootfs" && !strings.HasPrefix(rel, "rootfs/") {
			if fi.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		return packEntry(t, path, rel, fi)
	})
	if err == nil {
		err = t.Close()
	}
	if err == nil && zip != nil {
		err = zip.Close()
	}
	return err
}

func packEntry(t *tar.Writer, path, rel string, fi os.FileInfo) error {
	if fi.Mode()&os.ModeSocket != 0 {
		return nil
	}
	link := ""
	if fi.Mode()&os.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	if h.Name = rel; fi.IsDir() {
		h.Name += "/"
	}
	h.Format, h.Uname, h.Gname = tar.FormatPAX, "", ""
	if err := t.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// pluginPost asks for something to be done to a plugin.
func pluginPost(ctx context.Context, a *App, name, verb string, q url.Values, body any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.Post(ctx, "/plugins"+pluginRef(name)+"/"+verb, q, body, nil)
}

// pluginRef is a plugin's name in a path; it may have slashes.
func pluginRef(name string) string { return strings.TrimPrefix(imagePath(name), "/images") }

func pluginEnableCommand(a *App) *cobra.Command {
	var timeout int
	cmd := leaf("enable [OPTIONS] PLUGIN", "Enable a plugin", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		if timeout < 0 {
			return fmt.Errorf("negative timeout %d is invalid", timeout)
		}
		if err := pluginPost(cmd.Context(), a, args[0], "enable", url.Values{"timeout": {strconv.Itoa(timeout)}}, nil); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, args[0])
		return nil
	})
	cmd.Flags().IntVar(&timeout, "timeout", 30, "HTTP client timeout (in seconds)")
	return cmd
}

func pluginDisableCommand(a *App) *cobra.Command {
	var force bool
	cmd := leaf("disable [OPTIONS] PLUGIN", "Disable a plugin", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		if err := pluginPost(cmd.Context(), a, args[0], "disable", forced(force), nil); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, args[0])
		return nil
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the disable of an active plugin")
	return cmd
}

func forced(force bool) url.Values {
	if force {
		return url.Values{"force": {"1"}}
	}
	return url.Values{}
}

func pluginInspectCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("inspect [OPTIONS] PLUGIN [PLUGIN...]", "Display detailed information on one or more plugins", minArgs(1), func(cmd *cobra.Command, args []string) error {
		if _, err := a.client(); err != nil {
			return err
		}
		get := func(ctx context.Context, name string) ([]byte, error) {
			return a.api.Raw(ctx, "/plugins"+pluginRef(name)+"/json", nil)
		}
		return inspectEach(cmd.Context(), a, args, format, get, func() any { return new(wire.Plugin) })
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatUsage)
	return cmd
}

func pluginLsCommand(a *App) *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter opt.Filter
	cmd := leaf("ls [OPTIONS]", "List plugins", noArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		setFilters(q, filter)
		var list []wire.Plugin
		if err := c.Get(cmd.Context(), "/plugins", q, &list); err != nil {
			return err
		}
		rows := formatter.Plugins(list, formatter.RowOptions{Trunc: !noTrunc})
		if quiet {
			return quietIDs(a, rows)
		}
		return formatter.PluginTable().Render(a.Out, listFormat(a, listFlags{format: format, key: "pluginsFormat", quiet: quiet}), rows)
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display plugin IDs")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	cmd.Flags().VarP(&filter, "filter", "f", `Provide filter values (e.g. "enabled=true")`)
	return cmd
}

func pluginRmCommand(a *App) *cobra.Command {
	var force bool
	cmd := leaf("rm [OPTIONS] PLUGIN [PLUGIN...]", "Remove one or more plugins", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(n string) error { return c.Delete(cmd.Context(), "/plugins"+pluginRef(n), forced(force), nil) })
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of an active plugin")
	return cmd
}

func pluginSetCommand(a *App) *cobra.Command {
	return leaf("set PLUGIN KEY=VALUE [KEY=VALUE...]", "Change settings for a plugin", minArgs(2), func(cmd *cobra.Command, args []string) error {
		return pluginPost(cmd.Context(), a, args[0], "set", nil, args[1:])
	})
}

func pluginPushCommand(a *App) *cobra.Command {
	cmd := leaf("push [OPTIONS] PLUGIN[:TAG]", "Push a plugin to a registry", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		n, err := pluginName(args[0])
		if err != nil {
			return err
		}
		return pluginStream(cmd.Context(), a, n, "/plugins"+pluginRef(n.String())+"/push", nil, nil)
	})
	contentTrustFlag(cmd)
	return cmd
}

func pluginName(text string) (ref.Name, error) {
	n, err := ref.Parse(text)
	if err != nil {
		return n, err
	}
	if n.Digest != "" {
		return n, fmt.Errorf("invalid name: %s", text)
	}
	if n.Tag == "" {
		n = n.Tagged()
	}
	return n, nil
}

// pluginStream posts with the credentials of n's registry, and shows the progress.
func pluginStream(ctx context.Context, a *App, n ref.Name, path string, q url.Values, granted []wire.PluginPrivilege) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	h, err := registryAuth(a, n.Domain)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodPost, Path: path, Query: q, Header: h}
	if granted != nil {
		r.JSON = granted
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return progress.Show(a.Out, res.Body, nil)
}

// grantOptions say whether to ask at all.
type grantOptions struct{ all bool }

// grant finds out what a plugin needs, and asks the user unless all is granted.
func grant(ctx context.Context, a *App, n ref.Name, o grantOptions) ([]wire.PluginPrivilege, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	h, err := registryAuth(a, n.Domain)
	if err != nil {
		return nil, err
	}
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/plugins/privileges", Query: url.Values{"remote": {n.String()}}, Header: h})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	list := []wire.PluginPrivilege{}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, err
	}
	if o.all || len(list) == 0 {
		return list, nil
	}
	fmt.Fprintf(a.Out, "Plugin %q is requesting the following privileges:\n", n.String())
	for _, p := range list {
		fmt.Fprintf(a.Out, " - %s: %v\n", p.Name, p.Value)
	}
	if err := confirm(ctx, a, "Do you grant the above permissions?"); err != nil {
		if errors.Is(err, errNotConfirmed) {
			return nil, errors.New("plugin installation has been canceled")
		}
		return nil, err
	}
	return list, nil
}

func pluginInstallCommand(a *App) *cobra.Command {
	var all, disable bool
	var alias string
	cmd := leaf("install [OPTIONS] PLUGIN [KEY=VALUE...]", "Install a plugin", minArgs(1), func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		n, err := pluginName(args[0])
		if err != nil {
			return err
		}
		local := n
		if alias != "" {
			if local, err = pluginName(alias); err != nil {
				return err
			}
		}
		granted, err := grant(ctx, a, n, grantOptions{all})
		if err != nil {
			return err
		}
		if err := pluginStream(ctx, a, n, "/plugins/pull", url.Values{"remote": {n.String()}, "name": {local.String()}}, granted); err != nil {
			return err
		}
		if len(args) > 1 {
			if err := pluginPost(ctx, a, local.String(), "set", nil, args[1:]); err != nil {
				return err
			}
		}
		if !disable {
			if err := pluginPost(ctx, a, local.String(), "enable", url.Values{"timeout": {"0"}}, nil); err != nil {
				return err
			}
		}
		fmt.Fprintln(a.Out, "Installed plugin", args[0])
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVar(&all, "grant-all-permissions", false, "Grant all permissions necessary to run the plugin")
	fs.BoolVar(&disable, "disable", false, "Do not enable the plugin on install")
	fs.StringVar(&alias, "alias", "", "Local name for plugin")
	contentTrustFlag(cmd)
	return cmd
}

func pluginUpgradeCommand(a *App) *cobra.Command {
	var all, skip bool
	cmd := leaf("upgrade [OPTIONS] PLUGIN [REMOTE]", "Upgrade an existing plugin", rangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		c, err := a.client()
		if err != nil {
			return err
		}
		var p wire.Plugin
		if err := c.Get(ctx, "/plugins"+pluginRef(args[0])+"/json", nil, &p); err != nil {
			return err
		}
		if p.Enabled {
			return errors.New("the plugin must be disabled before upgrading")
		}
		from := p.PluginReference
		if len(args) == 2 {
			from = args[1]
		}
		n, err := pluginName(from)
		if err != nil {
			return err
		}
		old, err := pluginName(p.PluginReference)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "Upgrading plugin %s from %s to %s\n", p.Name, old, n)
		if !skip && n.String() != old.String() {
			if err := confirm(ctx, a, "Plugin images do not match, are you sure?"); err != nil {
				if errors.Is(err, errNotConfirmed) {
					return errors.New("plugin upgrade has been canceled")
				}
				return err
			}
		}
		granted, err := grant(ctx, a, n, grantOptions{all})
		if err != nil {
			return err
		}
		if err := pluginStream(ctx, a, n, "/plugins"+pluginRef(args[0])+"/upgrade", url.Values{"remote": {n.String()}}, granted); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "Upgraded plugin %s to %s\n", args[0], n)
		return nil
	})
	fs := cmd.Flags()
	fs.BoolVar(&all, "grant-all-permissions", false, "Grant all permissions necessary to run the plugin")
	fs.BoolVar(&skip, "skip-remote-check", false, "Do not check if specified remote plugin matches existing plugin image")
	contentTrustFlag(cmd)
	return cmd
}
