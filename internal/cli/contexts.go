package cli

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/formatter"
	"gantry/internal/cli/term"
	"gantry/internal/errs"
)

func (a *App) contexts() conf.Store { return conf.Contexts(a.global.Dir) }

func contextCreateCommand(a *App) *cobra.Command {
	return contextWriter(a, contextVerb{use: "create [OPTIONS] CONTEXT", short: "Create a context", past: "created", fresh: true})
}

func contextUpdateCommand(a *App) *cobra.Command {
	return contextWriter(a, contextVerb{use: "update [OPTIONS] CONTEXT", short: "Update a context", past: "updated"})
}

// contextVerb is what distinguishes create from update.
type contextVerb struct {
	use, short, past string
	fresh            bool // the context must not be there yet
}

func contextWriter(a *App, v contextVerb) *cobra.Command {
	var description, from string
	var docker map[string]string
	cmd := leaf(v.use, v.short, exactArgs(1), func(cmd *cobra.Command, args []string) error {
		name := args[0]
		if err := conf.CheckName(name); err != nil {
			return err
		}
		s := a.contexts()
		c, err := s.Get(name)
		var pem conf.TLS
		if v.fresh {
			if err == nil {
				return fmt.Errorf("context %q already exists", name)
			}
			c = conf.Context{Name: name, Metadata: map[string]any{}, Endpoints: map[string]conf.Endpoint{}}
			if from != "" || len(docker) == 0 {
				if c, pem, err = copyContext(a, name, from); err != nil {
					return err
				}
			}
		} else {
			if err != nil {
				return err
			}
			if pem, err = s.TLS(name); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("description") {
			c.Metadata["Description"] = description
		}
		if len(docker) > 0 {
			ep, p, err := dockerEndpoint(a, docker)
			if err != nil {
				return err
			}
			c.Endpoints, pem = map[string]conf.Endpoint{"docker": ep}, p
		}
		if err := s.Put(c, pem); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, name)
		fmt.Fprintf(a.Err, "Successfully %s context %q\n", v.past, name)
		return nil
	})
	cmd.Flags().StringVar(&description, "description", "", "Description of the context")
	cmd.Flags().StringToStringVar(&docker, "docker", nil, "set the docker endpoint")
	if v.fresh {
		cmd.Flags().StringVar(&from, "from", "", "create context from a named context")
	}
	return cmd
}

// copyContext returns a context called name that leads where from leads; "" is
// the current one.
func copyContext(a *App, name, from string) (conf.Context, conf.TLS, error) {
	c := conf.Context{Name: name, Metadata: map[string]any{}, Endpoints: map[string]conf.Endpoint{}}
	if from == "" {
		var err error
		if from, err = conf.ContextName(a.global, a.config()); err != nil {
			return c, conf.TLS{}, err
		}
	}
	if from == conf.DefaultContext {
		host, err := conf.DefaultHost(a.global)
		if err != nil {
			return c, conf.TLS{}, err
		}
		c.Endpoints["docker"] = conf.Endpoint{Host: host}
		return c, conf.TLS{}, nil
	}
	src, err := a.contexts().Get(from)
	if err != nil {
		return c, conf.TLS{}, err
	}
	pem, err := a.contexts().TLS(from)
	src.Name = name
	if src.Metadata == nil {
		src.Metadata = map[string]any{}
	}
	return src, pem, err
}

// dockerEndpoint reads --docker host=…,ca=….
func dockerEndpoint(a *App, m map[string]string) (conf.Endpoint, conf.TLS, error) {
	var pem conf.TLS
	ep := conf.Endpoint{Host: m["host"]}
	for _, k := range sortedNames(m) {
		v := m[k]
		switch k {
		case "host":
		case "from":
			c, p, err := copyContext(a, "", v)
			if err != nil {
				return ep, pem, err
			}
			return c.Endpoints["docker"], p, nil
		case "ca", "cert", "key":
			b, err := os.ReadFile(expandHome(v))
			if err != nil {
				return ep, pem, fmt.Errorf("unable to create docker endpoint config: %w", err)
			}
			map[string]func(){"ca": func() { pem.CA = b }, "cert": func() { pem.Cert = b }, "key": func() { pem.Key = b }}[k]()
		case "skip-tls-verify":
			skip, err := strconv.ParseBool(v)
			if err != nil {
				return ep, pem, errs.New(errs.Invalid, "unable to create docker endpoint config: skip-tls-verify: %w", err)
			}
			ep.SkipTLSVerify = skip
		default:
			return ep, pem, errs.New(errs.Invalid, "unable to create docker endpoint config: unrecognized config key: %s", k)
		}
	}
	if ep.Host == "" {
		return ep, pem, nil
	}
	if _, err := conf.ParseHost(ep.Host, true); err != nil {
		return ep, pem, fmt.Errorf("unable to create docker endpoint config: unable to parse docker host `%s`", ep.Host)
	}
	return ep, pem, nil
}

