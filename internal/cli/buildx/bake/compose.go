package bake

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"gantry/internal/cli/buildx/grammar"
)

// isCompose tells a compose file by its name, else by its services.
func isCompose(f File) bool {
	name := strings.ToLower(f.Name)
	switch {
	case strings.HasSuffix(name, ".yml"), strings.HasSuffix(name, ".yaml"):
		return true
	case strings.HasSuffix(name, ".hcl"), strings.HasSuffix(name, ".json"):
		return false
	}
	var probe struct {
		Services map[string]any `yaml:"services"`
	}
	return yaml.Unmarshal(f.Data, &probe) == nil && len(probe.Services) > 0
}

// composeFile is what a bake needs of a compose file.
type composeFile struct {
	Services map[string]*struct {
		Image       string    `yaml:"image"`
		Build       *section  `yaml:"build"`
		Environment mapOrList `yaml:"environment"`
	} `yaml:"services"`
	Secrets map[string]struct {
		File        string `yaml:"file"`
		Environment string `yaml:"environment"`
	} `yaml:"secrets"`
}

// section is a service's build, which may be the context alone.
type section struct {
	Context            string         `yaml:"context"`
	Dockerfile         string         `yaml:"dockerfile"`
	DockerfileInline   string         `yaml:"dockerfile_inline"`
	Args               mapOrList      `yaml:"args"`
	Labels             mapOrList      `yaml:"labels"`
	AdditionalContexts mapOrList      `yaml:"additional_contexts"`
	ExtraHosts         mapOrList      `yaml:"extra_hosts"`
	Tags               words          `yaml:"tags"`
	CacheFrom          words          `yaml:"cache_from"`
	CacheTo            words          `yaml:"cache_to"`
	Platforms          words          `yaml:"platforms"`
	SSH                mapOrList      `yaml:"ssh"`
	Secrets            []buildSecret  `yaml:"secrets"`
	Entitlements       words          `yaml:"entitlements"`
	Target             string         `yaml:"target"`
	Network            string         `yaml:"network"`
	ShmSize            string         `yaml:"shm_size"`
	Provenance         string         `yaml:"provenance"`
	SBOM               string         `yaml:"sbom"`
	NoCache            bool           `yaml:"no_cache"`
	Pull               bool           `yaml:"pull"`
	Privileged         bool           `yaml:"privileged"`
	Ulimits            map[string]any `yaml:"ulimits"`
	Bake               *extension     `yaml:"x-bake"`
}

// extension is x-bake: what bake knows and compose does not.
type extension struct {
	Tags          words             `yaml:"tags"`
	CacheFrom     words             `yaml:"cache-from"`
	CacheTo       words             `yaml:"cache-to"`
	Secrets       words             `yaml:"secret"`
	SSH           words             `yaml:"ssh"`
	Platforms     words             `yaml:"platforms"`
	Outputs       words             `yaml:"output"`
	NoCacheFilter words             `yaml:"no-cache-filter"`
	Contexts      map[string]string `yaml:"contexts"`
	Pull          *bool             `yaml:"pull"`
	NoCache       *bool             `yaml:"no-cache"`
}

// UnmarshalYAML reads a section, or a context alone.
func (s *section) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		s.Context = n.Value
		return nil
	}
	type plain section
	return n.Decode((*plain)(s))
}

// buildSecret is a secret by name, or with a source.
type buildSecret struct {
	Source string `yaml:"source"`
	Target string `yaml:"target"`
}

// UnmarshalYAML reads a name, or an object.
func (s *buildSecret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		s.Source = n.Value
		return nil
	}
	type plain buildSecret
	return n.Decode((*plain)(s))
}

// words is a list of strings, or one.
type words []string

// UnmarshalYAML reads a list, or one string.
func (w *words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*w = words{n.Value}
		return nil
	}
	return n.Decode((*[]string)(w))
}

// mapOrList is a map, or a list of KEY=VALUE. A key without a value is nil.
type mapOrList map[string]*string

// UnmarshalYAML reads either.
func (m *mapOrList) UnmarshalYAML(n *yaml.Node) error {
	*m = mapOrList{}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i].Value, n.Content[i+1]
			if v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			switch {
			case k == "<<":
				var more mapOrList
				if err := v.Decode(&more); err != nil {
					return err
				}
				for k, v := range more {
					if _, ok := (*m)[k]; !ok {
						(*m)[k] = v
					}
				}
			case v.Tag == "!!null":
				(*m)[k] = nil
			case v.Kind == yaml.ScalarNode:
				(*m)[k] = ptr(v.Value)
			case v.Kind == yaml.SequenceNode:
				var list []string
				if err := v.Decode(&list); err != nil {
					return err
				}
				(*m)[k] = ptr(strings.Join(list, ","))
			default:
				return fmt.Errorf("line %d: %s must be a string", v.Line, k)
			}
		}
		return nil
	case yaml.SequenceNode:
		for _, v := range n.Content {
			k, val, ok := strings.Cut(v.Value, "=")
			if !ok {
				k, val, ok = strings.Cut(v.Value, ":") // extra_hosts
			}
			if (*m)[k] = nil; ok {
				(*m)[k] = ptr(val)
			}
		}
		return nil
	}
	return fmt.Errorf("line %d: a map or a list is needed", n.Line)
}

