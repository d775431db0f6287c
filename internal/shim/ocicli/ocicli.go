// Package ocicli is the OCI runtime command line of gantry-shim: create, start,
// state, kill, delete and the other commands that engines such as podman expect
// of an OCI runtime (runtime-spec, runtime.md; the flags are those that runc
// has made usual).
//
// cmd/gantry-shim calls Main. It keeps one directory for each container below
// --root and holds nothing between calls: every command reads what it needs.
// Gantry's own engine does not use it, so it may link encoding/json, which the
// supervisor must not touch. It must not know images, networks or the API.
//
//	create   cgroup, namespaces, init prepared; init waits at exec.fifo
//	start    lets it go
//	kill, pause, resume, update, exec, ps, events   while it runs
//	delete   what is left of it
package ocicli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"gantry/internal/errs"
)

// defaultRoot is where containers are kept unless --root says otherwise.
const defaultRoot = "/run/gantry-shim"

// A cli is one call of the program.
type cli struct {
	ctx           context.Context
	name          string
	root          string
	log           string
	logJSON       bool
	systemdCgroup bool
	stdout        io.Writer
	// code is the exit code if there is no error.
	code int
}

// A command is one entry of the table of commands.
type command struct {
	flags flags
	usage string
	help  string
	run   func(c *cli, o options, args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"create": {createFlags(), "create [--bundle DIR] ID", "make a container of an OCI bundle; start runs it", (*cli).create},
		"run":    {createFlags(), "run [--bundle DIR] [--detach] ID", "create and start a container, and wait for it", (*cli).run},
		"start":  {nil, "start ID", "run the program of a created container", (*cli).start},
		"state":  {nil, "state ID", "print the state of a container as JSON", (*cli).state},
		"kill":   {flags{"all": flagOnly, "a": "all"}, "kill [--all] ID [SIGNAL]", "send a signal, TERM by default, to a container's first process", (*cli).kill},
		"delete": {flags{"force": flagOnly, "f": "force"}, "delete [--force] ID", "remove what is left of a container", (*cli).delete},
		"list":   {flags{"format": flagValue, "f": "format", "quiet": flagOnly, "q": "quiet"}, "list [--quiet] [--format table|json]", "list containers", (*cli).list},
		"exec":   {execFlags(), "exec [flags] ID COMMAND [ARG...]", "run a further process in a container", (*cli).exec},
		"pause":  {nil, "pause ID", "freeze all processes of a container", (*cli).pause},
		"resume": {nil, "resume ID", "let a paused container go on", (*cli).resume},
		"ps":     {flags{"format": flagValue, "f": "format"}, "ps [--format table|json] ID", "list the processes of a container", (*cli).ps},
		"update": {updateFlags(), "update [--resources FILE] ID", "change the limits of a container", (*cli).update},
		"events": {flags{"stats": flagOnly, "interval": flagValue}, "events --stats ID", "print what a container uses as JSON", (*cli).events},

		"features": {nil, "features", "print what this runtime can do as JSON", (*cli).features},
	}
}

// Main runs one command and returns the exit code.
func Main(ctx context.Context, name string, args []string) int {
	c := &cli{ctx: ctx, name: name, root: defaultRoot, stdout: os.Stdout}
	err := c.main(args)
	if err == nil {
		return c.code
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	c.report(err)
	return 1
}

func (c *cli) main(args []string) error {
	o, rest, err := flags{
		"root": flagValue, "log": flagValue, "log-format": flagValue, "systemd-cgroup": flagOnly, "debug": flagOnly,
		"version": flagOnly, "v": "version", "help": flagOnly, "h": "help", "rootless": flagValue, "criu": flagValue,
	}.parse(args)
	if err != nil {
		return err
	}
	c.log, c.logJSON, c.systemdCgroup = o.get("log"), o.get("log-format") == "json", o.has("systemd-cgroup")
	if r := o.get("root"); r != "" {
		c.root = r
	}
	if o.has("version") {
		_, err := fmt.Fprintf(c.stdout, "gantry-shim version 1\nspec: %s\n", specVersion)
		return err
	}
	if len(rest) == 0 || o.has("help") || rest[0] == "help" {
		return c.help()
	}
	cmd, ok := commands()[rest[0]]
	if !ok {
		return errs.New(errs.Invalid, "no such command: %s", rest[0])
	}
	if cmd.flags == nil {
		cmd.flags = flags{}
	}
	o, rest, err = cmd.flags.parse(rest[1:])
	if err != nil {
		return fmt.Errorf("%w\nusage: %s %s", err, c.name, cmd.usage)
	}
	return cmd.run(c, o, rest)
}

func (c *cli) help() error {
	var b strings.Builder
	fmt.Fprintf(&b, "An OCI runtime.\n\nusage: %s [--root DIR] [--log FILE] [--log-format json|text] [--systemd-cgroup] COMMAND\n\n", c.name)
	all := commands()
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintf(&b, "  %-44s %s\n", all[n].usage, all[n].help)
	}
	_, err := io.WriteString(c.stdout, b.String())
	return err
}

// report writes the error to the --log file, where engines look for it. There
// is nowhere to say that this has failed.
func (c *cli) report(err error) {
	if c.log == "" {
		return
	}
	f, ferr := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if ferr != nil {
		return
	}
	defer f.Close()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	if !c.logJSON {
		fmt.Fprintf(f, "time=%q level=error msg=%q\n", now, err)
		return
	}
	line, _ := json.Marshal(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{"error", err.Error(), now})
	f.Write(append(line, '\n'))
}

func (c *cli) print(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(append(b, '\n'))
	return err
}

// one checks that there is exactly one argument, the container's ID.
func one(args []string) (string, error) {
	if len(args) != 1 {
		return "", errs.New(errs.Invalid, "one container ID is needed, not %d arguments", len(args))
	}
	return args[0], nil
}
