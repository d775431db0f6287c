package parity

import (
	"maps"
	"slices"
	"strings"
)

// An acceptance is a difference that is meant.
type acceptance struct {
	command string // the whole command, or its beginning where it ends in *
	program string // of which program; empty for both
	reason  string
}

// accepted lists every difference that is not a defect. The test fails for an
// entry that no difference needs any more.
var accepted = []acceptance{}

// accept reports whether a difference of program in command is accepted, and
// notes in needed which entries were of use.
func accept(program, command string, needed []bool) bool {
	found := false
	for i, a := range accepted {
		match := a.command == command
		if prefix, ok := strings.CutSuffix(a.command, "*"); ok {
			match = strings.HasPrefix(command, prefix)
		}
		if match && (a.program == "" || a.program == program) {
			needed[i], found = true, true
		}
	}
	return found
}

func sortedKeys(m map[string][]Step) []string {
	return slices.Sorted(maps.Keys(m))
}