// compose makes a target of each service that is built.
func compose(f File, lookup func(string) (string, bool)) (Config, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(f.Data, &root); err != nil {
		return Config{}, err
	}
	if err := interpolate(&root, lookup); err != nil {
		return Config{}, err
	}
	var in composeFile
	if err := root.Decode(&in); err != nil {
		return Config{}, err
	}
	if len(in.Services) == 0 {
		return Config{}, errors.New("empty compose file")
	}
	var c Config
	all := &Group{Name: "default"}
	for _, name := range slices.Sorted(maps.Keys(in.Services)) {
		s := in.Services[name]
		if s == nil || s.Build == nil {
			continue
		}
		t := &Target{Name: strings.ReplaceAll(name, ".", "_")}
		if err := checkName(t.Name); err != nil {
			return Config{}, fmt.Errorf("invalid service name %q: %w", name, err)
		}
		env := func(k string) (string, bool) {
			if v := s.Environment[k]; v != nil {
				return *v, true
			}
			return lookup(k)
		}
		if err := t.fill(s.Build, in, env); err != nil {
			return Config{}, fmt.Errorf("service %s: %w", name, err)
		}
		if len(t.Tags) == 0 && s.Image != "" {
			t.Tags = []string{s.Image}
		}
		all.Targets = append(all.Targets, t.Name)
		c.Targets = append(c.Targets, t)
	}
	c.Groups = []*Group{all}
	return c, nil
}

// fill takes a build section over.
func (t *Target) fill(b *section, in composeFile, env func(string) (string, bool)) error {
	for _, w := range []struct {
		to   **string
		from string
	}{
		{&t.Context, b.Context}, {&t.Dockerfile, b.Dockerfile}, {&t.DockerfileInline, b.DockerfileInline},
		{&t.Target, b.Target}, {&t.Network, b.Network}, {&t.ShmSize, b.ShmSize},
	} {
		if w.from != "" {
			*w.to = ptr(w.from)
		}
	}
	t.Tags, t.Platforms, t.CacheFrom, t.CacheTo = b.Tags, b.Platforms, Caches(b.CacheFrom), Caches(b.CacheTo)
	t.Labels, t.ExtraHosts, t.Entitlements = b.Labels, b.ExtraHosts, b.Entitlements
	if b.Privileged {
		t.Entitlements = append(slices.Clone(t.Entitlements), "security.insecure")
	}
	if b.NoCache {
		t.NoCache = &b.NoCache
	}
	if b.Pull {
		t.Pull = &b.Pull
	}
	for _, s := range []string{grammar.ShortAttest("sbom", b.SBOM), grammar.ShortAttest("provenance", b.Provenance)} {
		if s != "" {
			t.Attest = append(t.Attest, s)
		}
	}
	for k, v := range b.Args {
		if v == nil {
			x, ok := env(k)
			if !ok {
				continue
			}
			v = &x
		}
		t.Args = overlay(t.Args, map[string]*string{k: v})
	}
	for k, v := range b.AdditionalContexts {
		if v != nil {
			s := *v
			if name, ok := strings.CutPrefix(s, "service:"); ok {
				s = "target:" + strings.ReplaceAll(name, ".", "_")
			}
			t.Contexts = overlay(t.Contexts, map[string]string{k: s})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b.SSH)) {
		if v := b.SSH[k]; v != nil && *v != "" {
			k += "=" + *v
		}
		t.SSH = append(t.SSH, k)
	}
	if err := t.fillSecrets(b.Secrets, in); err != nil {
		return err
	}
	if err := t.fillUlimits(b.Ulimits); err != nil {
		return err
	}
	t.fillExtension(b.Bake)
	return nil
}

func (t *Target) fillSecrets(list []buildSecret, in composeFile) error {
	for _, s := range list {
		def, ok := in.Secrets[s.Source]
		if !ok || def.File == "" && def.Environment == "" {
			return fmt.Errorf("secret %q has neither a file nor a variable", s.Source)
		}
		id := s.Target
		if id == "" {
			id = s.Source
		}
		t.Secrets = append(t.Secrets, grammar.Secret{ID: id, Path: def.File, Env: def.Environment}.String())
	}
	return nil
}

func (t *Target) fillUlimits(m map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch v := m[name].(type) {
		case int:
			t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%d:%d", name, v, v))
		case map[string]any:
			t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%v:%v", name, v["soft"], v["hard"]))
		default:
			return fmt.Errorf("ulimit %s: a number, or soft and hard, are needed", name)
		}
	}
	return nil
}

func (t *Target) fillExtension(x *extension) {
	if x == nil {
		return
	}
	t.Tags = append(slices.Clone(t.Tags), x.Tags...)
	t.CacheFrom = append(slices.Clone(t.CacheFrom), x.CacheFrom...)
	t.CacheTo = append(slices.Clone(t.CacheTo), x.CacheTo...)
	t.Secrets = append(t.Secrets, x.Secrets...)
	t.SSH = append(t.SSH, x.SSH...)
	t.Platforms = unique(append(slices.Clone(t.Platforms), x.Platforms...))
	t.Outputs = append(t.Outputs, x.Outputs...)
	t.NoCacheFilter = append(t.NoCacheFilter, x.NoCacheFilter...)
	t.Contexts = overlay(t.Contexts, x.Contexts)
	if x.Pull != nil {
		t.Pull = x.Pull
	}
	if x.NoCache != nil {
		t.NoCache = x.NoCache
	}
}

// interpolate replaces variables in every string of a document.
func interpolate(n *yaml.Node, lookup func(string) (string, bool)) error {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "$") {
		v, err := substitute(n.Value, lookup)
		if err != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
		n.Value = v
		if n.Style == 0 {
			n.Tag = "" // a number may come of it
		}
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys are taken as they are
		}
		if err := interpolate(c, lookup); err != nil {
			return err
		}
	}
	return nil
}
