package arch

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers, lowest first. A package may import its own layer and lower ones: data
// goes down, facts come up as values.
var layers = [][]string{
	{"errs", "durable", "keyed", "id", "version"},
	{"wire", "event", "plan", "filter", "job"},
	{"store", "content", "layer", "image", "remote", "lazy", "ocispec", "cgroup", "seccomp", "ociruntime", "rootpath", "archive", "tree", "overlay", "userns", "quota", "cdi", "logs", "shim", "network", "volume", "probe", "plugin"},
	{"launch", "container", "build", "disk", "extension"},
	{"doctor", "server", "client", "cli", "compose", "config", "registry"},
	{"daemon"},
	{"testkit", "arch"},
}

// layerOf returns the layer of a package by the first element of its path, and
// -1 for programs and tests, which may import all.
func layerOf(path string) int {
	top, _, _ := strings.Cut(short(path), "/")
	for i, l := range layers {
		if slices.Contains(l, top) {
			return i
		}
	}
	return -1
}

func TestEveryPackageHasALayer(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, module+"/internal/") && layerOf(p.ImportPath) < 0 {
			t.Errorf("%s is in no layer: add it to the list in arch_test.go, and to docs/architecture.md", p.short())
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range packages(t) {
		from := layerOf(p.ImportPath)
		if from < 0 {
			continue
		}
		for _, imp := range p.Imports {
			if to := layerOf(imp); own(imp) && to > from {
				t.Errorf("%s imports %s, which is a layer above it: calls go down, facts come up as values on a channel or in a file", p.short(), short(imp))
			}
		}
	}
}

func TestFoldersAreImportedOneWay(t *testing.T) {
	type edge struct{ from, to string }
	seen := map[edge]string{}
	for _, p := range packages(t) {
		from, _, _ := strings.Cut(p.short(), "/")
		for _, imp := range p.Imports {
			if !own(imp) || layerOf(imp) < 0 || layerOf(p.ImportPath) < 0 {
				continue
			}
			to, _, _ := strings.Cut(short(imp), "/")
			if from == to {
				continue
			}
			seen[edge{from, to}] = p.short() + " imports " + short(imp)
			if back, ok := seen[edge{to, from}]; ok {
				t.Errorf("folders %s and %s import each other (%s; %s): one of them holds something that belongs in the other or below both", from, to, seen[edge{from, to}], back)
			}
		}
	}
}

// heavy maps a module to the only folders that may import it.
var heavy = map[string][]string{
	"github.com/vishvananda/netlink":                   {"network/kernel"},
	"github.com/google/nftables":                       {"network/nat"},
	"go.etcd.io/bbolt":                                 {"store", "content"},
	"github.com/containerd/containerd/v2":              {"content", "image", "remote", "build", "cli/buildx"},
	"github.com/moby/buildkit":                         {"build", "cli/buildx"},
	"github.com/moby/swarmkit/v2":                      {"cluster"},
	"github.com/spf13/cobra":                           {"cli"},
	"github.com/docker/cli":                            {"cli"},
	"github.com/moby/moby/client":                      {"cli", "client"},
	"github.com/moby/profiles/seccomp":                 {"seccomp/profile"},
	"github.com/klauspost/compress":                    {"content", "image", "layer", "lazy"},
	"github.com/prometheus/client_golang":              {"daemon"},
	"github.com/containerd/stargz-snapshotter/estargz": {"lazy"},
	"github.com/hanwen/go-fuse/v2":                     {"lazy"},
	"github.com/compose-spec/compose-go/v2":            {"compose"},
}

func TestHeavyModulesHaveOneImporter(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for mod, allowed := range heavy {
				if imp != mod && !strings.HasPrefix(imp, mod+"/") {
					continue
				}
				if strings.HasPrefix(p.ImportPath, module+"/test/") || strings.HasPrefix(p.short(), "testkit") {
					continue
				}
				if !slices.ContainsFunc(allowed, func(a string) bool { return p.short() == a || strings.HasPrefix(p.short(), a+"/") }) {
					t.Errorf("%s imports %s: only %v may, so that it can be replaced in one place and its start-up cost is paid by one program", p.short(), imp, allowed)
				}
			}
		}
	}
}

func TestCommandLineKnowsNoEngine(t *testing.T) {
	for line := range strings.Lines(string(golist(t, "-deps", "./cmd/gantry"))) {
		path := strings.TrimSpace(line)
		if l := layerOf(path); own(path) && l > 1 && !strings.HasPrefix(short(path), "cli") && !strings.HasPrefix(short(path), "client") && short(path) != "cmd/gantry" {
			t.Errorf("gantry links %s: the command line is a client of the API and speaks in wire values", short(path))
		}
	}
}

// shimMay lists what gantry-shim may link besides the standard library: every
// container's supervisor pays for it.
var shimMay = []string{
	"golang.org/x/sys/unix", "github.com/opencontainers/runtime-spec/specs-go", "github.com/opencontainers/runtime-spec/specs-go/features",
	"gantry/cmd/gantry-shim", "gantry/internal/errs", "gantry/internal/durable", "gantry/internal/id", "gantry/internal/version",
	"gantry/internal/cgroup", "gantry/internal/seccomp", "gantry/internal/rootpath", "gantry/internal/overlay", "gantry/internal/ociruntime", "gantry/internal/ociruntime/*",
	"gantry/internal/logs", "gantry/internal/logs/*", "gantry/internal/shim", "gantry/internal/shim/*",
}

