// Package bake reads bake definitions (HCL, JSON, compose files) and resolves
// them: variables, functions, matrices, groups, inheritance and overrides, with
// the semantics of docker buildx bake. Package buildx calls it. It is given the
// files' bytes and a look-up of the environment, and opens nothing. It must not
// know BuildKit or the daemon.
package bake

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// File is a definition.
type File struct {
	Name string
	Data []byte
}

// DefaultFiles are read if no file is named, those that are there.
func DefaultFiles() []string {
	return []string{
		"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
		"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl",
	}
}

// Config is what definitions hold, resolved but for groups and inheritance.
type Config struct {
	Groups  []*Group  `json:"group" hcl:"group,block" cty:"group"`
	Targets []*Target `json:"target" hcl:"target,block" cty:"target"`
}

// Variable is a variable of a definition.
type Variable struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Type        string  `json:"type,omitempty"`
	Value       *string `json:"value,omitempty"`
}

// Group is several targets, or groups.
type Group struct {
	Name        string   `json:"-" hcl:"name,label" cty:"name"`
	Description string   `json:"description,omitempty" hcl:"description,optional" cty:"description"`
	Targets     []string `json:"targets" hcl:"targets" cty:"targets"`
}

// Target is a build. Pointers are nil where nothing was said, for inheritance.
type Target struct {
	Name             string             `json:"-" hcl:"name,label" cty:"name"`
	Description      string             `json:"description,omitempty" hcl:"description,optional" cty:"description"`
	Inherits         []string           `json:"inherits,omitempty" hcl:"inherits,optional" cty:"inherits"`
	Annotations      []string           `json:"annotations,omitempty" hcl:"annotations,optional" cty:"annotations"`
	Attest           Attests            `json:"attest,omitempty" hcl:"attest,optional" cty:"attest"`
	Context          *string            `json:"context,omitempty" hcl:"context,optional" cty:"context"`
	Contexts         map[string]string  `json:"contexts,omitempty" hcl:"contexts,optional" cty:"contexts"`
	Dockerfile       *string            `json:"dockerfile,omitempty" hcl:"dockerfile,optional" cty:"dockerfile"`
	DockerfileInline *string            `json:"dockerfile-inline,omitempty" hcl:"dockerfile-inline,optional" cty:"dockerfile-inline"`
	Args             map[string]*string `json:"args,omitempty" hcl:"args,optional" cty:"args"`
	Labels           map[string]*string `json:"labels,omitempty" hcl:"labels,optional" cty:"labels"`
	Tags             []string           `json:"tags,omitempty" hcl:"tags,optional" cty:"tags"`
	CacheFrom        Caches             `json:"cache-from,omitempty" hcl:"cache-from,optional" cty:"cache-from"`
	CacheTo          Caches             `json:"cache-to,omitempty" hcl:"cache-to,optional" cty:"cache-to"`
	Target           *string            `json:"target,omitempty" hcl:"target,optional" cty:"target"`
	Secrets          Secrets            `json:"secret,omitempty" hcl:"secret,optional" cty:"secret"`
	SSH              Agents             `json:"ssh,omitempty" hcl:"ssh,optional" cty:"ssh"`
	Platforms        []string           `json:"platforms,omitempty" hcl:"platforms,optional" cty:"platforms"`
	Outputs          Outputs            `json:"output,omitempty" hcl:"output,optional" cty:"output"`
	Pull             *bool              `json:"pull,omitempty" hcl:"pull,optional" cty:"pull"`
	NoCache          *bool              `json:"no-cache,omitempty" hcl:"no-cache,optional" cty:"no-cache"`
	Network          *string            `json:"network,omitempty" hcl:"network,optional" cty:"network"`
	NoCacheFilter    []string           `json:"no-cache-filter,omitempty" hcl:"no-cache-filter,optional" cty:"no-cache-filter"`
	ShmSize          *string            `json:"shm-size,omitempty" hcl:"shm-size,optional" cty:"shm-size"`
	Ulimits          []string           `json:"ulimits,omitempty" hcl:"ulimits,optional" cty:"ulimits"`
	Call             *string            `json:"call,omitempty" hcl:"call,optional" cty:"call"`
	Entitlements     []string           `json:"entitlements,omitempty" hcl:"entitlements,optional" cty:"entitlements"`
	ExtraHosts       map[string]*string `json:"extra-hosts,omitempty" hcl:"extra-hosts,optional" cty:"extra-hosts"`

	// Linked says that the target is built only for another one's context.
	Linked bool `json:"-"`
}

