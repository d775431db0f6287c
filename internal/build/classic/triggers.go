package classic

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// What an image says with ONBUILD is done by the build that begins with it,
// right after FROM. The classic builder tells of it without numbers, between the
// line of FROM and the ID that comes of it:
//
//	Step 1/2 : FROM base
//	# Executing 2 build triggers
//	 ---> Running in 0123456789ab
//	 ---> Removed intermediate container 0123456789ab
//	 ---> Running in …
//	 ---> fedcba987654

// onbuild returns the triggers of a stage.
func onbuild(s *instructions.Stage) []string {
	var list []string
	for _, c := range s.Commands {
		if o, ok := c.(*instructions.OnbuildCommand); ok {
			list = append(list, o.Expression)
		}
	}
	return list
}

// insert puts triggers after the step of FROM at a place, and returns how many
// of them make a layer. What can't be read is left out: the build fails by it.
func (s *script) insert(at int, triggers []string) (layers int) {
	from := &s.steps[at]
	var list []step
	for _, t := range triggers {
		if c := instruction(t); c != nil {
			st := newStep(c, from.stage, &layers)
			st.trigger, st.unused = true, from.unused
			if run, ok := c.(*instructions.RunCommand); ok {
				st.argv = strings.Join(run.CmdLine, " ")
				if run.PrependShell {
					st.argv = "/bin/sh -c " + st.argv
				}
			}
			list = append(list, st)
		}
	}
	if len(list) == 0 {
		return 0
	}
	from.triggers, list[len(list)-1].last = len(triggers), true
	for i := range s.steps {
		if st := &s.steps[i]; st.stage == from.stage && st.kind == layered {
			st.nth += layers
		}
	}
	s.steps = slices.Insert(s.steps, at+1, list...)
	return layers
}

// instruction reads one instruction, nil if it is none.
func instruction(text string) instructions.Command {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil || len(ast.AST.Children) != 1 {
		return nil
	}
	c, err := instructions.ParseCommand(ast.AST.Children[0])
	if err != nil {
		return nil
	}
	return c
}

// number returns the number of a step in the stream, and how many have one.
func (s *script) number(at int) (n, of int) {
	for i := range s.steps {
		if s.steps[i].trigger {
			continue
		}
		if of++; i <= at {
			n = of
		}
	}
	return n, of
}

// grow puts the triggers of an image where its FROM is, once the image is known.
func (t *translator) grow(at int) {
	if t.triggers == nil || t.steps[at].triggers > 0 || t.asked[at] {
		return
	}
	t.asked[at] = true
	before := len(t.steps)
	t.insert(at, t.triggers("sha256:"+t.states[at].digest))
	n := len(t.steps) - before
	if n == 0 {
		return
	}
	t.states = slices.Insert(t.states, at+1, make([]state, n)...)
	for d, i := range t.seen {
		if i > at {
			t.seen[d] = i + n
		}
	}
	asked := map[int]bool{}
	for i := range t.asked {
		if i > at {
			i += n
		}
		asked[i] = true
	}
	t.asked = asked
}
