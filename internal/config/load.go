package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"

	"gantry/internal/errs"
)

// A Command is what the command line asks for.
type Command uint8

// What a daemon can be asked for.
const (
	Serve        Command = iota
	Validate             // check the configuration and end
	Version              // print the version and end
	Help                 // print the flags and end
	UpgradeCheck         // say whether this program can take over from a running one, and end
)

// Load reads the command line (without the program's name) and the file that it
// names, or the usual one if that exists. Everything wrong is errs.Invalid.
func Load(args []string) (*Config, Command, error) {
	opts := Options()
	given, cmd, err := parseArgs(opts, args)
	if err != nil {
		return nil, cmd, errs.With(errs.Invalid, err)
	}
	c := Default()
	if cmd == Version || cmd == Help {
		return c, cmd, nil
	}
	for _, g := range given {
		if g.opt.Flag == "config-file" {
			c.File = g.value
		}
	}
	file, err := readFile(c.File, explicit(given, "config-file"))
	if err == nil {
		err = c.merge(opts, given, file)
	}
	if err != nil {
		return nil, cmd, errs.New(errs.Invalid, "unable to configure the Gantry daemon with file %s: %w", c.File, err)
	}
	return c, cmd, errs.With(errs.Invalid, c.finish())
}

func explicit(given []givenFlag, name string) bool {
	return slices.ContainsFunc(given, func(g givenFlag) bool { return g.opt.Flag == name })
}

// readFile returns the keys of daemon.json. A file that was not asked for need
// not exist, and an empty one says nothing; no path means no file.
func readFile(path string, asked bool) (map[string]json.RawMessage, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(data) == 0 {
		return nil, nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, err
	}
	return keys, nil
}

// both lists settings that may be given in both places, because they name
// different things.
var both = []string{"runtimes"}

// merge applies flags and file. A setting in both places, or a key that nobody
// knows, is an error.
func (c *Config) merge(opts []Option, given []givenFlag, file map[string]json.RawMessage) error {
	byKey := map[string]*Option{}
	for i := range opts {
		byKey[opts[i].Key] = &opts[i]
	}
	var unknown, twice []string
	for key, raw := range file {
		opt := byKey[key]
		if opt == nil || key == "" {
			unknown = append(unknown, key)
			continue
		}
		if vals := valuesOf(given, opt); len(vals) > 0 && !slices.Contains(both, key) {
			twice = append(twice, fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, strings.Join(vals, " "), compact(raw)))
			continue
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(twice) > 0 {
		sort.Strings(twice)
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(twice, ", "))
	}
	for _, key := range sortedKeys(file) {
		opt := byKey[key]
		if err := opt.json(c, file[key]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if err := c.note(opt, key); err != nil {
			return err
		}
	}
	for _, g := range given {
		if err := g.opt.text(c, g.value); err != nil {
			return fmt.Errorf("invalid argument %q for \"--%s\" flag: %w", g.value, g.opt.Flag, err)
		}
		if err := c.note(g.opt, "--"+g.opt.Flag); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// note says what becomes of a setting that was given and does not work.
func (c *Config) note(opt *Option, name string) error {
	switch opt.Status {
	case Refused:
		return fmt.Errorf("%s can't be used: %s", name, opt.Reason)
	case Warned:
		if w := name + " has no effect: " + opt.Reason; !slices.Contains(c.Warnings, w) {
			c.Warnings = append(c.Warnings, w)
		}
	}
	return nil
}

func valuesOf(given []givenFlag, opt *Option) []string {
	var vals []string
	for _, g := range given {
		if g.opt.Flag != "" && g.opt.Flag == opt.Flag {
			vals = append(vals, g.value)
		}
	}
	return vals
}

func compact(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}
