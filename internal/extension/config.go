package extension

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// maxConfig bounds a plugin's config.json, in bytes.
const maxConfig = 1 << 20

// parseConfig reads a plugin's config.json and refuses what could not be run as
// it says. Pure.
func parseConfig(data []byte) (wire.PluginConfig, error) {
	var c wire.PluginConfig
	if len(data) > maxConfig {
		return c, errs.New(errs.Invalid, "config.json has %d bytes, more than %d", len(data), maxConfig)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&c); err != nil {
		return c, errs.New(errs.Invalid, "failed to parse json: %w", err)
	}
	return c, checkConfig(c)
}

func checkConfig(c wire.PluginConfig) error {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "invalid plugin configuration: "+format, args...)
	}
	if len(c.Entrypoint) == 0 {
		return bad("it has no entrypoint")
	}
	if s := c.Interface.Socket; s != "" && (s != path.Base(s) || s == "." || s == ".." || len(s) > 64) {
		return bad("the socket %q has to be a plain name", s)
	}
	if len(c.Interface.Types) > 0 && c.Interface.Socket == "" {
		return bad("it has an interface and no socket")
	}
	switch c.Interface.ProtocolScheme {
	case "", "moby.plugins.http/v1":
	default:
		return bad("protocol %q is not known", c.Interface.ProtocolScheme)
	}
	switch c.Network.Type {
	case "", "none", "null", "host", "bridge":
	default:
		return bad("network type %q is not known", c.Network.Type)
	}
	if p := c.PropagatedMount; p != "" && (!path.IsAbs(p) || path.Clean(p) == "/") {
		return bad("the propagated mount %q has to be a directory, with its whole path", p)
	}
	for _, m := range c.Mounts {
		if !path.IsAbs(m.Destination) {
			return bad("the destination of mount %q has to be absolute", m.Name)
		}
		switch m.Type {
		case "", "bind", "tmpfs":
		default:
			return bad("mount %q has the type %q: only bind and tmpfs are possible", m.Name, m.Type)
		}
	}
	for _, e := range c.Env {
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
			return bad("%q is no name of a variable", e.Name)
		}
	}
	return nil
}

// firstSettings are those of a plugin that nobody has set any of. Pure.
func firstSettings(c wire.PluginConfig) wire.PluginSettings {
	s := wire.PluginSettings{Env: []string{}, Args: slices.Clone(c.Args.Value), Devices: slices.Clone(c.Linux.Devices)}
	s.Mounts = append(s.Mounts, c.Mounts...)
	for _, e := range c.Env {
		if e.Value != nil {
			s.Env = append(s.Env, e.Name+"="+*e.Value)
		}
	}
	return s
}

// privileges are what a plugin gets that not every container has. Pure.
func privileges(c wire.PluginConfig) []wire.PluginPrivilege {
	out := []wire.PluginPrivilege{}
	add := func(name, description string, values ...string) {
		out = append(out, wire.PluginPrivilege{Name: name, Description: description, Value: values})
	}
	if t := c.Network.Type; t != "" && t != "null" && t != "none" {
		add("network", "permissions to access a network", t)
	}
	if c.IpcHost {
		add("host ipc namespace", "allow access to host ipc namespace", "true")
	}
	if c.PidHost {
		add("host pid namespace", "allow access to host pid namespace", "true")
	}
	for _, m := range c.Mounts {
		if m.Source != nil {
			add("mount", "host path to mount", *m.Source)
		}
	}
	for _, d := range c.Linux.Devices {
		if d.Path != nil {
			add("device", "host device to access", *d.Path)
		}
	}
	if c.Linux.AllowAllDevices {
		add("allow-all-devices", "allow 'rwm' access to all devices", "true")
	}
	if len(c.Linux.Capabilities) > 0 {
		add("capabilities", "list of additional capabilities required", c.Linux.Capabilities...)
	}
	return out
}

