package bake

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/cli/buildx/grammar"
)

// change is one --set, for one target.
type change struct {
	key, sub string // args, NAME
	value    string
	more     bool // += : it is added
	first    bool // of several of the same key: it replaces what was there
}

// overrides reads --set values (target.key[.name][+]=value; the target may be a
// pattern) and returns them by target.
func (c Config) overrides(sets []string, lookup func(string) (string, bool)) (map[string][]change, error) {
	out := map[string][]change{}
	for _, s := range sets {
		left, value, given := strings.Cut(s, "=")
		left, more := strings.CutSuffix(left, "+")
		parts := strings.SplitN(left, ".", 3)
		if len(parts) < 2 {
			return nil, fmt.Errorf("invalid override key %s, expected target.name", left)
		}
		x := change{key: parts[1], value: value, more: more}
		if len(parts) == 3 {
			x.sub = parts[2]
		}
		if !given && x.key != "args" {
			return nil, fmt.Errorf("invalid override %s, expected target.name=value", s)
		}
		if !given {
			v, ok := lookup(x.sub)
			if !ok {
				continue
			}
			x.value = v
		}
		if slices.Contains([]string{"args", "contexts", "secret"}, x.key) && x.sub == "" {
			return nil, fmt.Errorf("invalid key %s, %s requires name", left, x.key)
		}
		names, err := c.targetsLike(parts[0])
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			x.first = !slices.ContainsFunc(out[n], func(o change) bool { return o.key == x.key && o.sub == x.sub })
			out[n] = append(out[n], x)
		}
	}
	return out, nil
}

func (c Config) targetsLike(pattern string) ([]string, error) {
	var out []string
	for _, t := range c.Targets {
		ok, err := path.Match(pattern, t.Name)
		if err != nil {
			return nil, fmt.Errorf("could not match targets with '%s': %w", pattern, err)
		}
		if ok || t.Name == pattern {
			out = append(out, t.Name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("could not find any target matching '%s'", pattern)
	}
	return out, nil
}

// set applies one override.
func (t *Target) set(x change) error {
	if list, ok := t.list(x.key); ok {
		if x.first && !x.more {
			*list = nil
		}
		if x.value != "" {
			*list = append(slices.Clone(*list), x.value)
		}
		return nil
	}
	if p, ok := t.word(x.key); ok {
		*p = &x.value
		return nil
	}
	switch x.key {
	case "args":
		t.Args = overlay(t.Args, map[string]*string{x.sub: &x.value})
	case "labels", "extra-hosts":
		if x.sub == "" {
			return fmt.Errorf("invalid format for %s, expecting %s.<name>=<value>", x.key, x.key)
		}
		if x.key == "labels" {
			t.Labels = overlay(t.Labels, map[string]*string{x.sub: &x.value})
		} else {
			t.ExtraHosts = overlay(t.ExtraHosts, map[string]*string{x.sub: &x.value})
		}
	case "contexts":
		t.Contexts = overlay(t.Contexts, map[string]string{x.sub: x.value})
	case "attest":
		t.Attest = t.Attest.add(Attests{x.value})
	case "secret":
		return t.setSecret(x.sub, x.value)
	case "no-cache", "pull", "push", "load":
		on, err := strconv.ParseBool(x.value)
		if err != nil {
			return fmt.Errorf("invalid value %s for boolean key %s", x.value, x.key)
		}
		return t.setSwitch(x.key, on)
	default:
		return fmt.Errorf("unknown key: %s", x.key)
	}
	return nil
}

// list returns the list that a key means.
func (t *Target) list(key string) (*[]string, bool) {
	lists := map[string]*[]string{
		"tags": &t.Tags, "platform": &t.Platforms, "platforms": &t.Platforms, "no-cache-filter": &t.NoCacheFilter, "ulimits": &t.Ulimits,
		"annotations": &t.Annotations, "entitlements": &t.Entitlements, "output": (*[]string)(&t.Outputs),
		"cache-from": (*[]string)(&t.CacheFrom), "cache-to": (*[]string)(&t.CacheTo), "secrets": (*[]string)(&t.Secrets), "ssh": (*[]string)(&t.SSH),
	}
	l, ok := lists[key]
	return l, ok
}

// word returns the single value that a key means.
func (t *Target) word(key string) (**string, bool) {
	words := map[string]**string{
		"context": &t.Context, "dockerfile": &t.Dockerfile, "dockerfile-inline": &t.DockerfileInline, "target": &t.Target,
		"call": &t.Call, "shm-size": &t.ShmSize, "network": &t.Network,
	}
	w, ok := words[key]
	return w, ok
}

func (t *Target) setSecret(id, value string) error {
	for i, s := range t.Secrets {
		have, err := grammar.ParseSecret(s)
		if err != nil {
			return err
		}
		if have.ID != id {
			continue
		}
		next, err := grammar.ParseSecret(value)
		if err != nil {
			return err
		}
		if next.ID != "" && next.ID != id {
			return fmt.Errorf("secret override id %q does not match declared secret %q", next.ID, id)
		}
		next.ID = id
		t.Secrets = slices.Clone(t.Secrets)
		t.Secrets[i] = next.String()
		return nil
	}
	return fmt.Errorf("secret %q must be declared before it can be overridden", id)
}

// setSwitch sets what is on or off; push and load are outputs.
func (t *Target) setSwitch(key string, on bool) error {
	switch key {
	case "no-cache":
		t.NoCache = &on
	case "pull":
		t.Pull = &on
	case "push":
		var out Outputs
		found := false
		for _, s := range t.Outputs {
			e, err := grammar.Output(s)
			if err != nil {
				return err
			}
			if e.Type == "image" || e.Type == "registry" {
				found = true
				if e.Type == "registry" && !on {
					continue
				}
				e.Attrs["push"] = strconv.FormatBool(on)
			}
			out = append(out, e.String())
		}
		if on && !found {
			out = append(out, "type=image,push=true")
		}
		t.Outputs = out
	case "load":
		has := slices.Contains(t.Outputs, "type=docker")
		if on && !has {
			t.Outputs = append(slices.Clone(t.Outputs), "type=docker")
		}
		if !on {
			t.Outputs = slices.DeleteFunc(slices.Clone(t.Outputs), func(s string) bool { return s == "type=docker" })
		}
	}
	return nil
}
