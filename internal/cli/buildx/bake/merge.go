package bake

import (
	"maps"
	"slices"
)

// Merge lays o over t (the parser calls it too, for a block that is there twice): what o says wins; maps are merged key by key.
func (t *Target) Merge(o *Target) {
	for _, p := range []struct{ to, from **string }{
		{&t.Context, &o.Context}, {&t.Dockerfile, &o.Dockerfile}, {&t.DockerfileInline, &o.DockerfileInline}, {&t.Target, &o.Target},
		{&t.Network, &o.Network}, {&t.ShmSize, &o.ShmSize}, {&t.Call, &o.Call},
	} {
		if *p.from != nil {
			*p.to = *p.from
		}
	}
	for _, p := range []struct{ to, from **bool }{{&t.Pull, &o.Pull}, {&t.NoCache, &o.NoCache}} {
		if *p.from != nil {
			*p.to = *p.from
		}
	}
	for _, p := range []struct {
		to   *[]string
		from []string
	}{
		{&t.Tags, o.Tags}, {&t.Platforms, o.Platforms}, {&t.NoCacheFilter, o.NoCacheFilter}, {&t.Ulimits, o.Ulimits}, {&t.Inherits, o.Inherits},
		{(*[]string)(&t.CacheTo), o.CacheTo}, {(*[]string)(&t.Secrets), o.Secrets}, {(*[]string)(&t.SSH), o.SSH},
		{(*[]string)(&t.Outputs), o.Outputs},
	} {
		if p.from != nil {
			*p.to = slices.Clone(p.from)
		}
	}
	// These grow instead.
	t.CacheFrom = append(slices.Clone(t.CacheFrom), o.CacheFrom...)
	t.Attest = t.Attest.add(o.Attest)
	t.Annotations = append(slices.Clone(t.Annotations), o.Annotations...)
	t.Entitlements = append(slices.Clone(t.Entitlements), o.Entitlements...)
	t.Args, t.Labels, t.ExtraHosts = overlay(t.Args, o.Args), overlay(t.Labels, o.Labels), overlay(t.ExtraHosts, o.ExtraHosts)
	t.Contexts = overlay(t.Contexts, o.Contexts)
	if o.Description != "" {
		t.Description = o.Description
	}
}

// overlay returns to with from's keys over it. A nil pointer takes a key away
// from what a target passes, so it is kept.
func overlay[V any](to, from map[string]V) map[string]V {
	if len(from) == 0 {
		return to
	}
	out := maps.Clone(to)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, from)
	return out
}

// normalize drops what is there twice and contexts that were taken away.
func (t *Target) normalize() {
	for _, l := range []*[]string{
		&t.Tags, &t.Platforms, &t.NoCacheFilter, &t.Ulimits, &t.Annotations,
		(*[]string)(&t.CacheFrom), (*[]string)(&t.CacheTo), (*[]string)(&t.Secrets), (*[]string)(&t.SSH), (*[]string)(&t.Outputs),
	} {
		*l = slices.DeleteFunc(unique(*l), func(s string) bool { return s == "" })
	}
	if t.Network != nil && *t.Network == "host" {
		t.Entitlements = append(t.Entitlements, "network.host")
	}
	t.Entitlements = unique(t.Entitlements)
	maps.DeleteFunc(t.Contexts, func(_, v string) bool { return v == "" })
	if len(t.Contexts) == 0 {
		t.Contexts = nil
	}
}

// fold joins targets and groups of the same name, later ones over earlier ones.
func (c *Config) fold() {
	var targets []*Target
	for _, t := range c.Targets {
		i := slices.IndexFunc(targets, func(x *Target) bool { return x.Name == t.Name })
		if i < 0 {
			targets = append(targets, t)
			continue
		}
		targets[i].Merge(t)
	}
	c.Targets = targets
	var groups []*Group
	for _, g := range c.Groups {
		i := slices.IndexFunc(groups, func(x *Group) bool { return x.Name == g.Name })
		if i < 0 {
			groups = append(groups, g)
			continue
		}
		groups[i].Targets = append(groups[i].Targets, g.Targets...)
		if g.Description != "" {
			groups[i].Description = g.Description
		}
	}
	for _, g := range groups {
		g.Targets = unique(g.Targets)
	}
	c.Groups = groups
}
