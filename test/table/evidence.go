package table

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Evidence is what the tests of a tree use: by "docker ps --all" or
// "GET /containers/json" the files that do, sorted.
type Evidence map[string][]string

func (e Evidence) add(what, file string) {
	if !slices.Contains(e[what], file) {
		e[what] = append(e[what], file)
		slices.Sort(e[what])
	}
}

// A reader knows what to look for.
type reader struct {
	names     map[string]*Command // by every name
	endpoints []matcher
	found     Evidence
}

type matcher struct {
	Endpoint
	pattern *regexp.Regexp
}

// Read looks through the files below the directories dirs of root.
func Read(root string, dirs []string, commands []*Command, endpoints []Endpoint) (Evidence, error) {
	r := &reader{names: map[string]*Command{}, found: Evidence{}}
	for _, c := range commands {
		for _, n := range c.Names {
			r.names[n] = c
		}
	}
	for _, e := range endpoints {
		pattern := regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(e.Path), `[^/?]+`)
		if strings.Contains(e.Path, "{name}") { // of images: with slashes
			pattern = strings.Replace(pattern, `[^/?]+`, `[^?]+?`, 1)
		}
		r.endpoints = append(r.endpoints, matcher{e, regexp.MustCompile(`^(/v1\.\d+)?` + pattern + `(\?|$)`)})
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			switch {
			case strings.HasPrefix(name, "test/table/"):
			case strings.HasSuffix(name, ".go"):
				if strings.HasPrefix(name, "test/") || strings.HasSuffix(name, "_test.go") {
					return r.code(name, text)
				}
			case strings.HasSuffix(name, ".jsonl"):
				r.exchanges(name, string(text))
			case strings.HasSuffix(name, ".golden"), strings.HasSuffix(name, ".tsv"):
			default:
				r.shell(name, string(text))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return r.found, nil
}

// exchanges reads recorded requests.
func (r *reader) exchanges(file, text string) {
	for line := range strings.Lines(text) {
		var x struct{ Method, Path string }
		if json.Unmarshal([]byte(line), &x) == nil {
			r.request(file, x.Method, x.Path)
		}
	}
}

func (r *reader) request(file, method, path string) {
	for _, e := range r.endpoints {
		if e.Method == method && e.pattern.MatchString(path) {
			r.found.add(e.Name(), file)
		}
	}
}

// shell reads commands as they are typed, also within scripts.
func (r *reader) shell(file, text string) {
	for line := range strings.Lines(text) {
		for _, part := range splitter.Split(line, -1) {
			words := strings.Fields(part)
			if i := slices.IndexFunc(words, func(w string) bool {
				w = strings.Trim(w, `'"$`)
				return w == "docker" || w == "gantry"
			}); i >= 0 {
				r.command(file, words[i+1:])
			}
		}
	}
}

var splitter = regexp.MustCompile(`[;|&(){}]|\$\(|` + "`")

// command notes the command of words, which come after the program's name, and
// the flags up to the first argument that belongs to another program.
func (r *reader) command(file string, words []string) {
	root := r.names["docker"]
	path, at := "docker", 0
	for at < len(words) && strings.HasPrefix(words[at], "-") {
		at += r.flag(file, root, words, at)
	}
	for n := min(3, len(words)-at); n > 0; n-- {
		if c := r.names["docker "+strings.Join(words[at:at+n], " ")]; c != nil {
			path, at = "docker "+strings.Join(words[at:at+n], " "), at+n
			break
		}
	}
	c := r.names[path]
	if c == root {
		return
	}
	r.found.add(c.Path, file)
	arguments := 0
	for at < len(words) {
		word := strings.Trim(words[at], `'",`)
		if word == "--" || !strings.HasPrefix(word, "-") {
			arguments++
			// What follows the image or the container is its own.
			if takesProgram(c) && arguments > 0 {
				return
			}
			at++
			continue
		}
		at += r.flag(file, c, words, at)
	}
}

func takesProgram(c *Command) bool {
	return slices.ContainsFunc(c.Names, func(n string) bool {
		return slices.Contains([]string{"docker run", "docker create", "docker exec", "docker top"}, n)
	})
}

// flag notes the flag at words[at] and returns how many words it takes.
func (r *reader) flag(file string, c *Command, words []string, at int) int {
	word := strings.Trim(words[at], `'",`)
	name, _, valued := strings.Cut(word, "=")
	takes := func(f Flag) int {
		r.found.add(c.Path+" "+f.Name, file)
		if valued || f.Type == "bool" || f.Type == "" {
			return 1
		}
		return 2
	}
	if strings.HasPrefix(name, "--") {
		for _, f := range c.Flags {
			if f.Name == name {
				return takes(f)
			}
		}
		return 1
	}
	n := 1
	for i, short := range strings.TrimPrefix(name, "-") {
		for _, f := range c.Flags {
			if f.Short == "-"+string(short) {
				n = takes(f)
				if n == 2 && i+2 < len(name) {
					return 1 // -p80:80
				}
			}
		}
	}
	return n
}

// code reads the strings of Go sources: calls and lists whose strings are a
// command line, commands in one string, and paths of requests.
func (r *reader) code(file string, text []byte) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, 0)
	if err != nil {
		return err
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			r.strings(file, calledMethod(n), n.Args)
		case *ast.CompositeLit:
			r.strings(file, "", n.Elts)
		case *ast.BasicLit:
			if s, ok := unquoted(n); ok && strings.ContainsAny(s, " ") {
				if f := strings.Fields(s); len(f) > 1 && strings.HasPrefix(f[1], "/") {
					r.request(file, f[0], f[1]) // a request as it is sent
				}
				r.shell(file, s)
				r.command(file, strings.Fields(s))
			}
		}
		return true
	})
	return nil
}

