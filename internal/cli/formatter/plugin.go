package formatter

import (
	"strconv"
	"strings"

	"gantry/internal/wire"
)

// PluginContext is a plugin as formats see it.
type PluginContext struct {
	p     wire.Plugin
	trunc bool
}

// Plugins makes rows.
func Plugins(list []wire.Plugin, o RowOptions) []*PluginContext {
	out := make([]*PluginContext, len(list))
	for i, p := range list {
		out[i] = &PluginContext{p: p, trunc: o.Trunc}
	}
	return out
}

// PluginTable describes plugin ls.
func PluginTable() Table[*PluginContext] {
	return Table[*PluginContext]{
		Columns: []Column[*PluginContext]{
			{"ID", (*PluginContext).ID}, {"NAME", (*PluginContext).Name}, {"DESCRIPTION", (*PluginContext).Description},
			{"ENABLED", func(p *PluginContext) string { return strconv.FormatBool(p.Enabled()) }},
		},
		Headers: map[string]string{
			"ID": "ID", "Name": "NAME", "Description": "DESCRIPTION", "Enabled": "ENABLED", "PluginReference": "REFERENCE",
		},
	}
}

// ID of the plugin.
func (p *PluginContext) ID() string {
	if p.trunc {
		return ShortID(p.p.ID)
	}
	return p.p.ID
}

// Name of the plugin, with its tag.
func (p *PluginContext) Name() string { return p.p.Name }

// Description as its author has it, on one line.
func (p *PluginContext) Description() string {
	d := strings.ReplaceAll(strings.ReplaceAll(p.p.Config.Description, "\n", ""), "\r", "")
	if r := []rune(d); p.trunc && len(r) > 45 {
		return string(r[:44]) + "…"
	}
	return d
}

// Enabled says whether it runs.
func (p *PluginContext) Enabled() bool { return p.p.Enabled }

// PluginReference is what it was installed from.
func (p *PluginContext) PluginReference() string { return p.p.PluginReference }
