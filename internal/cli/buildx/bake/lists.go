package bake

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"gantry/internal/cli/buildx/grammar"
)

// Lists of values that are flags as text, and may be written as objects. They
// are kept as text.
type (
	Outputs []string
	Caches  []string
	Attests []string
	Secrets []string
	Agents  []string
)

// flagText writes an object as a flag.
func flagText(m map[string]cty.Value) (string, error) {
	e := grammar.Entry{Attrs: map[string]string{}}
	for k, v := range m {
		if v.IsNull() {
			continue
		}
		s, err := convert.Convert(v, cty.String)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k, err)
		}
		if k == "type" {
			e.Type = s.AsString()
		} else {
			e.Attrs[k] = s.AsString()
		}
	}
	return e.String(), nil
}

// agentText writes an ssh object as a flag.
func agentText(m map[string]cty.Value) (string, error) {
	id, paths := "", []string{}
	if v, ok := m["id"]; ok && !v.IsNull() {
		id = v.AsString()
	}
	if v, ok := m["paths"]; ok && !v.IsNull() {
		list, err := eachValue(v, nil, flagText)
		if err != nil {
			return "", err
		}
		paths = list
	}
	if len(paths) == 0 {
		return id, nil
	}
	return id + "=" + strings.Join(paths, ","), nil
}

func toCty(list []string) cty.Value {
	if len(list) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	var out []cty.Value
	for _, s := range list {
		out = append(out, cty.StringVal(s))
	}
	return cty.ListVal(out)
}

// FromCtyValue and ToCtyValue convert from and to values of HCL.
func (o *Outputs) FromCtyValue(in cty.Value, p cty.Path) (err error) {
	*o, err = eachValue(in, p, flagText)
	return err
}

// ToCtyValue is the list as HCL sees it.
func (o Outputs) ToCtyValue() cty.Value { return toCty(o) }

// FromCtyValue reads a list of HCL.
func (o *Caches) FromCtyValue(in cty.Value, p cty.Path) (err error) {
	*o, err = eachValue(in, p, flagText)
	return err
}

// ToCtyValue is the list as HCL sees it.
func (o Caches) ToCtyValue() cty.Value { return toCty(o) }

// FromCtyValue reads a list of HCL.
func (o *Attests) FromCtyValue(in cty.Value, p cty.Path) (err error) {
	*o, err = eachValue(in, p, flagText)
	return err
}

// ToCtyValue is the list as HCL sees it.
func (o Attests) ToCtyValue() cty.Value { return toCty(o) }

// FromCtyValue reads a list of HCL.
func (o *Secrets) FromCtyValue(in cty.Value, p cty.Path) (err error) {
	*o, err = eachValue(in, p, flagText)
	return err
}

// ToCtyValue is the list as HCL sees it.
func (o Secrets) ToCtyValue() cty.Value { return toCty(o) }

// FromCtyValue reads a list of HCL.
func (o *Agents) FromCtyValue(in cty.Value, p cty.Path) (err error) {
	*o, err = eachValue(in, p, agentText)
	return err
}

// ToCtyValue is the list as HCL sees it.
func (o Agents) ToCtyValue() cty.Value { return toCty(o) }

// add puts attestations over those of the same type.
func (o Attests) add(list Attests) Attests {
	kind := func(s string) string {
		e, _, err := grammar.Attest(s)
		if err != nil {
			return s // it is refused where it is used
		}
		return e.Type
	}
	out := slices.Clone(o)
	for _, s := range list {
		out = slices.DeleteFunc(out, func(have string) bool { return kind(have) == kind(s) })
		out = append(out, s)
	}
	return out
}

// objects prints a list as the objects that its entries mean.
func objects(list []string, parse func(string) (map[string]any, error)) ([]byte, error) {
	out := []map[string]any{}
	for _, s := range list {
		m, err := parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return json.Marshal(out)
}

func entryObject(e grammar.Entry, err error) (map[string]any, error) {
	m := map[string]any{"type": e.Type}
	for k, v := range e.Attrs {
		m[k] = v
	}
	return m, err
}

// MarshalJSON prints objects.
func (o Outputs) MarshalJSON() ([]byte, error) {
	return objects(o, func(s string) (map[string]any, error) { return entryObject(grammar.Output(s)) })
}

// MarshalJSON prints objects.
func (o Caches) MarshalJSON() ([]byte, error) {
	return objects(o, func(s string) (map[string]any, error) { return entryObject(grammar.Cache(s)) })
}

// MarshalJSON prints objects.
func (o Attests) MarshalJSON() ([]byte, error) {
	return objects(o, func(s string) (map[string]any, error) {
		e, off, err := grammar.Attest(s)
		m, err := entryObject(e, err)
		if off {
			m["disabled"] = "true"
		}
		return m, err
	})
}

// MarshalJSON prints objects.
func (o Secrets) MarshalJSON() ([]byte, error) {
	return objects(o, func(s string) (map[string]any, error) {
		v, err := grammar.ParseSecret(s)
		m := map[string]any{}
		for k, x := range map[string]string{"id": v.ID, "src": v.Path, "env": v.Env} {
			if x != "" {
				m[k] = x
			}
		}
		return m, err
	})
}

// MarshalJSON prints objects.
func (o Agents) MarshalJSON() ([]byte, error) {
	return objects(o, func(s string) (map[string]any, error) {
		v := grammar.ParseSSH(s)
		m := map[string]any{"id": v.ID}
		if len(v.Paths) > 0 {
			m["paths"] = v.Paths
		}
		return m, nil
	})
}

// MarshalJSON prints t so that it may be read again as HCL's JSON.
func (t *Target) MarshalJSON() ([]byte, error) {
	type plain Target
	c := plain(*t)
	escape := func(m map[string]*string) map[string]*string {
		m = maps.Clone(m)
		for k, v := range m {
			if v != nil {
				m[k] = ptr(escaped(*v))
			}
		}
		return m
	}
	c.Args, c.Labels, c.ExtraHosts = escape(t.Args), escape(t.Labels), escape(t.ExtraHosts)
	if t.DockerfileInline != nil {
		c.DockerfileInline = ptr(escaped(*t.DockerfileInline))
	}
	return json.Marshal(c)
}

func escaped(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "${", "$${"), "%{", "%%{")
}