// calledMethod is the HTTP method that the name of a called function tells.
func calledMethod(c *ast.CallExpr) string {
	if s, ok := c.Fun.(*ast.SelectorExpr); ok {
		switch s.Sel.Name {
		case "Get", "get":
			return "GET"
		case "Post", "post":
			return "POST"
		}
	}
	if s, ok := c.Fun.(*ast.Ident); ok && s.Name == "get" {
		return "GET"
	}
	return ""
}

func (r *reader) strings(file, method string, list []ast.Expr) {
	var words []string
	var paths []string
	for _, x := range list {
		s, ok := unquoted(x)
		switch {
		case !ok:
			if len(words) > 0 {
				words = append(words, "…")
			}
			// "/containers/" + id + "/json"
			if p := joined(x); strings.HasPrefix(p, "/") {
				paths = append(paths, p)
			}
			continue
		case slices.Contains([]string{"GET", "POST", "PUT", "DELETE", "HEAD"}, s):
			method = s
		case strings.HasPrefix(s, "/"):
			paths = append(paths, strings.NewReplacer("%s", "x", "%d", "1").Replace(s))
		case strings.HasPrefix(s, "http://gantry/"):
			paths = append(paths, s[len("http://gantry"):])
		}
		if s == "docker" || s == "gantry" {
			words = nil
			continue
		}
		words = append(words, s)
	}
	if len(words) > 0 {
		r.command(file, words)
	}
	for _, p := range paths {
		if method != "" {
			r.request(file, method, p)
		}
	}
}

// joined puts together a sum of strings, with x for what is not a literal.
func joined(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.BinaryExpr:
		if x.Op == token.ADD {
			return strings.TrimPrefix(joined(x.X)+joined(x.Y), "http://gantry")
		}
	case *ast.BasicLit:
		s, _ := unquoted(x)
		return s
	case *ast.CallExpr:
		if len(x.Args) > 0 {
			if s, ok := unquoted(x.Args[0]); ok {
				return strings.TrimPrefix(strings.NewReplacer("%s", "x", "%d", "1").Replace(s), "http://gantry")
			}
		}
	}
	return "x"
}

func unquoted(x ast.Expr) (string, bool) {
	lit, ok := x.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
