// Package api replays requests that were recorded against Docker Engine 29 to a
// real gantryd and compares the answers: status, headers and their order, and
// the body, with the order of its keys. Where an answer differs for a reason,
// accepted.go says so; any other difference fails.
//
// The fixtures in testdata are made by the command in record. The package must
// not import the engine: it sees what a client sees.
package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An exchange is one request and its answer, as the record command writes it.
type exchange struct {
	Note    string
	Setup   bool
	Stream  bool // the connection becomes a stream, whose content is not compared
	Method  string
	Path    string
	Headers [][2]string
	Body    string

	Status     int
	Answer     [][2]string
	AnswerBody string
}

// Bindings are what the placeholders of a section stand for in this run:
// <id1> → an ID that this daemon has given.
type bindings map[string]string

var (
	placeholder = regexp.MustCompile(`<[a-z0-9.-]+(:12)?>`)
	// patterns are the placeholders whose values are free.
	patterns = map[string]string{
		"time.ns": `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`,
		"time":    `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`,
		"unix":    `-?\d+`, "unixnano": `\d+`, "pid": `\d+`, "date": `.*`, "stamp": `.*`, "kernel": `.*`, "os": `.*`,
		"hostname": `.*`, "memtotal": `\d+`, "root": `/.*?`, "exec": `/.*?`, "bin": `/.*?`, "resolver": `.*`,
	}
)

// fill puts the bound values into a request; false if one is not bound.
func (b bindings) fill(s string) (string, bool) {
	ok := true
	out := placeholder.ReplaceAllStringFunc(s, func(p string) string {
		name := strings.Trim(p, "<>")
		name, short := strings.CutSuffix(name, ":12")
		v, bound := b[name]
		if !bound {
			ok = false
			return p
		}
		if short && len(v) > 12 {
			v = v[:12]
		}
		return v
	})
	return out, ok
}

// unbound returns the first placeholder of s that has no value yet.
func (b bindings) unbound(s string) string {
	for _, p := range placeholder.FindAllString(s, -1) {
		name, _ := strings.CutSuffix(strings.Trim(p, "<>"), ":12")
		if _, ok := b[name]; !ok && patterns[name] == "" {
			return name
		}
	}
	return ""
}

// match compares a recorded text with what came, and binds placeholders that
// are met for the first time.
func (b bindings) match(want, got string) bool {
	if want == got {
		return true
	}
	if plain, ok := strings.CutPrefix(want, "<base64>   (decoded: "); ok {
		data, err := base64.StdEncoding.DecodeString(got)
		return err == nil && b.match(strings.TrimSuffix(plain, ")"), string(data))
	}
	var re strings.Builder
	var names []string
	re.WriteString("^")
	last := 0
	for _, at := range placeholder.FindAllStringIndex(want, -1) {
		re.WriteString(regexp.QuoteMeta(want[last:at[0]]))
		last = at[1]
		name := strings.Trim(want[at[0]:at[1]], "<>")
		name, short := strings.CutSuffix(name, ":12")
		switch p, free := patterns[name]; {
		case free:
			re.WriteString("(?:" + p + ")")
		case b[name] != "" && short:
			re.WriteString(regexp.QuoteMeta(b[name][:min(12, len(b[name]))]))
		case b[name] != "":
			re.WriteString(regexp.QuoteMeta(b[name]))
		case short:
			re.WriteString("[0-9a-f]{12}")
		default:
			re.WriteString("(" + form(name) + ")")
			names = append(names, name)
		}
	}
	re.WriteString(regexp.QuoteMeta(want[last:]) + "$")
	m := regexp.MustCompile("(?s)" + re.String()).FindStringSubmatch(got)
	if m == nil {
		return false
	}
	for i, name := range names {
		b[name] = m[i+1]
	}
	return true
}

// form is the pattern of a placeholder that is bound by its first use.
func form(name string) string {
	switch strings.TrimRight(name, "0123456789-") {
	case "id":
		return "[0-9a-f]{64}"
	case "port":
		return `\d+`
	case "mac":
		return "[0-9a-f:]{17}"
	}
	return `[^"]+`
}