// nameForm is what targets and groups may be called.
const nameForm = `^[a-zA-Z0-9_-]+$`

func checkName(name string) error {
	if regexp.MustCompile(nameForm).MatchString(name) {
		return nil
	}
	return fmt.Errorf("only %q are allowed", strings.Trim(nameForm, "^$"))
}

// Resolve returns the targets that names mean, with everything inherited and
// overridden, those they are linked to, and the groups.
func (c Config) Resolve(names []string, sets []string, lookup func(string) (string, bool)) (map[string]*Target, map[string]*Group, error) {
	changes, err := c.overrides(sets, lookup)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		names = []string{"default"}
	}
	names, err = c.match(names)
	if err != nil {
		return nil, nil, err
	}
	targets, groups := map[string]*Target{}, map[string]*Group{}
	for _, n := range names {
		list, in := c.expand(n, map[string]bool{})
		for _, t := range list {
			if targets[t] != nil {
				continue
			}
			if targets[t], err = c.resolve(t, changes); err != nil {
				return nil, nil, err
			}
		}
		for _, g := range in {
			groups[g.Name] = g
		}
	}
	if len(names) > 1 || names[0] != "default" || groups["default"] == nil {
		d := &Group{Name: "default"}
		if old := groups["default"]; old != nil {
			d.Targets = slices.Clone(old.Targets)
		}
		for _, n := range names {
			if n != "default" || groups["default"] == nil {
				d.Targets = append(d.Targets, n)
			}
		}
		d.Targets = unique(d.Targets)
		slices.Sort(d.Targets)
		groups["default"] = d
	}
	for _, n := range slices.Sorted(maps.Keys(targets)) {
		if err := c.link(n, targets, changes, nil); err != nil {
			return nil, nil, err
		}
	}
	return targets, groups, nil
}

// match expands patterns.
func (c Config) match(names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		if !strings.ContainsAny(n, "*?[]") {
			out = append(out, strings.ReplaceAll(n, ".", "_"))
			continue
		}
		found := false
		for _, have := range c.names() {
			if ok, err := path.Match(n, have); err == nil && ok {
				out, found = append(out, have), true
			}
		}
		if !found {
			return nil, fmt.Errorf("could not find any target matching %q", n)
		}
	}
	return unique(out), nil
}

func (c Config) names() []string {
	var out []string
	for _, g := range c.Groups {
		out = append(out, g.Name)
	}
	for _, t := range c.Targets {
		out = append(out, t.Name)
	}
	return unique(out)
}

// expand returns the targets of a group, or name itself, and the groups passed.
func (c Config) expand(name string, seen map[string]bool) (targets []string, groups []*Group) {
	i := slices.IndexFunc(c.Groups, func(g *Group) bool { return g.Name == name })
	if i < 0 {
		return []string{name}, nil
	}
	if seen[name] {
		return nil, nil
	}
	seen[name] = true
	groups = append(groups, c.Groups[i])
	for _, n := range c.Groups[i].Targets {
		t, g := c.expand(n, seen)
		targets, groups = append(targets, t...), append(groups, g...)
	}
	return unique(targets), groups
}

// resolve returns a target on its own.
func (c Config) resolve(name string, changes map[string][]change) (*Target, error) {
	t, err := c.inherit(name, changes, nil)
	if err != nil {
		return nil, err
	}
	t.Name, t.Inherits = name, nil
	if t.Context == nil {
		t.Context = ptr(".")
	}
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		t.Dockerfile = ptr("Dockerfile")
	}
	return t, nil
}

