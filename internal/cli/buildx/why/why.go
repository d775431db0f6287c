// Package why says why a step of a build was not taken from the cache. It keeps a
// Record of the last build of each context, Dockerfile and target, and compares
// it with the build that has just run: which file that COPY takes, which
// argument, which base image or which instruction is another one. Package buildx
// calls it. Deciding is pure; only Load and Save touch files, below the user's
// cache directory. It must not know BuildKit's client.
package why

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Vertex is a step of a build as the daemon reports it.
type Vertex struct {
	Digest string
	Name   string // [stage 2/5] RUN …
	Inputs []string
	Cached bool
	Done   bool // it ran to its end
}

// Step is a step of the Dockerfile.
type Step struct {
	Stage  string   `json:"stage"` // platform and stage, as the name has them
	Number string   `json:"number"`
	Text   string   `json:"text"`
	Cached bool     `json:"cached"`
	After  []string `json:"after,omitempty"` // labels of the steps whose results it takes
}

// Label names a step in one line.
func (s Step) Label() string {
	where := s.Number
	if s.Stage != "" {
		where = s.Stage + " " + s.Number
	}
	return "[" + where + "] " + s.Text
}

func (s Step) instruction() string {
	word, _, _ := strings.Cut(s.Text, " ")
	return strings.ToUpper(word)
}

// Record is what is kept of a build.
type Record struct {
	Args    map[string]string `json:"args"`
	Options map[string]string `json:"options"` // other flags that steps depend on
	Source  string            `json:"dockerfile"`
	Steps   []Step            `json:"steps"`
	// Files are those of the context that were compared with the daemon's, by
	// path; nil if the context was not a directory.
	Files map[string]File `json:"files"`
}

// Same reports whether two builds were made of the same; what of them was cached
// does not count.
func (r Record) Same(o Record) bool {
	same := func(a, b Step) bool {
		return a.Stage == b.Stage && a.Number == b.Number && a.Text == b.Text && slices.Equal(a.After, b.After)
	}
	return r.Source == o.Source && maps.Equal(r.Args, o.Args) && maps.Equal(r.Options, o.Options) && slices.EqualFunc(r.Steps, o.Steps, same) &&
		(r.Files == nil) == (o.Files == nil) && maps.Equal(r.Files, o.Files)
}

// Steps picks the Dockerfile's steps out of what the daemon reported, in the
// order of their names.
func Steps(list []Vertex) []Step {
	byDigest := map[string]Vertex{}
	for _, v := range list {
		byDigest[v.Digest] = v
	}
	var out []Step
	seen := map[string]bool{}
	for _, v := range list {
		s, ok := parseName(v.Name)
		if !ok || seen[s.Label()] || !v.Done && !v.Cached {
			continue
		}
		seen[s.Label()] = true
		s.Cached = v.Cached
		s.After = parents(v, byDigest)
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Step) int {
		if c := strings.Compare(a.Stage, b.Stage); c != 0 {
			return c
		}
		return position(a.Number) - position(b.Number)
	})
	return out
}

func position(number string) int {
	n := 0
	_, _ = fmt.Sscanf(number, "%d/", &n) // anything else sorts first
	return n
}

// parents returns the nearest steps below v: what lies between is internal.
func parents(v Vertex, byDigest map[string]Vertex) []string {
	var out []string
	seen := map[string]bool{}
	queue := slices.Clone(v.Inputs)
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		if seen[d] {
			continue
		}
		seen[d] = true
		in, ok := byDigest[d]
		if !ok {
			continue
		}
		if s, ok := parseName(in.Name); ok {
			out = append(out, s.Label())
			continue
		}
		queue = append(queue, in.Inputs...)
	}
	slices.Sort(out)
	return out
}

