// Package table makes docs/parity.md: every endpoint, command and flag of Docker
// Engine 29, whether it works here, and which test says so. Its inputs are lists
// of what Docker has (testdata), what the built programs answer, and what the
// tests of this tree use. It must not import the engine or the command line.
package table

import (
	"fmt"
	"slices"
	"strings"
)

// A Status is what becomes of something that Docker has.
type Status string

// The statuses.
const (
	Works   Status = "works"
	Refused Status = "refused"
	NotYet  Status = "not yet"
)

// An Endpoint is a row of api.tsv.
type Endpoint struct{ Method, Path, Group, Purpose string }

// Name is "GET /containers/json".
func (e Endpoint) Name() string { return e.Method + " " + e.Path }

// A Command is a command with its flags, from cli.tsv.
type Command struct {
	Path  string   // "docker container ls"
	Names []string // all that it goes by, Path among them
	Group bool     // has only commands below it
	Flags []Flag
}

// A Flag is one of a command's.
type Flag struct {
	Name, Short string // with their dashes
	Type        string
}

// Endpoints reads api.tsv.
func Endpoints(tsv string) []Endpoint {
	var all []Endpoint
	for i, f := range rows(tsv) {
		if i > 0 && len(f) >= 6 {
			all = append(all, Endpoint{Method: f[0], Path: f[1], Group: f[3], Purpose: f[5]})
		}
	}
	return all
}

// Commands reads cli.tsv: the root command first.
func Commands(tsv string) []*Command {
	byPath := map[string]*Command{}
	var all []*Command
	for _, f := range rows(tsv) {
		for len(f) < 5 {
			f = append(f, "")
		}
		switch f[0] {
		case "root", "command", "group":
			c := &Command{Path: f[1], Names: []string{f[1]}, Group: f[0] != "command"}
			for alias := range strings.SplitSeq(f[3], ",") {
				if alias = strings.TrimSpace(alias); alias != "" && !slices.Contains(c.Names, alias) {
					c.Names = append(c.Names, alias)
				}
			}
			byPath[c.Path] = c
			all = append(all, c)
		}
	}
	for _, f := range rows(tsv) {
		if f[0] == "flag" && byPath[f[1]] != nil {
			c := byPath[f[1]]
			c.Flags = append(c.Flags, Flag{Name: f[2], Short: f[3], Type: f[4]})
		}
	}
	return all
}

func rows(tsv string) [][]string {
	var all [][]string
	for line := range strings.Lines(tsv) {
		all = append(all, strings.Split(strings.TrimRight(line, "\n"), "\t"))
	}
	return all
}

// A Row is one line of the table.
type Row struct {
	Name   string
	Status Status
	Why    string // the reason of a refusal, or the test
}

// A Section is a heading and its rows.
type Section struct {
	Title string
	Rows  []Row
}

// Render writes the document.
func Render(sections []Section) string {
	var b strings.Builder
	b.WriteString(`# What of Docker works

Every endpoint of the Engine API 1.56, and every command and flag of the command
line, with the test that uses it or the reason why it is refused. "not yet" answers
501 or "unknown flag". This file is made by ` + "`GANTRY_UPDATE=1 go test ./test/table`" + `, which
also fails if it is out of date; edit the tests, not this file.

`)
	total := map[Status]int{}
	for _, s := range sections {
		for _, r := range s.Rows {
			total[r.Status]++
		}
	}
	fmt.Fprintf(&b, "%d work, %d are refused with a reason, %d are not yet there.\n", total[Works], total[Refused], total[NotYet])
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n| | | |\n|---|---|---|\n", s.Title)
		for _, r := range s.Rows {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, r.Status, r.Why)
		}
	}
	return b.String()
}