// inherit merges what a target inherits, itself, and its overrides.
func (c Config) inherit(name string, changes map[string][]change, above []string) (*Target, error) {
	i := slices.IndexFunc(c.Targets, func(t *Target) bool { return t.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("failed to find target %s", name)
	}
	out := &Target{}
	for _, p := range c.Targets[i].Inherits {
		if slices.Contains(above, p) || p == name {
			continue // a loop adds nothing
		}
		t, err := c.inherit(p, changes, append(above, name))
		if err != nil {
			return nil, err
		}
		out.Merge(t)
	}
	out.Merge(c.Targets[i])
	for _, x := range changes[name] {
		if err := out.set(x); err != nil {
			return nil, err
		}
	}
	out.normalize()
	return out, nil
}

// link resolves the targets whose results are contexts of name.
func (c Config) link(name string, targets map[string]*Target, changes map[string][]change, above []string) error {
	above = append(above, name)
	t := targets[name]
	for _, k := range slices.Sorted(maps.Keys(t.Contexts)) {
		other, ok := strings.CutPrefix(t.Contexts[k], "target:")
		switch {
		case !ok:
			continue
		case other == name:
			return fmt.Errorf("target %s cannot link to itself", other)
		case slices.Contains(above, other):
			return fmt.Errorf("infinite loop from %s to %s", name, other)
		}
		if targets[other] == nil {
			o, err := c.resolve(other, changes)
			if err != nil {
				return err
			}
			o.Outputs, o.Linked = Outputs{"type=cacheonly"}, true
			targets[other] = o
		}
		if err := c.link(other, targets, changes, above); err != nil {
			return err
		}
		t.Entitlements = unique(append(t.Entitlements, targets[other].Entitlements...))
		if p := targets[other].Platforms; len(t.Platforms) > 1 && len(p) > 1 {
			for _, x := range t.Platforms {
				if !slices.Contains(p, x) {
					return fmt.Errorf("target %s can't be used by %s because its platforms %v are not a subset of %v", other, name, t.Platforms, p)
				}
			}
		}
	}
	return nil
}

// Order returns the targets' names so that each follows those it is linked to.
func Order(targets map[string]*Target) []string {
	var out []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(n string) {
		if seen[n] || targets[n] == nil {
			return
		}
		seen[n] = true
		for _, other := range targets[n].Links() {
			visit(other)
		}
		out = append(out, n)
	}
	for _, n := range slices.Sorted(maps.Keys(targets)) {
		visit(n)
	}
	return out
}

// Links returns the targets whose results are contexts of t.
func (t *Target) Links() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(t.Contexts)) {
		if other, ok := strings.CutPrefix(t.Contexts[k], "target:"); ok {
			out = append(out, other)
		}
	}
	return unique(out)
}

func ptr[T any](v T) *T { return &v }

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

var errMatrix = errors.New("matrix is not supported for groups")

// strings of a list value; objects become flags by text.
func eachValue(in cty.Value, p cty.Path, text func(map[string]cty.Value) (string, error)) ([]string, error) {
	if in.IsNull() {
		return nil, nil
	}
	if t := in.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return nil, p.NewErrorf("list of values required, but have %s", t.FriendlyName())
	}
	var out []string
	for it := in.ElementIterator(); it.Next(); {
		_, v := it.Element()
		switch t := v.Type(); {
		case v.IsNull() || !v.IsKnown():
		case t == cty.String:
			if s := v.AsString(); s != "" {
				out = append(out, s)
			}
		case t.IsObjectType() || t.IsMapType():
			s, err := text(v.AsValueMap())
			if err != nil {
				return nil, p.NewError(err)
			}
			out = append(out, s)
		default:
			return nil, p.NewErrorf("string or object required, but have %s", t.FriendlyName())
		}
	}
	return out, nil
}
