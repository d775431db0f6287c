package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"gantry/internal/registry/repo"
	"gantry/internal/version"
)

const usage = `Usage:  gantry registry COMMAND

Serve and keep a registry of images

Commands:
  serve      Serve a registry
  image      Make an image that serves a registry
  gc         Remove what nothing refers to, from a registry that serves or does not
  htpasswd   Print a line for the file of users
  version    Print the version

Run 'gantry registry COMMAND --help' for more information on a command.
`

// command is one command of the program.
type command struct {
	name string
	run  func(ctx context.Context, fs *flag.FlagSet, args []string, out io.Writer) error
}

// run runs the program. As a plugin it gets its own name first.
func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	if len(args) > 0 && args[0] == "docker-cli-plugin-metadata" {
		return json.NewEncoder(out).Encode(map[string]string{"SchemaVersion": "0.1.0", "Vendor": "Gantry", "Version": version.Version, "ShortDescription": "Serve and keep a registry of images"})
	}
	for len(args) > 0 && args[0] == "registry" {
		args = args[1:]
	}
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" || args[0] == "help" {
		fmt.Fprint(out, usage)
		return nil
	}
	for _, c := range []command{{"serve", serveCommand}, {"image", imageCommand}, {"gc", gcCommand}, {"htpasswd", htpasswdCommand}, {"version", versionCommand}} {
		if c.name != args[0] {
			continue
		}
		fs := flag.NewFlagSet("gantry registry "+c.name, flag.ContinueOnError)
		fs.SetOutput(errOut)
		err := c.run(ctx, fs, args[1:], out)
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	return fmt.Errorf("unknown command %q\n\n%s", args[0], usage)
}

func versionCommand(_ context.Context, fs *flag.FlagSet, args []string, out io.Writer) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	fmt.Fprintf(out, "gantry-registry %s (%s)\n", version.Version, version.Commit)
	return nil
}

// htpasswdCommand prints a user's line; the password comes from standard input.
func htpasswdCommand(_ context.Context, fs *flag.FlagSet, args []string, out io.Writer) error {
	cost := fs.Int("cost", 10, "bcrypt cost, 4 to 31")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 || strings.Contains(fs.Arg(0), ":") {
		return errors.New("usage: gantry registry htpasswd [--cost N] USER <password")
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, 1024))
	if err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(strings.TrimRight(string(data), "\r\n")), *cost)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s:%s\n", fs.Arg(0), hash)
	return nil
}

// gcCommand collects garbage: by the server at an address, or in the directory
// of a server that does not run.
func gcCommand(ctx context.Context, fs *flag.FlagSet, args []string, out io.Writer) error {
	var c config
	c.flags(fs)
	url := fs.String("url", "", "address of a server that runs, as http://localhost:5000; it collects by itself while pushes go on")
	user := fs.String("user", "", "name:password to show to the server")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	if *url != "" {
		return askCollect(ctx, *url, *user, c.Untagged, out)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	store, err := c.store(ctx, nil, cancel)
	if err != nil {
		return err
	}
	defer store.Close()
	opts, err := c.collectOptions(ctx, store.Store)
	if err != nil {
		return err
	}
	got, err := store.Collect(ctx, opts)
	return errors.Join(report(out, got), err)
}

func askCollect(ctx context.Context, url, user string, untagged bool, out io.Writer) error {
	url = strings.TrimSuffix(url, "/") + "/gc"
	if untagged {
		url += "?untagged=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got repo.Collected
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	return report(out, got)
}

func report(out io.Writer, got repo.Collected) error {
	_, err := fmt.Fprintf(out, "removed %d blobs (%d bytes), %d links, %d manifests, %d tags, %d uploads, %d repositories\n",
		got.Blobs, got.Bytes, got.Links, got.Manifests, got.Tags, got.Uploads, got.Repositories)
	return err
}
