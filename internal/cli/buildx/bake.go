package buildx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/spf13/cobra"

	"gantry/internal/cli/buildx/bake"
	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/opt"
)

// bakeOptions are the flags of bake.
type bakeOptions struct {
	common
	files, sets, vars, allow []string
	list                     string
	print                    bool
}

func bakeCommand(a *App) *cobra.Command {
	o := &bakeOptions{}
	cmd := leaf("bake [OPTIONS] [TARGET...]", "Build from a file", cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
		// A flag that was given is an override, even if it says no.
		for _, n := range []string{"no-cache", "pull"} {
			if f := cmd.Flags().Lookup(n); f.Changed {
				o.sets = append(o.sets, "*."+n+"="+f.Value.String())
			}
		}
		return a.bake(cmd.Context(), args, o)
	})
	cmd.Aliases = []string{"f"}
	cmd.Annotations = map[string]string{"aliases": "gantry bake, gantry buildx f"}
	fs := cmd.Flags()
	o.add(fs)
	fs.StringArrayVar(&o.allow, "allow", nil, "Allow build to access specified resources")
	fs.StringArrayVarP(&o.files, "file", "f", nil, "Build definition file")
	fs.StringVar(&o.list, "list", "", "List targets or variables")
	fs.BoolVar(&o.print, "print", false, "Print the options without building")
	fs.StringArrayVar(&o.sets, "set", nil, `Override target value (e.g., "targetpattern.key=value")`)
	fs.StringArrayVar(&o.vars, "var", nil, `Set a variable value (e.g., "name=value")`)
	return cmd
}

// bake runs the command.
func (a *App) bake(ctx context.Context, names []string, o *bakeOptions) error {
	if o.print && o.list != "" {
		return errors.New("--print and --list are mutually exclusive")
	}
	if len(names) > 0 && grammar.IsURL(names[0]) {
		return errors.New("definitions are read from files: check the repository out, or build its URL with gantry build")
	}
	files, err := a.definitions(o.files)
	if err != nil {
		return err
	}
	lookup, err := variables(o.vars, files)
	if err != nil {
		return err
	}
	c, vars, err := bake.Parse(files, map[string]string{"BAKE_CMD_CONTEXT": "", "BAKE_LOCAL_PLATFORM": platforms.Format(platforms.DefaultSpec())}, lookup)
	if err != nil {
		return placed(err)
	}
	if o.list != "" {
		return listDefinition(a, o.list, c, vars)
	}
	sets, err := o.overrides()
	if err != nil {
		return err
	}
	targets, groups, err := c.Resolve(names, sets, os.LookupEnv)
	if err != nil {
		return placed(err)
	}
	if o.print {
		e := json.NewEncoder(a.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Group  map[string]*bake.Group  `json:"group,omitempty"`
			Target map[string]*bake.Target `json:"target"`
		}{groups, targets})
	}
	return a.bakeTargets(ctx, targets, o)
}

// placed gives an error of a definition the lines that it is about.
func placed(err error) error {
	var e bake.Error
	if !errors.As(err, &e) {
		return err
	}
	f, first, last := e.Place()
	if f.Name == "" {
		return err
	}
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: f.Name, Data: f.Data},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(first)}, End: &pb.Position{Line: int32(last)}}},
	})
}

// definitions reads the files that were named, or those of the default names.
func (a *App) definitions(names []string) ([]bake.File, error) {
	if env := os.Getenv("BUILDX_BAKE_FILE"); len(names) == 0 && env != "" {
		names = filepath.SplitList(env)
	}
	given := len(names) > 0
	if !given {
		names = bake.DefaultFiles()
	}
	var out []bake.File
	for _, n := range names {
		var b []byte
		var err error
		switch {
		case n == "-":
			b, err = io.ReadAll(a.In)
		case strings.HasPrefix(n, "cwd://"):
			b, err = os.ReadFile(strings.TrimPrefix(n, "cwd://"))
		default:
			b, err = os.ReadFile(n)
		}
		if errors.Is(err, os.ErrNotExist) && !given {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, bake.File{Name: n, Data: b})
	}
	if len(out) == 0 {
		return nil, errors.New("couldn't find a bake definition")
	}
	return out, nil
}

// variables looks values up: --var, the environment, and .env beside a compose
// file.
func variables(list []string, files []bake.File) (func(string) (string, bool), error) {
	given, err := grammar.KeyValues(list, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	dotenv := map[string]string{}
	compose := slices.ContainsFunc(files, func(f bake.File) bool { return strings.HasSuffix(f.Name, ".yml") || strings.HasSuffix(f.Name, ".yaml") })
	if compose {
		b, err := os.ReadFile(".env")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
			if ok && !strings.HasPrefix(k, "#") {
				dotenv[strings.TrimPrefix(k, "export ")] = strings.Trim(v, `"'`)
			}
		}
	}
	return func(k string) (string, bool) {
		if v, ok := given[k]; ok {
			return v, true
		}
		if v, ok := os.LookupEnv(k); ok {
			return v, true
		}
		v, ok := dotenv[k]
		return v, ok
	}, nil
}

