// Package cli is the command line: it parses commands and flags, asks the daemon
// through package client, and prints what comes back, with the grammar, texts
// and exit codes of the docker CLI. cmd/gantry calls Run. It writes to the
// user's terminal, to files that the user names, and to the configuration
// directory through package conf. It must not know the engine: everything it
// learns comes over the API.
//
// A process is started for every command, so only the command that was asked
// for is built, and templates, tables and configuration are touched when needed.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/conf"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// Streams are what the process reads and writes.
type Streams struct {
	In       *os.File
	Out, Err io.Writer // *os.File in a real process
}

// Build describes this binary; the linker stamps it.
type Build struct{ Version, Commit, Time string }

// App is one run of the command line.
type App struct {
	Streams
	name   string // docker or gantry, as it was called
	build  Build
	global conf.Global
	file   *conf.File
	target conf.Target
	api    *client.Client
	sig    *interrupts
}

// Run executes args (with the program's name first) and returns the exit code.
func Run(ctx context.Context, s Streams, b Build, args []string) int {
	a := &App{Streams: s, name: programName(args[0]), build: b}
	ctx, a.sig = catchInterrupts(ctx)
	defer a.sig.stop()
	err := a.dispatch(ctx, args[1:])
	if a.api != nil {
		a.api.Close()
	}
	return a.exit(ctx, err)
}

// programName returns docker when called as docker, else gantry.
func programName(argv0 string) string {
	if strings.HasPrefix(filepath.Base(argv0), "docker") {
		return "docker"
	}
	return "gantry"
}

// exit prints err and returns the exit code that belongs to it.
func (a *App) exit(ctx context.Context, err error) int {
	var st *StatusError
	var c *client.ConnectError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &st):
		if st.Text != "" {
			fmt.Fprintln(a.Err, st.Text)
		}
		return st.Code
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return a.sig.code()
	case errors.As(err, &c) && a.name != "docker" && !errors.Is(err, os.ErrPermission):
		fmt.Fprintf(a.Err, "Cannot connect to the Gantry daemon at %s. Is gantryd running?\n", c.Host)
		return 1
	}
	fmt.Fprintln(a.Err, err)
	return 1
}

// globals defines the flags in front of the command.
func (a *App) globals() *pflag.FlagSet {
	fs := pflag.NewFlagSet(a.name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	g := &a.global
	dir := conf.Dir()
	fs.StringVar(&g.Dir, "config", dir, "Location of client config files")
	fs.StringVarP(&g.Context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "`+a.name+` context use")`)
	fs.BoolVarP(&g.Debug, "debug", "D", false, "Enable debug mode")
	fs.VarP(&hostList{&g.Hosts}, "host", "H", "Daemon socket to connect to")
	fs.StringVarP(&g.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.TLS, "tls", os.Getenv("DOCKER_TLS") != "", "Use TLS; implied by --tlsverify")
	fs.StringVar(&g.CACert, "tlscacert", "", "Trust certs signed only by this CA (default \""+dir+"/ca.pem\")")
	fs.StringVar(&g.Cert, "tlscert", "", "Path to TLS certificate file (default \""+dir+"/cert.pem\")")
	fs.StringVar(&g.Key, "tlskey", "", "Path to TLS key file (default \""+dir+"/key.pem\")")
	fs.BoolVar(&g.TLSVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the remote")
	fs.BoolVarP(&g.Version, "version", "v", false, "Print version information and quit")
	fs.BoolP("help", "h", false, "Print usage")
	fs.Lookup("help").Hidden = true
	_ = fs.MarkShorthandDeprecated("help", "use --help")
	return fs
}

// hostList is --host: a list, because giving it twice is an error of its own.
type hostList struct{ v *[]string }

func (h *hostList) Set(s string) error { *h.v = append(*h.v, s); return nil }
func (h *hostList) String() string     { return "" }
func (h *hostList) Type() string       { return "list" }

// dispatch finds the command in args and runs it.
func (a *App) dispatch(ctx context.Context, args []string) error {
	gl := a.globals()
	if err := gl.Parse(args); err != nil {
		return a.flagError(rootCommand(a), err)
	}
	a.global.VerifySet = gl.Changed("tlsverify")
	rest := gl.Args()
	if help, _ := gl.GetBool("help"); help {
		rest = append([]string{"help"}, rest...)
	}
	if a.global.Version && len(rest) == 0 {
		fmt.Fprintf(a.Out, "%s version %s, build %s\n", title(a.name), a.build.Version, a.build.Commit)
		return nil
	}
	if len(rest) == 0 { // nobody asked for help: it is no output
		rootHelp(ctx, a, a.Err, fullTree(a))
		return nil
	}
	switch rest[0] {
	case "help":
		return showHelp(ctx, a, fullTree(a), rest[1:])
	case cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd, "completion":
		return a.execute(ctx, fullTree(a), rest)
	case "daemon":
		return errors.New(a.name + " is the command line only. The daemon is a program of its own: run 'gantryd --help'")
	}
	if asked := builds(rest, os.Getenv); asked != nil {
		if path := ownPlugin("buildx"); path != "" {
			return runPlugin(ctx, a, path, append(slices.Clone(args[:len(args)-len(rest)]), asked...))
		}
	}
	root, ok := treeFor(a, rest)
	if !ok {
		return runUnknown(ctx, a, rest, args)
	}
	return a.execute(ctx, root, rest)
}

func (a *App) execute(ctx context.Context, root *cobra.Command, args []string) error {
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	return root.ExecuteContext(ctx)
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// config returns config.json, read once. A broken file is reported and ignored.
func (a *App) config() *conf.File {
	if a.file == nil {
		f, err := conf.Load(a.global.Dir)
		if err != nil {
			fmt.Fprintf(a.Err, "WARNING: Error %v\n", err)
		}
		a.file = f
	}
	return a.file
}

// client returns the connection to the daemon that the flags and the environment
// mean. It does not talk to it yet.
func (a *App) client() (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	t, err := conf.Resolve(a.global, a.config())
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: %w", err)
	}
	a.target = t
	a.api, err = client.New(client.Options{
		Host: t.Host, TLS: t.TLS, Version: strings.TrimPrefix(os.Getenv("DOCKER_API_VERSION"), "v"),
		UserAgent: "Gantry-Client/" + a.build.Version + " (linux)", Headers: a.config().HTTPHeaders,
	})
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: %w", err)
	}
	return a.api, nil
}

// inspectContainer asks for one container.
func (a *App) inspectContainer(ctx context.Context, name string) (*wire.ContainerJSON, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(name) == "" {
		return nil, errors.New("invalid container name or ID: value is empty")
	}
	var out wire.ContainerJSON
	if err := c.Get(ctx, containerPath(name, "json"), nil, &out); err != nil {
		return nil, err
	}
	return &out, nil
}
