// Package buildx is the command line of builds: build, bake, and what looks after
// the builder (du, prune, ls, inspect, history, …), with the grammar, texts and
// exit codes of docker buildx. cmd/gantry-buildx calls it, once a process. It
// writes to the user's terminal, to the files that flags name, and a record of
// each build below the user's cache directory (package why). It must not know the
// engine: it speaks the API, and BuildKit's protocol through package solve.
package buildx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/moby/buildkit/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gantry/internal/cli/buildx/solve"
	"gantry/internal/cli/conf"
	api "gantry/internal/client"
)

// Streams are what the process reads and writes.
type Streams struct{ In, Out, Err *os.File }

// Version describes this binary; the linker stamps it.
type Version struct{ Version, Commit string }

// plugin is the version as what calls docker's plugin compares it (docker compose
// wants 0.17 or later): that of docker buildx whose flags and files these are.
func (v Version) plugin() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/docker/buildx" {
				return m.Version + "-gantry" + v.Version
			}
		}
	}
	return v.Version
}

// App is one run of the program.
type App struct {
	Streams
	version Version
	global  conf.Global
	builder string
	file    *conf.File
	target  conf.Target
	api     *api.Client
	bk      *client.Client
	dialer  dialer
}

// dialer remembers that nobody was there: BuildKit's client only has the text.
type dialer struct {
	*api.Client
	failed atomic.Pointer[api.ConnectError]
}

// Upgrade is solve.Dialer's.
func (d *dialer) Upgrade(ctx context.Context, proto string, r api.Request) (*api.Conn, error) {
	conn, err := d.Client.Upgrade(ctx, proto, r)
	var c *api.ConnectError
	if errors.As(err, &c) {
		d.failed.Store(c)
	}
	return conn, err
}

// builderName is the only builder there is: the daemon.
const builderName = "default"

// Run runs the program with args (without its name) and returns the exit code.
func Run(ctx context.Context, s Streams, v Version, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second ctrl-c ends the process at once.
	context.AfterFunc(ctx, stop)
	a := &App{Streams: s, version: v}
	if len(args) > 0 && args[0] == "docker-cli-plugin-metadata" {
		_ = json.NewEncoder(s.Out).Encode(map[string]string{"SchemaVersion": "0.1.0", "Vendor": "Gantry", "Version": v.plugin(), "ShortDescription": "Build images"})
		return 0
	}
	err := a.run(ctx, args)
	a.close()
	return a.exit(err)
}

func (a *App) close() {
	if a.bk != nil {
		_ = a.bk.Close() // the process ends
	}
	if a.api != nil {
		a.api.Close()
	}
}

// globals are the flags in front of the command, as gantry and docker pass them.
func (a *App) globals() *pflag.FlagSet {
	fs := pflag.NewFlagSet("gantry", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	g := &a.global
	fs.StringVar(&g.Dir, "config", conf.Dir(), "")
	fs.StringVarP(&g.Context, "context", "c", "", "")
	fs.BoolVarP(&g.Debug, "debug", "D", false, "")
	fs.StringArrayVarP(&g.Hosts, "host", "H", nil, "")
	fs.StringVarP(&g.LogLevel, "log-level", "l", "info", "")
	fs.BoolVar(&g.TLS, "tls", os.Getenv("DOCKER_TLS") != "", "")
	fs.StringVar(&g.CACert, "tlscacert", "", "")
	fs.StringVar(&g.Cert, "tlscert", "", "")
	fs.StringVar(&g.Key, "tlskey", "", "")
	fs.BoolVar(&g.TLSVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "")
	fs.BoolP("help", "h", false, "")
	return fs
}

func (a *App) run(ctx context.Context, args []string) error {
	gl := a.globals()
	if err := gl.Parse(args); err != nil {
		return err
	}
	a.global.VerifySet = gl.Changed("tlsverify")
	rest := gl.Args()
	for len(rest) > 0 && (rest[0] == "buildx" || rest[0] == "builder") {
		rest = rest[1:]
	}
	if help, _ := gl.GetBool("help"); help {
		rest = append(slices.Clone(rest), "--help")
	}
	root := a.root()
	root.SetArgs(rest)
	return root.ExecuteContext(ctx)
}

// root is the tree of commands.
func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use: "buildx", Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "gantry buildx"}, Short: "Build images", SilenceUsage: true, SilenceErrors: true, TraverseChildren: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(a.Out, cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(a.Err, cmd); return nil })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w\n\nUsage:  %s\n\nRun '%s --help' for more information", err, cmd.UseLine(), cmd.CommandPath())
	})
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true})
	pf := root.PersistentFlags()
	pf.StringVar(&a.builder, "builder", os.Getenv("BUILDX_BUILDER"), "Override the configured builder instance")
	pf.BoolVarP(&a.global.Debug, "debug", "D", a.global.Debug, "Enable debug logging")
	root.AddCommand(buildCommand(a), bakeCommand(a))
	root.AddCommand(adminCommands(a)...)
	return root
}

