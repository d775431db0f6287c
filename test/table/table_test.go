package table

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// done are the groups of the API and of commands in which nothing may be "not
// yet", and of which everything must be used by a test.
var done = []string{"container", "exec", "system"}

// doneCommands are the commands of those groups.
var doneCommands = []string{
	"attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls", "pause", "port", "prune", "rename", "restart", "rm", "run", "start", "stats",
	"stop", "top", "unpause", "update", "wait", "ps",
}

func TestTable(t *testing.T) {
	endpoints, commands := Endpoints(read(t, "testdata/api.tsv")), Commands(read(t, "testdata/cli.tsv"))
	found, err := Read("../..", []string{"test", "internal"}, commands, endpoints)
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := os.ReadFile("../../docs/parity.md")
	m := &maker{t: t, d: testkit.StartDaemon(t), found: found, before: evidenceOf(string(doc))}
	var sections []Section
	for _, group := range groupsOf(endpoints) {
		s := Section{Title: "Endpoints: " + group}
		for _, e := range endpoints {
			if e.Group == group {
				s.Rows = append(s.Rows, m.endpoint(e))
			}
		}
		sections = append(sections, s)
	}
	for _, c := range commands {
		if len(c.Flags) == 0 && c.Group {
			continue
		}
		sections = append(sections, m.command(c))
	}
	want := Render(sections)
	if os.Getenv("GANTRY_UPDATE") != "" {
		if err := os.WriteFile("../../docs/parity.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(doc) {
		t.Error("docs/parity.md is out of date: make it anew with GANTRY_UPDATE=1 go test ./test/table")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func groupsOf(all []Endpoint) []string {
	var names []string
	for _, e := range all {
		if !slices.Contains(names, e.Group) {
			names = append(names, e.Group)
		}
	}
	return names
}

// evidenceOf reads which test the document names, so that a row changes only if
// its test has gone.
func evidenceOf(doc string) map[string]string {
	at, all := "", map[string]string{}
	for line := range strings.Lines(doc) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			at = strings.TrimSpace(title)
		}
		if f := strings.Split(line, "|"); len(f) == 5 {
			all[at+" "+strings.Trim(f[1], " `")] = strings.Trim(f[3], " `\n")
		}
	}
	return all
}

type maker struct {
	t      *testing.T
	d      *testkit.Daemon
	found  Evidence
	before map[string]string
}

// row makes a row of something that works, with the test that says so.
func (m *maker) row(title, name, what string, must bool) Row {
	files := m.found[what]
	if len(files) == 0 {
		files = m.twins(what)
	}
	if len(files) == 0 {
		if must {
			m.t.Errorf("%s: no test uses it", what)
		}
		return Row{Name: name, Status: Works, Why: "no test of its own"}
	}
	file := files[0]
	if old := m.before[title+" "+name]; slices.Contains(files, old) {
		file = old
	}
	return Row{Name: name, Status: Works, Why: file}
}

// twins finds the tests of what is the same command by another name: "docker
// container stop" and "docker stop"; create parses its flags as run does.
func (m *maker) twins(what string) []string {
	command, flag, _ := strings.Cut(what, " -")
	words := strings.Fields(command)
	if len(words) < 2 {
		return nil
	}
	verb := words[len(words)-1]
	names := []string{"docker " + verb, "docker container " + verb, "docker image " + verb, "docker system " + verb}
	for _, same := range [][]string{
		{"docker container ls", "docker ps"}, {"docker image ls", "docker images"}, {"docker image rm", "docker rmi"},
		{"docker run", "docker create", "docker container run", "docker container create"},
	} {
		if slices.Contains(same, command) {
			names = append(same, names...)
		}
	}
	if len(words) > 2 && !slices.Contains([]string{"container", "image", "system"}, words[1]) {
		return nil
	}
	for _, n := range names {
		if flag != "" {
			n += " -" + flag
		}
		if files := m.found[n]; len(files) > 0 {
			return files
		}
	}
	return nil
}

// harmless: endpoints that would ask a registry are asked what they refuse before.
var harmless = map[string]string{
	"GET /images/search": "/images/search?limit=1000", "POST /images/create": "/images/create?fromImage=UPPER", "POST /auth": "/auth?x",
	"GET /distribution/{name}/json": "/distribution/UPPER/json", "POST /images/{name}/push": "/images/UPPER/push",
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// endpoint asks the daemon.
func (m *maker) endpoint(e Endpoint) Row {
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Second)
	defer cancel()
	path := placeholder.ReplaceAllString(e.Path, "nosuch")
	if p, ok := harmless[e.Name()]; ok {
		path = p
	}
	req, err := http.NewRequestWithContext(ctx, e.Method, "http://gantry"+path, strings.NewReader("{"))
	if err != nil {
		m.t.Fatal(err)
	}
	must := slices.Contains(done, e.Group)
	if resp, err := m.d.Client().Do(req); err == nil {
		var text bytes.Buffer
		if resp.StatusCode == http.StatusNotImplemented {
			text.ReadFrom(resp.Body)
		}
		resp.Body.Close()
		if strings.Contains(text.String(), "not supported by this version") {
			if must {
				m.t.Errorf("%s: not yet", e.Name())
			}
			return Row{Name: e.Name(), Status: NotYet}
		}
	}
	if i := slices.IndexFunc(refused, func(r refusal) bool { return r.what == e.Name() }); i >= 0 {
		return Row{Name: e.Name(), Status: Refused, Why: refused[i].why}
	}
	return m.row("Endpoints: "+e.Group, e.Name(), e.Name(), must)
}

// command asks the command line.
func (m *maker) command(c *Command) Section {
	s := Section{Title: strings.Join(c.Names, ", ")}
	words := strings.Fields(c.Path)[1:]
	must := mustWork(c)
	if !c.Group {
		if strings.Contains(m.run(append(words, "--help")...), "unknown command") {
			if must {
				m.t.Errorf("%s: not yet", c.Path)
			}
			s.Rows = append(s.Rows, Row{Name: c.Path, Status: NotYet})
			for _, f := range c.Flags {
				s.Rows = append(s.Rows, Row{Name: f.Name, Status: NotYet})
			}
			return s
		}
		s.Rows = append(s.Rows, m.row(s.Title, c.Path, c.Path, must))
	}
	for _, f := range c.Flags {
		what := c.Path + " " + f.Name
		i := slices.IndexFunc(refused, func(r refusal) bool {
			return r.what == what || slices.ContainsFunc(c.Names, func(n string) bool { return r.what == n+" "+f.Name })
		})
		switch {
		case i >= 0:
			s.Rows = append(s.Rows, Row{Name: f.Name, Status: Refused, Why: refused[i].why})
		case strings.Contains(m.run(append(words, f.Name)...), "unknown flag"):
			if must {
				m.t.Errorf("%s: not yet", what)
			}
			s.Rows = append(s.Rows, Row{Name: f.Name, Status: NotYet})
		default:
			s.Rows = append(s.Rows, m.row(s.Title, f.Name, what, must))
		}
	}
	return s
}

// mustWork reports whether a command is of a group that is done.
func mustWork(c *Command) bool {
	words := strings.Fields(c.Path)
	if len(words) < 2 || c.Group {
		return false
	}
	switch words[1] {
	case "container", "system", "context", "checkpoint":
		return true
	}
	return len(words) == 2 && slices.Contains(doneCommands, words[1])
}

// run runs gantry without a daemon and returns what it says.
func (m *maker) run(args ...string) string {
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testkit.Bin(m.t, "gantry"), args...)
	dir := m.t.TempDir()
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "DOCKER_HOST=unix:///nonexistent", "GANTRY_HOST=", "DOCKER_CONFIG="+dir, "HOME="+dir)
	out, _ := cmd.CombinedOutput()
	return fmt.Sprintf("%.400s", out)
}