// parseName reads "[stage 2/5] RUN …"; what has no such number is internal.
func parseName(name string) (Step, bool) {
	rest, ok := strings.CutPrefix(name, "[")
	if !ok {
		return Step{}, false
	}
	head, text, ok := strings.Cut(rest, "] ")
	if !ok {
		return Step{}, false
	}
	words := strings.Fields(head)
	if len(words) == 0 {
		return Step{}, false
	}
	number := words[len(words)-1]
	if n, of, ok := strings.Cut(number, "/"); !ok || !digits(n) || !digits(of) {
		return Step{}, false
	}
	return Step{Stage: strings.Join(words[:len(words)-1], " "), Number: number, Text: text}, true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Reason says why one step ran.
type Reason struct {
	Step string
	Why  []string
}

// String is the reason in one line.
func (r Reason) String() string { return r.Step + ": " + strings.Join(r.Why, "; ") }

// Compare returns the reasons of every step of now that was not taken from the
// cache. before is nil if nothing is known of an earlier build.
func Compare(before *Record, now Record) []Reason {
	ran := map[string]bool{}
	for _, s := range now.Steps {
		if !s.Cached && s.instruction() != "FROM" {
			ran[s.Label()] = true
		}
	}
	var out []Reason
	for _, s := range now.Steps {
		if ran[s.Label()] {
			out = append(out, Reason{Step: s.Label(), Why: reasons(before, now, s, ran)})
		}
	}
	return out
}

func reasons(before *Record, now Record, s Step, ran map[string]bool) []string {
	if off, ok := now.Options["no-cache"]; ok && (off == "" || slices.Contains(strings.Split(off, ","), s.Stage)) {
		return []string{"the cache was not to be used (--no-cache)"}
	}
	if before == nil {
		return []string{"never built: no earlier build of this context, Dockerfile and target is known"}
	}
	c := comparison{before: before, now: now, step: s, olds: parse(before.Source), news: parse(now.Source)}
	old, same := c.find()
	if old == nil {
		return []string{"a new step"}
	}
	var why []string
	if !same {
		why = append(why, "the instruction changed: it was "+quote(old.Text))
		return append(why, c.args()...)
	}
	for _, p := range s.After {
		if ran[p] {
			why = append(why, "a step before it ran: "+p)
		}
	}
	if len(why) > 0 {
		return why
	}
	why = append(why, c.base()...)
	why = append(why, c.files()...)
	if s.instruction() == "RUN" {
		why = append(why, c.args()...)
		why = append(why, c.settings()...)
	}
	why = append(why, c.options()...)
	if len(why) == 0 {
		why = append(why, "nothing changed: its result is no longer in the cache (pruned, or never kept)")
	}
	return why
}

func quote(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// comparison is of one step with the same step of the build before.
type comparison struct {
	before     *Record
	now        Record
	step       Step
	olds, news []instruction
}

// find returns the step of the build before that this one was: with the same
// text, else at the same place.
func (c comparison) find() (old *Step, same bool) {
	var place *Step
	for i, s := range c.before.Steps {
		if s.Stage != c.step.Stage {
			continue
		}
		if s.Text == c.step.Text {
			return &c.before.Steps[i], true
		}
		if position(s.Number) == position(c.step.Number) {
			place = &c.before.Steps[i]
		}
	}
	if place != nil && place.instruction() != c.step.instruction() {
		return nil, false
	}
	return place, false
}

// base says which image the stage begins with now.
func (c comparison) base() []string {
	from := func(list []Step) string {
		for _, s := range list {
			if s.Stage == c.step.Stage && s.instruction() == "FROM" {
				return strings.TrimPrefix(s.Text, "FROM ")
			}
		}
		return ""
	}
	was, is := from(c.before.Steps), from(c.now.Steps)
	if was == is || was == "" || is == "" {
		return nil
	}
	return []string{fmt.Sprintf("the base image changed from %s to %s", was, is)}
}

// args says which build arguments that the stage declares have another value.
func (c comparison) args() []string {
	var out []string
	for _, name := range c.declared() {
		was, had := c.before.Args[name]
		is, has := c.now.Args[name]
		switch {
		case had == has && was == is:
		case !had:
			out = append(out, fmt.Sprintf("build argument %s is now %q", name, is))
		case !has:
			out = append(out, fmt.Sprintf("build argument %s is no longer given (was %q)", name, was))
		default:
			out = append(out, fmt.Sprintf("build argument %s changed from %q to %q", name, was, is))
		}
	}
	return out
}

// declared are the arguments that steps of this stage can see.
func (c comparison) declared() []string {
	names := map[string]bool{}
	for _, i := range c.news {
		if i.word != "ARG" || i.stage >= 0 && !c.inStage(i) {
			continue
		}
		for _, w := range strings.Fields(i.rest) {
			name, _, _ := strings.Cut(w, "=")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// inStage reports whether an instruction is of the step's stage.
func (c comparison) inStage(i instruction) bool {
	words := strings.Fields(c.step.Stage)
	if len(words) == 0 {
		return true // the only stage has no name
	}
	last := words[len(words)-1]
	return strings.EqualFold(last, i.name) || last == fmt.Sprintf("stage-%d", i.stage)
}

// settings says which instructions that make no step, but change those after
// them, are other ones.
func (c comparison) settings() []string {
	pick := func(list []instruction) map[string]bool {
		out := map[string]bool{}
		for _, i := range list {
			switch i.word {
			case "ENV", "ARG", "USER", "SHELL":
				if c.inStage(i) {
					out[i.word+" "+i.rest] = true
				}
			}
		}
		return out
	}
	was, is := pick(c.olds), pick(c.news)
	var out []string
	for _, s := range slices.Sorted(maps.Keys(is)) {
		if !was[s] {
			out = append(out, "the Dockerfile now has "+quote(s))
		}
	}
	for _, s := range slices.Sorted(maps.Keys(was)) {
		if !is[s] {
			out = append(out, "the Dockerfile no longer has "+quote(s))
		}
	}
	return out
}

// options says which flags are other ones.
func (c comparison) options() []string {
	keys := map[string]bool{}
	for k := range c.before.Options {
		keys[k] = true
	}
	for k := range c.now.Options {
		keys[k] = true
	}
	delete(keys, "no-cache")
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if was, is := c.before.Options[k], c.now.Options[k]; was != is {
			out = append(out, fmt.Sprintf("%s changed from %q to %q", k, was, is))
		}
	}
	return out
}
