// Package parity replays what was recorded at a terminal with the stock
// command line and Docker Engine 29.7, once with the stock docker and once with
// gantry, against a daemon of ours, and compares what is printed and the exit
// codes. testdata holds the recordings; accepted.go every difference that is
// meant. It must not import the engine or the command line.
package parity

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Step is a command and what it did: what it printed, with everything that
// changes from run to run replaced by names in angle brackets, and its exit
// code.
type Step struct {
	Command string
	Stdout  string
	Stderr  string
	Code    int
}

// ParseSession reads a recording. A step begins with "$ COMMAND"; the lines
// after "stdout:" and "stderr:" are what it printed, and "exit: N" ends it. An
// output that does not end in a line feed ends in "<no newline>".
func ParseSession(text string) ([]Step, error) {
	var steps []Step
	var current *Step
	var into *string
	for n, line := range strings.Split(text, "\n") {
		switch {
		case current == nil && strings.HasPrefix(line, "$ "):
			current, into = &Step{Command: line[2:]}, nil
		case current == nil:
			if line != "" && !strings.HasPrefix(line, "#") {
				return nil, fmt.Errorf("line %d: %q is in no step", n+1, line)
			}
		case line == "stdout:" && into == nil:
			into = &current.Stdout
		case line == "stderr:" && into != &current.Stderr:
			into = &current.Stderr
		case strings.HasPrefix(line, "exit: "):
			code, err := strconv.Atoi(line[len("exit: "):])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
			current.Code = code
			steps = append(steps, *current)
			current = nil
		case into == nil:
			return nil, fmt.Errorf("line %d: %q belongs to no stream", n+1, line)
		default:
			*into += line + "\n"
		}
	}
	if current != nil {
		return nil, fmt.Errorf("%q has no end", current.Command)
	}
	return steps, nil
}

// A rule replaces what differs from run to run.
type rule struct {
	pattern *regexp.Regexp
	with    string
}

// rules are applied in their order to both sides. What the recordings have in
// brackets already is left as it is.
var rules = []rule{
	{regexp.MustCompile(`<no newline>\n?$`), ""},
	{regexp.MustCompile(`\r\n`), "\n"}, // the recorder left them out
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<id12>"},
	// Said by the stock command line when the daemon answers before it has sent all.
	{regexp.MustCompile(`(?m)^time=.* level=error msg="Can't (add file|close tar writer).*\n`), ""},
	{regexp.MustCompile(`/(docker|gantry-[0-9a-f]{8})/<id>`), "/<group>"},
	{regexp.MustCompile(`(?m)^root +\d+ +\d+ +\d `), "root  <pid>  <pid>  <cpu> "},
	{regexp.MustCompile(`(?m)^\d+ +sleep$`), "<pid>  sleep"},
	{regexp.MustCompile(`(?m)^ +\d+ root +ps$`), "  <pid> root  ps"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "<time>"},
	{regexp.MustCompile(`[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d`), "<date>"},
	{regexp.MustCompile(`\b\d\d:\d\d  `), "<clock>  "},
	{regexp.MustCompile(`(Less than a|About an|About a|\d+) (second|minute|hour|day|week)s?( ago)?`), "<while>"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(B|kB|MB|GB)\b`), "<size>"},
	{regexp.MustCompile(`<size> \(\d+%\)`), "<size>"},
	{regexp.MustCompile(`\b172\.\d+\.0\.1\b`), "<gateway>"},
	{regexp.MustCompile(`\b172\.\d+\.0\.0\b`), "<subnet>"},
	{regexp.MustCompile(`\b172\.\d+\.255\.255\b`), "<broadcast>"},
	{regexp.MustCompile(`\b172\.\d+\.0\.\d+\b`), "<address>"},
	{regexp.MustCompile(`(?m)^[a-z]+_[a-z]+(\d?)([| ]|$)`), "<name>$2"},
	{regexp.MustCompile(`(?m) [a-z]+_[a-z]+\d?$`), " <name>"},
	{regexp.MustCompile(` [a-z]+_[a-z]+\d? \(<id>\)`), " <name> (<id>)"},
	{regexp.MustCompile(`"gantry-[0-9a-f]{8}"`), `"<bridge>"`},
	{regexp.MustCompile(`(?m)^root +\d+ +\d+\.\d +\d+\.\d +\d+ +\d+ `), "root  <pid>  0.0  0.0  <memory> "},
	{regexp.MustCompile(` {2,}`), "  "},
	{regexp.MustCompile(`(?m) +$`), ""},
}

// Places are the directories of a run, which the recordings have as <root>,
// <home>, <cwd> and <sock>.
type Places struct{ Root, Home, Cwd, Socket string }

// Normalise replaces everything that changes from run to run.
func (p Places) Normalise(text string) string {
	text = strings.NewReplacer(p.Root, "<root>", p.Home, "<home>", p.Cwd, "<cwd>", p.Socket, "<sock>").Replace(text)
	return normalise(text)
}

func normalise(text string) string {
	for _, r := range rules {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return text
}

// sortEnv sorts what a command that prints an environment prints: the stock
// command line sends variables in an order of chance.
func sortEnv(s Step) Step {
	if strings.HasSuffix(s.Command, " busybox env") {
		lines := strings.SplitAfter(s.Stdout, "\n")
		slices.Sort(lines)
		s.Stdout = strings.Join(lines, "")
	}
	return s
}

// Differences tells what is not the same in two steps, each stream by its lines.
func Differences(want, got Step) string {
	want, got = sortEnv(want), sortEnv(got)
	var b strings.Builder
	if want.Code != got.Code {
		fmt.Fprintf(&b, "exit: want %d, got %d\n", want.Code, got.Code)
	}
	stream(&b, "stdout", want.Stdout, got.Stdout)
	stream(&b, "stderr", want.Stderr, got.Stderr)
	return b.String()
}

func stream(b *strings.Builder, name, want, got string) {
	if want == got {
		return
	}
	fmt.Fprintf(b, "%s:\n", name)
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for len(w) > 0 && len(g) > 0 && w[0] == g[0] {
		w, g = w[1:], g[1:]
	}
	for len(w) > 0 && len(g) > 0 && w[len(w)-1] == g[len(g)-1] {
		w, g = w[:len(w)-1], g[:len(g)-1]
	}
	for _, line := range w {
		fmt.Fprintf(b, "  - %s\n", line)
	}
	for _, line := range g {
		fmt.Fprintf(b, "  + %s\n", line)
	}
}