func expandHome(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return home + "/" + rest
		}
	}
	return p
}

func contextLsCommand(a *App) *cobra.Command {
	var quiet bool
	var format string
	cmd := leaf("ls [OPTIONS]", "List contexts", noArgs, func(*cobra.Command, []string) error {
		current, err := conf.ContextName(a.global, a.config())
		if err != nil {
			return err
		}
		list, err := a.contexts().List()
		if err != nil {
			return err
		}
		host, err := conf.DefaultHost(a.global)
		def := formatter.ContextRow{Name: conf.DefaultContext, Description: "Current DOCKER_HOST based configuration", Host: host}
		if err != nil {
			def.Err = err.Error()
		}
		rows := []*formatter.ContextContext{{C: def}}
		found := current == conf.DefaultContext
		for _, c := range list {
			d, _ := c.Metadata["Description"].(string)
			rows = append(rows, &formatter.ContextContext{C: formatter.ContextRow{Name: c.Name, Description: d, Host: c.Endpoints["docker"].Host}})
			found = found || c.Name == current
		}
		if !found {
			rows = append(rows, &formatter.ContextContext{C: formatter.ContextRow{Name: current, Err: fmt.Sprintf("context %q: context not found", current)}})
		}
		sort.Slice(rows, func(i, j int) bool { return rows[i].C.Name < rows[j].C.Name })
		for _, r := range rows {
			r.C.Current = r.C.Name == current
			if quiet {
				fmt.Fprintln(a.Out, r.C.Name)
			}
		}
		if !quiet {
			if err := formatter.ContextTable().Render(a.Out, format, rows); err != nil {
				return err
			}
		}
		if v := conf.HostVariable(); v != "" && len(a.global.Hosts) == 0 && a.global.Context == "" {
			fmt.Fprintf(a.Err, "Warning: %s environment variable overrides the active context. To use a context, either set the global --context flag, or unset %s environment variable.\n", v, v)
		}
		return nil
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	return cmd
}

func contextUseCommand(a *App) *cobra.Command {
	return leaf("use CONTEXT", "Set the current "+a.name+" context", exactArgs(1), func(_ *cobra.Command, args []string) error {
		name := args[0]
		if name != conf.DefaultContext {
			if _, err := a.contexts().Get(name); err != nil {
				return err
			}
		}
		if err := a.config().SetCurrentContext(name); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, name)
		if v := conf.HostVariable(); v != "" {
			fmt.Fprintf(a.Err, "Warning: %s environment variable overrides the active context. To use %q, either set the global --context flag, or unset %s environment variable.\n", v, name, v)
		}
		fmt.Fprintf(a.Err, "Current context is now %q\n", name)
		return nil
	})
}

func contextShowCommand(a *App) *cobra.Command {
	return leaf("show", "Print the name of the current context", noArgs, func(*cobra.Command, []string) error {
		name, err := conf.ContextName(a.global, a.config())
		if err != nil {
			return err
		}
		fmt.Fprintln(a.Out, name)
		return nil
	})
}

func contextRmCommand(a *App) *cobra.Command {
	var force bool
	cmd := leaf("rm CONTEXT [CONTEXT...]", "Remove one or more contexts", minArgs(1), func(_ *cobra.Command, args []string) error {
		current, err := conf.ContextName(a.global, a.config())
		if err != nil {
			return err
		}
		return a.each(args, func(n string) error {
			if n == conf.DefaultContext {
				return errors.New(`context "default" cannot be removed`)
			}
			if n == current {
				if !force {
					return fmt.Errorf("context %q is in use, set -f flag to force remove", n)
				}
				if a.config().CurrentContext == n {
					if err := a.config().SetCurrentContext(""); err != nil {
						return err
					}
				}
			}
			if err := a.contexts().Remove(n); err != nil && !(force && errs.Is(err, errs.NotFound)) {
				return err
			}
			return nil
		})
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// contextDetails is what context inspect shows.
type contextDetails struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]conf.Endpoint
	TLSMaterial map[string][]string
	Storage     struct{ MetadataPath, TLSPath string }
}

func describeContext(a *App, name string) (contextDetails, error) {
	d := contextDetails{Name: name, Metadata: map[string]any{}, TLSMaterial: map[string][]string{}}
	if name == conf.DefaultContext {
		host, err := conf.DefaultHost(a.global)
		if err != nil {
			return d, err
		}
		d.Endpoints = map[string]conf.Endpoint{"docker": {Host: host}}
		d.Storage.MetadataPath, d.Storage.TLSPath = "<IN MEMORY>", "<IN MEMORY>"
		return d, nil
	}
	s := a.contexts()
	c, err := s.Get(name)
	if err != nil {
		return d, err
	}
	pem, err := s.TLS(name)
	if err != nil {
		return d, err
	}
	for file, b := range map[string][]byte{"ca.pem": pem.CA, "cert.pem": pem.Cert, "key.pem": pem.Key} {
		if len(b) > 0 {
			d.TLSMaterial["docker"] = append(d.TLSMaterial["docker"], file)
		}
	}
	sort.Strings(d.TLSMaterial["docker"])
	d.Metadata, d.Endpoints = c.Metadata, c.Endpoints
	d.Storage.MetadataPath, d.Storage.TLSPath = s.MetaPath(name), s.TLSPath(name)
	return d, nil
}

// exportTo writes a context as a tar: meta.json and tls/docker/*.pem.
func exportTo(a *App, w io.Writer, name string) error {
	d, err := describeContext(a, name)
	if err != nil {
		return err
	}
	meta, err := json.Marshal(conf.Context{Name: d.Name, Metadata: d.Metadata, Endpoints: d.Endpoints})
	if err != nil {
		return err
	}
	var pem conf.TLS
	if name != conf.DefaultContext {
		if pem, err = a.contexts().TLS(name); err != nil {
			return err
		}
	}
	tw := tar.NewWriter(w)
	put := func(path string, b []byte) error {
		if b == nil {
			return nil
		}
		if err := tw.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err := tw.Write(b)
		return err
	}
	return errors.Join(put("meta.json", meta), put("tls/docker/ca.pem", pem.CA), put("tls/docker/cert.pem", pem.Cert), put("tls/docker/key.pem", pem.Key), tw.Close())
}

func contextExportCommand(a *App) *cobra.Command {
	return leaf("export CONTEXT [FILE|-]", "Export a context to a tar archive FILE or a tar stream on STDOUT.", rangeArgs(1, 2), func(_ *cobra.Command, args []string) error {
		if len(args) == 2 && args[1] == "-" {
			if a.outIsTerminal() {
				return errors.New("cowardly refusing to export to a terminal, specify a file path")
			}
			return exportTo(a, a.Out, args[0])
		}
		path := args[0] + ".dockercontext"
		if len(args) == 2 {
			path = args[1]
		}
		if _, err := describeContext(a, args[0]); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(exportTo(a, f, args[0]), f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(a.Err, "Written file %q\n", path)
		return nil
	})
}

// maxContextFile bounds a file of an imported context.
const maxContextFile = 10 << 20

func contextImportCommand(a *App) *cobra.Command {
	return leaf("import CONTEXT FILE|-", "Import a context from a tar or zip file", exactArgs(2), func(_ *cobra.Command, args []string) error {
		name := args[0]
		if err := conf.CheckName(name); err != nil {
			return err
		}
		if _, err := a.contexts().Get(name); err == nil {
			return fmt.Errorf("context %q already exists", name)
		}
		in := a.In
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		} else if term.IsTerminal(in) {
			return errors.New("cowardly refusing to read a context from a terminal")
		}
		c, pem, err := readContextTar(in)
		if err != nil {
			return err
		}
		c.Name = name
		if err := a.contexts().Put(c, pem); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, name)
		fmt.Fprintf(a.Err, "Successfully imported context %q\n", name)
		return nil
	})
}

// readContextTar takes the files it knows by name and refuses all others, so that
// no name in the archive decides where anything is written.
func readContextTar(r io.Reader) (c conf.Context, pem conf.TLS, err error) {
	tr := tar.NewReader(r)
	seen := false
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return c, pem, errs.New(errs.Invalid, "unsupported context archive: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(tr, maxContextFile))
		if err != nil {
			return c, pem, err
		}
		switch h.Name {
		case "meta.json":
			if err := json.Unmarshal(b, &c); err != nil {
				return c, pem, errs.New(errs.Invalid, "unexpected context metadata: %w", err)
			}
			seen = true
		case "tls/docker/ca.pem":
			pem.CA = b
		case "tls/docker/cert.pem":
			pem.Cert = b
		case "tls/docker/key.pem":
			pem.Key = b
		default:
			return c, pem, errs.New(errs.Invalid, "unexpected context file: %q", h.Name)
		}
	}
	if !seen {
		return c, pem, errs.New(errs.Invalid, "unexpected context file: no metadata found")
	}
	return c, pem, nil
}

func contextInspectCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("inspect [OPTIONS] [CONTEXT] [CONTEXT...]", "Display detailed information on one or more contexts", nil, func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			name, err := conf.ContextName(a.global, a.config())
			if err != nil {
				return err
			}
			args = []string{name}
		}
		get := func(name string) ([]byte, error) {
			d, err := describeContext(a, name)
			if err != nil {
				return nil, err
			}
			return json.Marshal(d)
		}
		return inspectEach(cmd.Context(), a, args, format, localGetter(get), func() any { return &contextDetails{} })
	})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatUsage)
	return cmd
}
