package classic

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"gantry/internal/errs"
)

// kind says what a step does to the image, and so what the stream says of it.
type kind int

const (
	argument kind = iota // ARG before the first FROM
	fromImage
	fromStage
	fromScratch
	layered // has a vertex in the build graph
	config  // changes the configuration alone
)

// A step is one line of the classic stream: "Step 2/5 : RUN true".
type step struct {
	text   string // as the Dockerfile has it
	kind   kind
	word   string // its instruction, in capitals
	stage  int
	base   int    // of fromStage: the stage
	nth    int    // of layered: its number among the stage's layers, from 1
	image  string // of fromImage: the expanded name
	argv   string // of RUN: what is executed, as errors show it
	unused bool   // the target does not need its stage
	// A step of FROM has triggers if the image has; they follow it, as steps
	// that have no number.
	triggers int
	trigger  bool
	last     bool // of the triggers
}

// A script is a Dockerfile as far as the target.
type script struct {
	steps  []step
	labels []string // the stage's name in vertices' names
	firsts []int    // the number that vertices' names give a stage's first layer
	ignore []string // build arguments that nothing declares
}

// dialect is what of a request changes the steps.
type dialect struct {
	file   string // the Dockerfile's name, for errors
	target string
	args   map[string]*string
	labels map[string]string
}

// parse reads a Dockerfile. Its errors are the caller's fault, in Docker's
// words.
func parse(text []byte, d dialect) (*script, error) {
	if len(text) == 0 {
		return nil, errs.New(errs.Invalid, "the Dockerfile (%s) cannot be empty", d.file)
	}
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, errs.New(errs.Invalid, "failed to parse Dockerfile: %w", err)
	}
	stages, metas, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if len(stages) == 0 {
		return nil, errs.New(errs.Invalid, "no build stage in current context")
	}
	last := len(stages) - 1
	if d.target != "" {
		if last, err = findStage(stages, d.target); err != nil {
			return nil, err
		}
	}
	p := &planner{dialect: d, stages: stages[:last+1], lex: shell.NewLex(ast.EscapeToken), globals: map[string]string{}, shells: map[int][]string{}}
	for i := range metas {
		p.meta(&metas[i])
	}
	for i := range p.stages {
		p.stage(i)
	}
	p.reach()
	if line := labelStep(d.labels); line != "" {
		p.out.steps = append(p.out.steps, step{text: line, kind: config, word: "LABEL", stage: last})
	}
	p.out.ignore = undeclared(d.args, stages, metas)
	if len(p.stages) == 1 && len(stages) == 1 {
		p.out.labels[0] = ""
	}
	return &p.out, nil
}

// findStage finds a target by name, or by its number.
func findStage(stages []instructions.Stage, target string) (int, error) {
	if i, ok := instructions.HasStage(stages, target); ok {
		return i, nil
	}
	if n, err := strconv.Atoi(target); err == nil && n >= 0 && n < len(stages) {
		return n, nil
	}
	return 0, errs.New(errs.Invalid, "target stage %q could not be found", target)
}

// planner makes a script.
type planner struct {
	dialect
	stages  []instructions.Stage
	lex     *shell.Lex
	globals map[string]string
	shells  map[int][]string
	out     script
}

func (p *planner) meta(m *instructions.ArgCommand) {
	p.out.steps = append(p.out.steps, step{text: m.String(), kind: argument, word: "ARG", stage: -1})
	for _, a := range m.Args {
		if v, ok := p.args[a.Key]; ok && v != nil {
			p.globals[a.Key] = *v
		} else if a.Value != nil {
			p.globals[a.Key] = p.expand(*a.Value)
		}
	}
}

// expand replaces the global arguments in a word; what can't be read stays.
func (p *planner) expand(s string) string {
	env := slices.Sorted(maps.Keys(p.globals))
	for i, k := range env {
		env[i] = k + "=" + p.globals[k]
	}
	if out, _, err := p.lex.ProcessWord(s, shell.EnvsFromSlice(env)); err == nil {
		return out
	}
	return s
}