// leaf makes a command without children.
func leaf(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run, DisableFlagsInUseLine: true}
}

// exactly, atMost and none are the checks of arguments, with docker's text.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		word := "arguments"
		if n == 1 {
			word = "argument"
		}
		return argError(cmd, fmt.Sprintf("requires %d %s", n, word))
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		if n == 0 {
			return argError(cmd, "accepts no arguments")
		}
		return argError(cmd, fmt.Sprintf("requires at most %d argument", n))
	}
}

func argError(cmd *cobra.Command, text string) error {
	return fmt.Errorf("'%s' %s\n\nUsage:  %s\n\nRun '%s --help' for more information", cmd.CommandPath(), text, cmd.UseLine(), cmd.CommandPath())
}

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

// daemon returns the connection to the API. Nothing is asked yet.
func (a *App) daemon() (*api.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	if err := a.checkBuilder(a.builder); err != nil {
		return nil, err
	}
	t, err := conf.Resolve(a.global, a.config())
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: %w", err)
	}
	a.target = t
	a.api, err = api.New(api.Options{
		Host: t.Host, TLS: t.TLS, Version: strings.TrimPrefix(os.Getenv("DOCKER_API_VERSION"), "v"),
		UserAgent: "Gantry-Client/" + a.version.Version + " (linux)", Headers: a.config().HTTPHeaders,
	})
	return a.api, err
}

// buildkit returns BuildKit's client over the API.
func (a *App) buildkit(ctx context.Context) (*client.Client, error) {
	if a.bk != nil {
		return a.bk, nil
	}
	d, err := a.daemon()
	if err != nil {
		return nil, err
	}
	a.dialer.Client = d
	a.bk, err = solve.Connect(ctx, &a.dialer)
	return a.bk, err
}

// checkBuilder refuses builders other than the daemon.
func (a *App) checkBuilder(name string) error {
	if name == "" || name == builderName {
		return nil
	}
	if n, err := conf.ContextName(a.global, a.config()); err == nil && n == name {
		return nil
	}
	if c, err := conf.Contexts(a.global.Dir).Get(name); err == nil {
		a.global.Context = c.Name // a context's daemon is a builder of its name
		return nil
	}
	return fmt.Errorf("no builder %q found: builds run on the daemon (driver docker); a context's name chooses another daemon", name)
}

// errQuiet ends the program with a code; everything was said.
type errQuiet struct{ code int }

func (e errQuiet) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exit prints err as docker buildx does and returns the exit code.
func (a *App) exit(err error) int {
	var quiet errQuiet
	switch {
	case err == nil:
		return 0
	case errors.As(err, &quiet):
		return quiet.code
	}
	if c := a.dialer.failed.Load(); c != nil && !errors.Is(err, context.Canceled) {
		err = c
	}
	printError(a.Err, err)
	return exitCode(err)
}