// overrides turns the shorthand flags into --set.
func (o *bakeOptions) overrides() ([]string, error) {
	sets := slices.Clone(o.sets)
	for flag, on := range map[string]bool{"push": o.push, "load": o.load} {
		if on {
			sets = append(sets, "*."+flag+"=true")
		}
	}
	for _, s := range attests(nil, o.provenance, o.sbom) {
		sets = append(sets, "*.attest="+s)
	}
	call, err := o.method()
	if err != nil {
		return nil, err
	}
	if call.Name != "" {
		sets = append(sets, "*.call="+o.call)
		if o.check {
			sets[len(sets)-1] = "*.call=check"
		}
	}
	return sets, nil
}

// bakeTargets builds.
func (a *App) bakeTargets(ctx context.Context, targets map[string]*bake.Target, o *bakeOptions) error {
	order := bake.Order(targets)
	index := map[string]int{}
	var jobs []job
	var reqs []privileges
	for i, n := range order {
		t := targets[n]
		r, err := bakeRequest(t)
		if err != nil {
			return fmt.Errorf("target %s: %w", n, err)
		}
		index[n] = i
		j := job{name: n, req: r, explain: o.explain, links: map[string]int{}}
		for name, v := range r.Contexts {
			if other, ok := strings.CutPrefix(v, "target:"); ok {
				j.links[name] = index[other]
			}
		}
		jobs = append(jobs, j)
		reqs = append(reqs, needs(r))
	}
	if err := checkAllowed(reqs, o.allow); err != nil {
		return err
	}
	mode, quiet, err := displayMode(o.progress, false)
	if err != nil {
		return err
	}
	run, err := a.start(ctx, mode, jobs)
	if err != nil {
		return fmt.Errorf("failed to build: %w", err)
	}
	all := map[string]any{}
	code := 0
	for _, j := range run.jobs {
		all[j.name] = metadata(j.result.Response)
		switch {
		case j.req.Call.Name != "":
			fmt.Fprintf(a.Out, "%s\n", j.name)
			var q errQuiet
			if err := a.printCall(j.req.Call, j.result); errors.As(err, &q) {
				code = q.code
			} else if err != nil {
				return err
			}
		case quiet && j.result.ID() != "":
			fmt.Fprintln(a.Out, j.result.ID())
		}
	}
	if o.metadataFile != "" {
		if err := writeMetadata(o.metadataFile, all); err != nil {
			return err
		}
	}
	if code != 0 {
		return errQuiet{code}
	}
	return nil
}

// listDefinition prints --list.
func listDefinition(a *App, what string, c bake.Config, vars []bake.Variable) error {
	e, err := grammar.Cache("type=" + strings.TrimPrefix(what, "type="))
	if err != nil {
		return err
	}
	rows := [][]string{{"TARGET", "DESCRIPTION"}}
	type row struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Group       bool   `json:"group,omitempty"`
	}
	var data any
	switch e.Type {
	case "targets":
		list := []row{}
		byName := map[string]row{}
		for _, t := range c.Targets {
			if !strings.HasPrefix(t.Name, "_") {
				byName[t.Name] = row{t.Name, t.Description, false}
			}
		}
		for _, g := range c.Groups {
			text := g.Description
			if text == "" {
				text = strings.Join(g.Targets, ", ")
			}
			byName[g.Name] = row{g.Name, text, true}
		}
		for _, n := range slices.Sorted(maps.Keys(byName)) {
			list = append(list, byName[n])
			rows = append(rows, []string{n, byName[n].Description})
		}
		data = list
	case "variables":
		rows = [][]string{{"VARIABLE", "TYPE", "VALUE", "DESCRIPTION"}}
		slices.SortFunc(vars, func(x, y bake.Variable) int { return strings.Compare(x.Name, y.Name) })
		for _, v := range vars {
			value := "<null>"
			if v.Value != nil {
				value = *v.Value
			}
			rows = append(rows, []string{v.Name, v.Type, value, v.Description})
		}
		data = vars
	default:
		return fmt.Errorf("invalid list type %q", e.Type)
	}
	if e.Attrs["format"] == "json" {
		j := json.NewEncoder(a.Out)
		j.SetIndent("", "  ")
		return j.Encode(data)
	}
	return table(a.Out, rows)
}

// shmBytes reads a target's shm-size.
func shmBytes(s *string) (int64, error) {
	if s == nil || *s == "" {
		return 0, nil
	}
	var b opt.Bytes
	err := b.Set(*s)
	return int64(b), err
}
