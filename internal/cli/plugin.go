package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"gantry/internal/cli/conf"
)

// pluginInfo is what a plugin says of itself (docker-cli-plugin-metadata).
type pluginInfo struct {
	SchemaVersion, Vendor, Version, ShortDescription string
	Name, Path                                       string
}

// pluginDirs returns where plugins are looked for, the user's own first.
func pluginDirs(a *App) []string {
	dirs := append([]string{}, a.config().PluginsExtraDirs...)
	dirs = append(dirs, filepath.Join(a.global.Dir, "cli-plugins"))
	for _, base := range []string{"/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"} {
		dirs = append(dirs, base+"/gantry/cli-plugins", base+"/docker/cli-plugins")
	}
	return dirs
}

// findPlugin returns the program of plugin name, "" if there is none.
func findPlugin(a *App, name string) string {
	if name == "" || strings.ContainsAny(name, "/\\.") || strings.HasPrefix(name, "-") {
		return ""
	}
	for _, d := range pluginDirs(a) {
		for _, prefix := range []string{"gantry-", "docker-"} {
			p := filepath.Join(d, prefix+name)
			if isProgram(p) {
				return p
			}
		}
	}
	if name == "registry" || name == "buildx" {
		return ownPlugin(name)
	}
	return ""
}

// unknown handles a first word that is no command: a plugin, or a mistake.
func runUnknown(ctx context.Context, a *App, rest, args []string) error {
	path := findPlugin(a, rest[0])
	if path == "" {
		return unknownCommand(a, a.name+" "+rest[0], "", similar(rest[0], topNames()))
	}
	return runPlugin(ctx, a, path, args)
}

// runPlugin runs a plugin with args, flags in front of the command included.
func runPlugin(ctx context.Context, a *App, path string, args []string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.In, a.Out, a.Err
	cmd.Env = append(os.Environ(), "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND="+os.Args[0])
	// A plugin made for another engine finds this one through the environment.
	if t, err := conf.Resolve(a.global, a.config()); err == nil && t.Context == conf.DefaultContext && len(a.global.Hosts) == 0 {
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+t.Host)
	}
	if a.In == os.Stdin && a.Out == os.Stdout && a.Err == os.Stderr {
		// There is nothing left to do: this process becomes the plugin.
		return fmt.Errorf("%s: %w", path, syscall.Exec(path, cmd.Args, cmd.Environ()))
	}
	// The terminal's ctrl-c reaches the plugin too: it decides what to do.
	cmd.Cancel = func() error { return nil }
	err := cmd.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return &StatusError{Code: max(ee.ExitCode(), 1)}
	}
	return err
}

// pluginTimeout bounds how long a plugin may take to say what it is.
const pluginTimeout = 2 * time.Second

// plugins asks all plugins what they are.
func listPlugins(ctx context.Context, a *App) []pluginInfo {
	seen := map[string]bool{}
	out := []pluginInfo{}
	for _, d := range pluginDirs(a) {
		files, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, f := range files {
			_, name, ok := strings.Cut(f.Name(), "-")
			if !ok || seen[name] || findPlugin(a, name) != filepath.Join(d, f.Name()) {
				continue
			}
			seen[name] = true
			if p, ok := askPlugin(ctx, filepath.Join(d, f.Name()), name); ok {
				out = append(out, p)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func askPlugin(ctx context.Context, path, name string) (pluginInfo, bool) {
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	b, err := exec.CommandContext(ctx, path, "docker-cli-plugin-metadata").Output()
	var p pluginInfo
	if err != nil || json.Unmarshal(b, &p) != nil || p.SchemaVersion != "0.1.0" {
		return p, false
	}
	p.Name, p.Path = name, path
	return p, true
}

// pluginHelp lists plugins in the main help.
func pluginHelp(ctx context.Context, a *App, w io.Writer) {
	list := listPlugins(ctx, a)
	if len(list) == 0 {
		return
	}
	fmt.Fprint(w, "\nPlugin Commands:\n")
	for _, p := range list {
		fmt.Fprintf(w, "  %-11s %s\n", p.Name, p.ShortDescription)
	}
}