func (p *planner) stage(i int) {
	st := &p.stages[i]
	label := st.Name
	if label == "" {
		label = fmt.Sprintf("stage-%d", i)
	}
	base := p.expand(st.BaseName)
	from := step{text: strings.TrimSpace(st.SourceCode), kind: fromImage, word: "FROM", stage: i, image: base}
	first := 2 // FROM is the first of what is counted
	if at, ok := instructions.HasStage(p.stages[:i], base); ok {
		from.kind, from.base, first = fromStage, at, 1
		p.shells[i] = p.shells[at]
	} else if base == "scratch" {
		from.kind, first = fromScratch, 1
	}
	p.out.steps = append(p.out.steps, from)
	p.out.labels = append(p.out.labels, label)
	p.out.firsts = append(p.out.firsts, first)
	layers := 0
	if from.kind == fromStage {
		layers = p.out.insert(len(p.out.steps)-1, onbuild(&p.stages[from.base]))
	}
	for _, c := range st.Commands {
		s := newStep(c, i, &layers)
		switch c := c.(type) {
		case *instructions.ShellCommand:
			p.shells[i] = c.Shell
		case *instructions.RunCommand:
			s.argv = p.argv(i, c)
		}
		p.out.steps = append(p.out.steps, s)
	}
}

// newStep is the step of an instruction; layers counts those that make one.
func newStep(c instructions.Command, stage int, layers *int) step {
	s := step{text: text(c), kind: config, word: strings.ToUpper(c.Name()), stage: stage}
	if makesLayer(c) {
		*layers++
		s.kind, s.nth = layered, *layers
	}
	return s
}

// argv is what RUN executes.
func (p *planner) argv(stage int, c *instructions.RunCommand) string {
	words := c.CmdLine
	if c.PrependShell {
		sh := p.shells[stage]
		if sh == nil {
			sh = []string{"/bin/sh", "-c"}
		}
		words = append(slices.Clone(sh), words...)
	}
	return strings.Join(words, " ")
}

func text(c instructions.Command) string {
	if s, ok := c.(fmt.Stringer); ok {
		return strings.TrimSpace(s.String())
	}
	return strings.ToUpper(c.Name())
}

func makesLayer(c instructions.Command) bool {
	switch c := c.(type) {
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand:
		return true
	case *instructions.WorkdirCommand:
		return c.Path != "/" // which is there
	}
	return false
}

// reach marks the stages that the last one does not need.
func (p *planner) reach() {
	needs := map[int]bool{}
	var visit func(i int)
	visit = func(i int) {
		if needs[i] {
			return
		}
		needs[i] = true
		if at, ok := instructions.HasStage(p.stages[:i], p.expand(p.stages[i].BaseName)); ok {
			visit(at)
		}
		for _, c := range p.stages[i].Commands {
			for _, name := range sources(c) {
				if at, err := findStage(p.stages[:i], p.expand(name)); err == nil {
					visit(at)
				}
			}
		}
	}
	visit(len(p.stages) - 1)
	for i, s := range p.out.steps {
		p.out.steps[i].unused = s.stage >= 0 && !needs[s.stage]
	}
}

// sources returns the stages that an instruction reads from.
func sources(c instructions.Command) []string {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		same := func(s string) (string, error) { return s, nil }
		if err := c.Expand(same); err != nil {
			return nil
		}
		var list []string
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				list = append(list, m.From)
			}
		}
		return list
	}
	return nil
}

// labelStep is the step that the labels of a request make.
func labelStep(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	line := "LABEL"
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		line += " " + k + "=" + labels[k]
	}
	return line
}

// builtin are the arguments that need no declaration.
var builtin = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "SOURCE_DATE_EPOCH"}

// undeclared returns the build arguments that no ARG names, sorted.
func undeclared(args map[string]*string, stages []instructions.Stage, metas []instructions.ArgCommand) []string {
	declared := map[string]bool{}
	note := func(c *instructions.ArgCommand) {
		for _, a := range c.Args {
			declared[a.Key] = true
		}
	}
	for i := range metas {
		note(&metas[i])
	}
	for _, st := range stages {
		for _, c := range st.Commands {
			if a, ok := c.(*instructions.ArgCommand); ok {
				note(a)
			}
		}
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(args)) {
		if !declared[k] && !slices.Contains(builtin, strings.ToUpper(k)) && !strings.HasPrefix(k, "BUILDKIT_") {
			list = append(list, k)
		}
	}
	return list
}

// errNothing is the end of a build that has made nothing.
var errNothing = errors.New("No image was generated. Is your Dockerfile empty?")
