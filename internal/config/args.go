package config

import (
	"fmt"
	"io"
	"strings"
)

// A givenFlag is one flag of a command line.
type givenFlag struct {
	opt   *Option
	value string
}

// parseArgs reads flags as dockerd does: --name value, --name=value, -n value,
// -nvalue, switches alone or with =bool, and several one-letter switches in
// one. Arguments that are no flags are refused.
func parseArgs(opts []Option, args []string) (given []givenFlag, cmd Command, err error) {
	p := argParser{opts: opts, args: args}
	for len(p.args) > 0 && err == nil {
		arg := p.args[0]
		p.args = p.args[1:]
		switch {
		case arg == "--validate":
			cmd = Validate
		case arg == "--upgrade-check": // asked by the daemon that this program shall replace
			cmd = UpgradeCheck
		case arg == "--version" || arg == "-v":
			return nil, Version, nil
		case arg == "--help" || arg == "-h":
			return nil, Help, nil
		case strings.HasPrefix(arg, "--") && len(arg) > 2:
			err = p.long(arg[2:])
		case strings.HasPrefix(arg, "-") && len(arg) > 1 && arg != "--":
			err = p.short(arg[1:])
		default:
			err = fmt.Errorf("\"gantryd\" accepts no arguments.\nSee 'gantryd --help'.\n\nUsage:  gantryd [OPTIONS]\n\nunexpected argument: %s", arg)
		}
	}
	return p.given, cmd, err
}

type argParser struct {
	opts  []Option
	args  []string
	given []givenFlag
}

func (p *argParser) find(match func(*Option) bool) *Option {
	for i := range p.opts {
		if p.opts[i].Flag != "" && match(&p.opts[i]) {
			return &p.opts[i]
		}
	}
	return nil
}

func (p *argParser) long(arg string) error {
	name, value, hasValue := strings.Cut(arg, "=")
	opt := p.find(func(o *Option) bool { return o.Flag == name })
	if opt == nil {
		return fmt.Errorf("unknown flag: --%s\nSee 'gantryd --help'.", name)
	}
	return p.take(opt, "--"+name, value, valueGiven(hasValue))
}

// valueGiven says whether a value stands in the same argument.
type valueGiven bool

func (p *argParser) take(opt *Option, name, value string, here valueGiven) error {
	switch {
	case bool(here):
	case opt.kind == "":
		value = "true"
	case len(p.args) == 0:
		return fmt.Errorf("flag needs an argument: %s\nSee 'gantryd --help'.", name)
	default:
		value, p.args = p.args[0], p.args[1:]
	}
	p.given = append(p.given, givenFlag{opt, value})
	return nil
}

func (p *argParser) short(letters string) error {
	for letters != "" {
		letter := letters[:1]
		opt := p.find(func(o *Option) bool { return o.Short == letter })
		if opt == nil {
			return fmt.Errorf("unknown shorthand flag: '%s' in -%s\nSee 'gantryd --help'.", letter, letters)
		}
		letters = letters[1:]
		if opt.kind == "" && !strings.HasPrefix(letters, "=") {
			if err := p.take(opt, "-"+letter, "", false); err != nil {
				return err
			}
			continue
		}
		value := strings.TrimPrefix(letters, "=")
		return p.take(opt, "-"+letter, value, letters != "")
	}
	return nil
}

// WriteHelp writes what --help shows.
func WriteHelp(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Usage:  gantryd [OPTIONS]\n\nThe Gantry daemon: runs containers and serves the Docker Engine API.\n\nOptions:\n")
	line := func(short, long, kind, usage string) {
		if short != "" {
			short = "-" + short + ","
		}
		fmt.Fprintf(&b, "  %3s --%-38s %s\n", short, strings.TrimSpace(long+" "+kind), usage)
	}
	for _, o := range Options() {
		if o.Flag == "" {
			continue
		}
		usage := o.Usage
		switch o.Status {
		case Warned:
			usage += " (no effect: " + o.Reason + ")"
		case Refused:
			usage += " (refused: " + o.Reason + ")"
		}
		line(o.Short, o.Flag, o.kind, usage)
	}
	line("", "validate", "", "Check the configuration and end")
	line("v", "version", "", "Print the version and end")
	line("h", "help", "", "Print this and end")
	_, err := io.WriteString(w, b.String())
	return err
}
