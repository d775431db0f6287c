package bake

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Parse reads definitions, later ones over earlier ones. builtin are variables
// that every definition has; lookup gives values that override a definition's.
func Parse(files []File, builtin map[string]string, lookup func(string) (string, bool)) (Config, []Variable, error) {
	var c Config
	var parsed []*hcl.File
	for _, f := range files {
		if isCompose(f) {
			x, err := compose(f, lookup)
			if err != nil {
				return c, nil, fmt.Errorf("failed to parse compose file: %s: %w", f.Name, err)
			}
			c.Groups, c.Targets = append(c.Groups, x.Groups...), append(c.Targets, x.Targets...)
			c.fold()
			continue
		}
		h, err := parseFile(f)
		if err != nil {
			return c, nil, err
		}
		parsed = append(parsed, h)
	}
	if len(parsed) == 0 {
		return c, nil, nil
	}
	meta, diags := hclparser.Parse(hclparser.MergeFiles(parsed), hclparser.Opt{LookupVar: lookup, Vars: builtin, ValidateLabel: checkName}, &c)
	if diags.HasErrors() {
		return c, nil, Error{diags, files}
	}
	for _, renamed := range meta.Renamed { // a matrix makes a group of its targets
		for _, old := range slices.Sorted(maps.Keys(renamed)) {
			if to := unique(renamed[old]); len(to) != 1 || to[0] != old {
				c.Groups = append(c.Groups, &Group{Name: old, Targets: to})
			}
		}
	}
	c.fold()
	var vars []Variable
	for _, v := range meta.AllVariables {
		vars = append(vars, Variable{Name: v.Name, Description: v.Description, Type: v.Type, Value: v.Value})
	}
	return c, vars, nil
}

// parseFile reads HCL, or JSON by the file's name or content.
func parseFile(f File) (*hcl.File, error) {
	name := f.Name
	if !strings.HasSuffix(name, ".json") {
		h, diags := hclparse.NewParser().ParseHCL(f.Data, name)
		if !diags.HasErrors() || strings.HasSuffix(name, ".hcl") {
			return h, asError(diags, f)
		}
		if h, d := hclparse.NewParser().ParseJSON(f.Data, name); !d.HasErrors() {
			return h, nil
		}
		return nil, asError(diags, f)
	}
	h, diags := hclparse.NewParser().ParseJSON(f.Data, name)
	return h, asError(diags, f)
}

func asError(d hcl.Diagnostics, f File) error {
	if d.HasErrors() {
		return Error{d, []File{f}}
	}
	return nil
}

// Error is a fault of a definition.
type Error struct {
	diags hcl.Diagnostics
	files []File
}

func (e Error) Error() string { return e.diags.Error() }

// Place returns the lines of the file that the error is about, first and last
// from 1; no file if none is.
func (e Error) Place() (f File, first, last int) {
	for _, d := range e.diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		for _, f := range e.files {
			if f.Name == d.Subject.Filename {
				return f, d.Subject.Start.Line, d.Subject.End.Line
			}
		}
	}
	return File{}, 0, 0
}

// attribute returns one attribute of a block.
func attribute(block *hcl.Block, names ...string) (hcl.Attributes, error) {
	var s hcl.BodySchema
	for _, n := range names {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: n})
	}
	content, _, diags := block.Body.PartialContent(&s)
	if diags.HasErrors() {
		return nil, diags
	}
	return content.Attributes, nil
}

// evaluate returns an attribute's value after what it depends on.
func evaluate(a *hcl.Attribute, ctx *hcl.EvalContext, deps func(hcl.Expression) hcl.Diagnostics) (cty.Value, error) {
	if d := deps(a.Expr); d.HasErrors() {
		return cty.NilVal, d
	}
	v, d := a.Expr.Value(ctx)
	if d.HasErrors() {
		return cty.NilVal, d
	}
	return v, nil
}

// GetEvalContexts is what the parser asks of a block: one context for each of a
// matrix's combinations. A group has none.
func (g *Group) GetEvalContexts(ctx *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	a, err := attribute(block, "matrix")
	if err != nil {
		return nil, err
	}
	if a["matrix"] != nil {
		return nil, errMatrix
	}
	return []*hcl.EvalContext{ctx}, nil
}

// GetName is what the parser asks of a block.
func (g *Group) GetName(_ *hcl.EvalContext, block *hcl.Block, _ func(hcl.Expression) hcl.Diagnostics) (string, error) {
	a, err := attribute(block, "name", "matrix")
	switch {
	case err != nil:
		return "", err
	case a["name"] != nil:
		return "", errors.New("name is not supported for groups")
	case a["matrix"] != nil:
		return "", errMatrix
	}
	return block.Labels[0], nil
}

// GetEvalContexts is what the parser asks of a block: one context for each of a
// matrix's combinations.
func (t *Target) GetEvalContexts(ctx *hcl.EvalContext, block *hcl.Block, deps func(hcl.Expression) hcl.Diagnostics) ([]*hcl.EvalContext, error) {
	a, err := attribute(block, "matrix")
	if err != nil || a["matrix"] == nil {
		return []*hcl.EvalContext{ctx}, err
	}
	v, err := evaluate(a["matrix"], ctx, deps)
	if err != nil {
		return nil, err
	}
	if !v.Type().IsMapType() && !v.Type().IsObjectType() {
		return nil, errors.New("matrix must be a map")
	}
	axes := v.AsValueMap()
	rows := []map[string]cty.Value{{}}
	for _, name := range slices.Sorted(maps.Keys(axes)) {
		if !axes[name].CanIterateElements() {
			return nil, errors.New("matrix values must be a list")
		}
		var next []map[string]cty.Value
		for _, x := range axes[name].AsValueSlice() {
			for _, r := range rows {
				r = maps.Clone(r)
				r[name] = x
				next = append(next, r)
			}
		}
		rows = next
	}
	var out []*hcl.EvalContext
	for _, r := range rows {
		child := ctx.NewChild()
		child.Variables = r
		out = append(out, child)
	}
	return out, nil
}

// GetName is what the parser asks of a block; with a matrix the name is computed.
func (t *Target) GetName(ctx *hcl.EvalContext, block *hcl.Block, deps func(hcl.Expression) hcl.Diagnostics) (string, error) {
	a, err := attribute(block, "name", "matrix")
	if err != nil || a["name"] == nil {
		return block.Labels[0], err
	}
	if a["matrix"] == nil {
		return "", errors.New("name requires matrix")
	}
	v, err := evaluate(a["name"], ctx, deps)
	if err != nil {
		return "", err
	}
	if v, err = convert.Convert(v, cty.String); err != nil {
		return "", err
	}
	return v.AsString(), nil
}