func TestShimDependsOnLittle(t *testing.T) {
	sc := bufio.NewScanner(bytes.NewReader(golist(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/gantry-shim")))
	for sc.Scan() {
		path := sc.Text()
		if path == "" || slices.ContainsFunc(shimMay, func(m string) bool {
			return path == m || strings.HasSuffix(m, "/*") && strings.HasPrefix(path, strings.TrimSuffix(m, "*"))
		}) {
			continue
		}
		t.Errorf("gantry-shim links %s: it stays small by a closed list (shimMay in arch_test.go)", path)
	}
	for line := range strings.Lines(string(golist(t, "-deps", "./cmd/gantry-shim"))) {
		if bad := strings.TrimSpace(line); bad == "net/http" || bad == "regexp" || bad == "text/template" {
			t.Errorf("gantry-shim links %s, which costs every container memory", bad)
		}
	}
}

func TestPackagesSayWhatTheyOwn(t *testing.T) {
	docs := map[string]string{}
	for _, f := range files(t) {
		if f.file.Doc != nil {
			docs[f.pkg.ImportPath] = filepath.Base(f.path)
			if want := filepath.Base(f.pkg.Dir) + ".go"; f.pkg.Name != "main" && filepath.Base(f.path) != want {
				t.Errorf("%s: the package comment belongs in %s", f.path, want)
			}
		}
	}
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && docs[p.ImportPath] == "" {
			t.Errorf("%s has no package comment: say what it owns, who calls it and what it must not know", p.short())
		}
	}
}

// Budgets: what is larger is usually two things.
const (
	maxLines    = 500
	maxFuncs    = 80
	maxMethods  = 25
	maxImports  = 12
	wiringLevel = 5 // layer of daemon, exempt from the import budget
)

func TestBudgets(t *testing.T) {
	methods := map[string]int{}
	for _, f := range files(t) {
		if n := f.line(f.file.End()); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: it holds more than one thing", f.path, n, maxLines)
		}
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFuncs {
				t.Errorf("%s:%d: %s has %d lines, more than %d", f.path, f.line(fn.Pos()), fn.Name.Name, n, maxFuncs)
			}
			if fn.Recv != nil {
				methods[f.pkg.short()+"."+receiver(fn)]++
			}
		}
	}
	for typ, n := range methods {
		if n > maxMethods {
			t.Errorf("%s has %d methods, more than %d: it is becoming the object that does everything", typ, n, maxMethods)
		}
	}
	for _, p := range packages(t) {
		n := 0
		for _, imp := range p.Imports {
			if own(imp) {
				n++
			}
		}
		budget := maxImports
		if p.short() == "network" {
			budget += 6 // it is the wiring of its children: a driver or a mechanism each
		}
		if p.short() == "cli" {
			budget += 2 // its children are pure parts of commands, which nobody else uses
		}
		if l := layerOf(p.ImportPath); n > budget && l >= 0 && l < wiringLevel {
			t.Errorf("%s imports %d packages of ours, more than %d", p.short(), n, budget)
		}
	}
}

func receiver(fn *ast.FuncDecl) string {
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

func TestNoHiddenState(t *testing.T) {
	for _, f := range files(t) {
		vars := map[string]bool{}
		for _, d := range f.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s:%d: init(): wiring is explicit here", f.path, f.line(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					for _, s := range d.Specs {
						for _, n := range s.(*ast.ValueSpec).Names {
							vars[n.Name] = true
						}
					}
				}
			}
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			a, ok := n.(*ast.AssignStmt)
			if !ok || a.Tok == token.DEFINE {
				return true
			}
			for _, l := range a.Lhs {
				// The parser resolves names of the same file: an
				// identifier whose declaration is a package
				// variable is one.
				if id, ok := l.(*ast.Ident); ok && vars[id.Name] && id.Obj != nil && id.Obj.Kind == ast.Var {
					if _, top := id.Obj.Decl.(*ast.ValueSpec); top && f.file.Scope.Lookup(id.Name) == id.Obj {
						t.Errorf("%s:%d: package variable %s is changed: every mutable thing has one owner", f.path, f.line(a.Pos()), id.Name)
					}
				}
			}
			return true
		})
	}
}

// backgroundMay lists where a context may begin: programs, wiring and tests.
var backgroundMay = []string{"cmd/", "daemon", "testkit", "test/", "cli"}

func TestContextsBeginInMain(t *testing.T) {
	for _, f := range files(t) {
		if slices.ContainsFunc(backgroundMay, func(m string) bool { return strings.HasPrefix(f.pkg.short(), m) }) {
			continue
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Background" && sel.Sel.Name != "TODO" {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "context" {
				t.Errorf("%s:%d: context.%s: take the caller's, or context.WithoutCancel of it where work must be finished", f.path, f.line(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}
