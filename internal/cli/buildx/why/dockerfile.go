package why

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// instruction is one of a Dockerfile. stage is -1 in front of the first FROM.
type instruction struct {
	word, rest string
	stage      int
	name       string // of the stage
}

// parse reads a Dockerfile; of one that can't be read nothing is known.
func parse(text string) []instruction {
	if text == "" {
		return nil
	}
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil
	}
	var out []instruction
	stage, name := -1, ""
	for _, n := range res.AST.Children {
		_, rest, _ := strings.Cut(strings.TrimSpace(n.Original), " ")
		i := instruction{word: strings.ToUpper(n.Value), rest: strings.Join(strings.Fields(rest), " ")}
		if i.word == "FROM" {
			stage, name = stage+1, ""
			if w := strings.Fields(rest); len(w) >= 3 && strings.EqualFold(w[len(w)-2], "as") {
				name = w[len(w)-1]
			}
		}
		i.stage, i.name = stage, name
		out = append(out, i)
	}
	return out
}
