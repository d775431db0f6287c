package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/formatter"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// versionInfo is what templates of version see.
type versionInfo struct {
	Client clientVersion
	Server *wire.Version
}

type clientVersion struct {
	Version           string `json:",omitempty"`
	APIVersion        string `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string `json:",omitempty"`
	GitCommit         string `json:",omitempty"`
	GoVersion         string `json:",omitempty"`
	Os                string `json:",omitempty"`
	Arch              string `json:",omitempty"`
	BuildTime         string `json:",omitempty"`
	Context           string
}

func versionCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("version [OPTIONS]", "Show the "+title(a.name)+" version information", noArgs, func(cmd *cobra.Command, _ []string) error {
		return showVersion(cmd.Context(), a, format)
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatUsage)
	return cmd
}

func showVersion(ctx context.Context, a *App, format string) error {
	v := versionInfo{Client: clientVersion{
		Version: a.build.Version, DefaultAPIVersion: client.MaxVersion, APIVersion: client.MaxVersion, GitCommit: a.build.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: a.build.Time, Context: conf.DefaultContext,
	}}
	var server wire.Version
	c, err := a.client()
	if err == nil {
		v.Client.Context = a.target.Context
		if err = c.Get(ctx, "/version", nil, &server); err == nil {
			v.Server = &server
		}
		v.Client.APIVersion = c.Version()
	}
	if format != "" {
		if ferr := formatter.Value(a.Out, format, v); ferr != nil {
			return ferr
		}
		return err
	}
	if perr := printVersion(a, v); perr != nil {
		return perr
	}
	return err
}

func printVersion(a *App, v versionInfo) error {
	w := tabwriter.NewWriter(a.Out, 20, 1, 1, ' ', 0)
	c := v.Client
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s", c.Version, c.APIVersion)
	if c.APIVersion != c.DefaultAPIVersion {
		fmt.Fprintf(w, " (downgraded from %s)", c.DefaultAPIVersion)
	}
	fmt.Fprintf(w, "\n Go version:\t%s\n Git commit:\t%s\n Built:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n", c.GoVersion, c.GitCommit, humanTime(c.BuildTime), c.Os, c.Arch, c.Context)
	if v.Server != nil {
		printServerVersion(w, v.Server)
	}
	return w.Flush()
}

func printServerVersion(w io.Writer, s *wire.Version) {
	fmt.Fprint(w, "\nServer:")
	if s.Platform.Name != "" {
		fmt.Fprintf(w, " %s", s.Platform.Name)
	}
	fmt.Fprintln(w)
	for _, c := range s.Components {
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", c.Name, c.Version)
		d := c.Details
		if c.Name == "Engine" {
			fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
				d["ApiVersion"], d["MinAPIVersion"], d["GoVersion"], d["GitCommit"], humanTime(d["BuildTime"]), d["Os"], d["Arch"], d["Experimental"])
			continue
		}
		var keys []string
		for k := range d {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
		}
	}
}

func humanTime(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return t.Format(time.ANSIC)
}

// infoValue is what templates of info see: the daemon's answer and the client.
type infoValue struct {
	*wire.Info   `json:",omitempty"`
	ServerErrors []string `json:",omitempty"`
	ClientInfo   struct {
		Debug   bool
		Context string
		Version string
		Plugins []pluginInfo
	}
}

func infoCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("info [OPTIONS]", "Display system-wide information", noArgs, func(cmd *cobra.Command, _ []string) error {
		return showInfo(cmd.Context(), a, format)
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatUsage)
	return cmd
}

func showInfo(ctx context.Context, a *App, format string) error {
	v := infoValue{}
	v.ClientInfo.Debug, v.ClientInfo.Version, v.ClientInfo.Context = a.global.Debug, a.build.Version, conf.DefaultContext
	v.ClientInfo.Plugins = []pluginInfo{}
	c, err := a.client()
	if err == nil {
		v.ClientInfo.Context = a.target.Context
		v.Info = &wire.Info{}
		err = c.Get(ctx, "/info", nil, v.Info)
	}
	if err != nil {
		v.Info = nil
		v.ServerErrors = append(v.ServerErrors, err.Error())
	}
	if format != "" {
		if v.Info == nil {
			v.Info = &wire.Info{}
		}
		if ferr := formatter.Value(a.Out, format, v); ferr != nil {
			return ferr
		}
		return err
	}
	v.ClientInfo.Plugins = listPlugins(ctx, a)
	printClientInfo(a, v)
	fmt.Fprintln(a.Out, "\nServer:")
	if err != nil {
		for _, s := range v.ServerErrors {
			fmt.Fprintln(a.Err, s)
		}
		return errors.New("errors pretty printing info")
	}
	printInfo(a.Out, v.Info)
	for _, w := range v.Warnings {
		fmt.Fprintln(a.Err, w)
	}
	return nil
}

func printClientInfo(a *App, v infoValue) {
	fmt.Fprintf(a.Out, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n", v.ClientInfo.Version, v.ClientInfo.Context, v.ClientInfo.Debug)
	if len(v.ClientInfo.Plugins) > 0 {
		fmt.Fprintln(a.Out, " Plugins:")
	}
	for _, p := range v.ClientInfo.Plugins {
		fmt.Fprintf(a.Out, "  %s: %s (%s)\n    Version:  %s\n    Path:     %s\n", p.Name, p.ShortDescription, p.Vendor, p.Version, p.Path)
	}
}

func printInfo(w io.Writer, i *wire.Info) {
	line := func(label string, v any) { fmt.Fprintf(w, " %s: %v\n", label, v) }
	some := func(label, v string) {
		if v != "" {
			line(label, v)
		}
	}
	line("Containers", i.Containers)
	line(" Running", i.ContainersRunning)
	line(" Paused", i.ContainersPaused)
	line(" Stopped", i.ContainersStopped)
	line("Images", i.Images)
	some("Server Version", i.ServerVersion)
	some("Storage Driver", i.Driver)
	for _, p := range i.DriverStatus {
		line(" "+p[0], p[1])
	}
	some("Logging Driver", i.LoggingDriver)
	some("Cgroup Driver", i.CgroupDriver)
	some("Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	line(" Volume", strings.Join(i.Plugins.Volume, " "))
	line(" Network", strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		line(" Authorization", strings.Join(i.Plugins.Authorization, " "))
	}
	line(" Log", strings.Join(i.Plugins.Log, " "))
	line("Swarm", i.Swarm.LocalNodeState)
	printRuntimes(w, i)
	some("Kernel Version", i.KernelVersion)
	some("Operating System", i.OperatingSystem)
	some("OSType", i.OSType)
	some("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", bytesSize(i.MemTotal))
	some("Name", i.Name)
	some("ID", i.ID)
	line("Docker Root Dir", i.DockerRootDir)
	line("Debug Mode", i.Debug)
	some("HTTP Proxy", i.HTTPProxy)
	some("HTTPS Proxy", i.HTTPSProxy)
	some("No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintln(w, " Labels:")
		for _, l := range i.Labels {
			fmt.Fprintln(w, "  "+l)
		}
	}
	line("Experimental", i.ExperimentalBuild)
	printRegistries(w, i)
	line("Live Restore Enabled", i.LiveRestoreEnabled)
	if i.FirewallBackend != nil {
		line("Firewall Backend", i.FirewallBackend.Driver)
		for _, p := range i.FirewallBackend.Info {
			line(" "+p[0], p[1])
		}
	}
	fmt.Fprintln(w)
}

func printRuntimes(w io.Writer, i *wire.Info) {
	var names []string
	for n := range i.Runtimes {
		names = append(names, n)
	}
	sort.Strings(names)
	if len(names) > 0 {
		fmt.Fprintf(w, " Runtimes: %s\n Default Runtime: %s\n", strings.Join(names, " "), i.DefaultRuntime)
	}
	fmt.Fprintf(w, " Init Binary: %s\n containerd version: %s\n runc version: %s\n init version: %s\n", i.InitBinary, i.ContainerdCommit.ID, i.RuncCommit.ID, i.InitCommit.ID)
	if len(i.SecurityOptions) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, o := range i.SecurityOptions {
		for f := range strings.SplitSeq(o, ",") {
			k, v, _ := strings.Cut(f, "=")
			switch k {
			case "name":
				fmt.Fprintln(w, "  "+v)
			case "profile":
				fmt.Fprintln(w, "   Profile: "+v)
			}
		}
	}
}

func printRegistries(w io.Writer, i *wire.Info) {
	r := i.RegistryConfig
	if r == nil {
		return
	}
	if len(r.InsecureRegistryCIDRs) > 0 || len(r.IndexConfigs) > 0 {
		fmt.Fprintln(w, " Insecure Registries:")
		for _, c := range r.IndexConfigs {
			if !c.Secure {
				fmt.Fprintln(w, "  "+c.Name)
			}
		}
		for _, c := range r.InsecureRegistryCIDRs {
			fmt.Fprintf(w, "  %s\n", c)
		}
	}
	if len(r.Mirrors) > 0 {
		fmt.Fprintln(w, " Registry Mirrors:")
		for _, m := range r.Mirrors {
			fmt.Fprintln(w, "  "+m)
		}
	}
}