// granted returns why what a plugin needs was not allowed by whoever installs it,
// or nil. Both are compared as sets of single rights, whatever their order and
// grouping. Pure.
func granted(needs, allowed []wire.PluginPrivilege) error {
	type right struct{ name, value string }
	have := map[right]bool{}
	for _, p := range allowed {
		for _, v := range p.Value {
			have[right{p.Name, v}] = true
		}
	}
	for _, p := range needs {
		for _, v := range p.Value {
			if !have[right{p.Name, v}] {
				return errs.New(errs.Denied, "incorrect privileges: %s %s was not granted", p.Name, v)
			}
		}
	}
	return nil
}

// set returns the settings with changes such as "DEBUG=1" or "mount.source=/x"
// applied, which the configuration has to allow. Pure.
func set(c wire.PluginConfig, s wire.PluginSettings, args []string) (wire.PluginSettings, error) {
	s.Mounts, s.Devices, s.Env = slices.Clone(s.Mounts), slices.Clone(s.Devices), slices.Clone(s.Env)
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		name, field, dotted := strings.Cut(key, ".")
		if !ok || name == "" || dotted && field == "" {
			return s, errs.New(errs.Invalid, "could not parse setting %q: it has to be NAME[.FIELD]=VALUE", a)
		}
		if err := setOne(c, &s, name, field, value); err != nil {
			return s, err
		}
	}
	return s, nil
}

func setOne(c wire.PluginConfig, s *wire.PluginSettings, name, field, value string) error {
	allowed := func(settable []string, only string) error {
		if field != "" && field != only || !slices.Contains(settable, only) {
			shown := name
			if field != "" {
				shown += "." + field
			}
			return errs.New(errs.Invalid, "%q is not settable", shown)
		}
		return nil
	}
	for i, m := range s.Mounts {
		if m.Name == name && name != "" {
			if err := allowed(m.Settable, "source"); err != nil {
				return err
			}
			if !path.IsAbs(value) {
				return errs.New(errs.Invalid, "the source of mount %q has to be an absolute path", name)
			}
			s.Mounts[i].Source = &value
			return nil
		}
	}
	for i, d := range s.Devices {
		if d.Name == name {
			if err := allowed(d.Settable, "path"); err != nil {
				return err
			}
			s.Devices[i].Path = &value
			return nil
		}
	}
	for _, e := range c.Env {
		if e.Name != name {
			continue
		}
		if err := allowed(e.Settable, "value"); err != nil {
			return err
		}
		s.Env = slices.DeleteFunc(s.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		s.Env = append(s.Env, name+"="+value)
		return nil
	}
	if c.Args.Name == name && name != "" {
		if err := allowed(c.Args.Settable, "value"); err != nil {
			return err
		}
		s.Args = strings.Fields(value)
		return nil
	}
	return errs.New(errs.Invalid, "setting %q not found in the plugin configuration", name)
}

// carry returns the first settings of a configuration with what the user had set
// under the one before, as far as it can still be set. Pure.
func carry(old wire.PluginConfig, had wire.PluginSettings, c wire.PluginConfig) wire.PluginSettings {
	s, was := firstSettings(c), firstSettings(old)
	try := func(name, value string) {
		if next, err := set(c, s, []string{name + "=" + value}); err == nil {
			s = next
		}
	}
	for _, e := range had.Env {
		if name, value, _ := strings.Cut(e, "="); !slices.Contains(was.Env, e) {
			try(name, value)
		}
	}
	for i, m := range had.Mounts {
		if m.Source != nil && (i >= len(was.Mounts) || was.Mounts[i].Source == nil || *was.Mounts[i].Source != *m.Source) {
			try(m.Name, *m.Source)
		}
	}
	for i, d := range had.Devices {
		if d.Path != nil && (i >= len(was.Devices) || was.Devices[i].Path == nil || *was.Devices[i].Path != *d.Path) {
			try(d.Name, *d.Path)
		}
	}
	if c.Args.Name != "" && c.Args.Name == old.Args.Name && !slices.Equal(had.Args, was.Args) {
		try(c.Args.Name, strings.Join(had.Args, " "))
	}
	return s
}
