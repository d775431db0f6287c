package arch

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// module is the module's path.
const module = "gantry"

// A pkg is one package of this module, as `go list` tells it.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
}

// short returns the path below internal/, or below the module.
func (p pkg) short() string { return short(p.ImportPath) }

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module+"/"), "internal/")
}

func own(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func golist(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

const root = "../.."

// packages lists every package of the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	var all []pkg
	dec := json.NewDecoder(bytes.NewReader(golist(t, "-json=ImportPath,Dir,Name,GoFiles,Imports", "./...")))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("only %d packages found: the checks would see nothing", len(all))
	}
	return all
}

// parsed is one source file.
type parsed struct {
	pkg  pkg
	path string // relative to the module
	fset *token.FileSet
	file *ast.File
}

func (f parsed) line(p token.Pos) int { return f.fset.Position(p).Line }

// files parses every source file that is no test.
func files(t *testing.T) []parsed {
	t.Helper()
	var all []parsed
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			path := filepath.Join(p.Dir, name)
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(f) {
				continue
			}
			abs, _ := filepath.Abs(root)
			rel, err := filepath.Rel(abs, path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, parsed{p, rel, fset, f})
		}
	}
	return all
}