// A node is a JSON value with the order of its keys.
type node struct {
	keys  []string
	elems []node // values of keys, or elements
	kind  byte   // '{', '[' or 's' for a scalar
	text  string // of a scalar: JSON, but a string without quotes
}

// parse reads one JSON value.
func parse(dec *json.Decoder) (node, error) {
	tok, err := dec.Token()
	if err != nil {
		return node{}, err
	}
	switch v := tok.(type) {
	case json.Delim:
		n := node{kind: byte(v)}
		for dec.More() {
			if n.kind == '{' {
				key, err := dec.Token()
				if err != nil {
					return n, err
				}
				n.keys = append(n.keys, fmt.Sprint(key))
			}
			e, err := parse(dec)
			if err != nil {
				return n, err
			}
			n.elems = append(n.elems, e)
		}
		_, err := dec.Token()
		return n, err
	case string:
		return node{kind: 's', text: v}, nil
	case nil:
		return node{kind: 's', text: "null"}, nil
	default:
		return node{kind: 's', text: fmt.Sprint(v)}, nil
	}
}

// bare is a placeholder that stands for a number.
var bare = regexp.MustCompile(`([:\[,])(<[a-z0-9]+>)([,}\]])`)

func parseText(s string) (node, bool) {
	s = bare.ReplaceAllString(s, `$1"$2"$3`)
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	n, err := parse(dec)
	return n, err == nil
}

// compare returns the differences of two values, each as path and text. Lists
// are compared up to the shorter one's length and by their length.
func (b bindings) compare(path string, want, got node) []difference {
	if want.kind != got.kind {
		return []difference{{path, show(want), show(got)}}
	}
	switch want.kind {
	case 's':
		if !b.match(want.text, got.text) {
			return []difference{{path, want.text, got.text}}
		}
		return nil
	case '[':
		var ds []difference
		byName(want.elems)
		byName(got.elems)
		if len(want.elems) != len(got.elems) {
			ds = append(ds, difference{path + ".length", show(want), show(got)})
		}
		for i := range min(len(want.elems), len(got.elems)) {
			ds = append(ds, b.compare(fmt.Sprintf("%s[%d]", path, i), want.elems[i], got.elems[i])...)
		}
		return ds
	}
	return b.compareObjects(path, want, got)
}

// byName sorts objects that have a name: lists of networks and volumes have no
// order.
func byName(list []node) {
	name := func(n node) string {
		if i := slices.Index(n.keys, "Name"); i >= 0 {
			return n.elems[i].text
		}
		return ""
	}
	if slices.ContainsFunc(list, func(n node) bool { return n.kind != '{' || name(n) == "" || name(n)[0] == '<' }) {
		return
	}
	slices.SortFunc(list, func(x, y node) int { return strings.Compare(name(x), name(y)) })
}

func (b bindings) compareObjects(path string, want, got node) []difference {
	var ds []difference
	have := map[string]node{}
	for i, k := range got.keys {
		have[k] = got.elems[i]
	}
	var inBoth []string
	wanted := map[string]bool{}
	for i, k := range want.keys {
		real, _ := b.fill(k)
		wanted[real] = true
		g, ok := have[real]
		if !ok {
			ds = append(ds, difference{path + "." + k, show(want.elems[i]), "(absent)"})
			continue
		}
		inBoth = append(inBoth, real)
		ds = append(ds, b.compare(path+"."+k, want.elems[i], g)...)
	}
	var order []string
	for i, k := range got.keys {
		if !wanted[k] {
			ds = append(ds, difference{path + "." + k, "(absent)", show(got.elems[i])})
			continue
		}
		order = append(order, k)
	}
	if strings.Join(order, ",") != strings.Join(inBoth, ",") && len(order) == len(inBoth) {
		ds = append(ds, difference{path + ".order", strings.Join(inBoth, ","), strings.Join(order, ",")})
	}
	return ds
}

// A difference is a place in an answer where it is not as recorded.
type difference struct{ path, want, got string }

func (d difference) String() string { return fmt.Sprintf("%s: want %s, got %s", d.path, d.want, d.got) }

func show(n node) string {
	switch n.kind {
	case '{':
		return "{" + strings.Join(n.keys, ",") + "}"
	case '[':
		return fmt.Sprintf("[%d]", len(n.elems))
	}
	return n.text
}
