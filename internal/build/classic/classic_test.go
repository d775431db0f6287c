package classic

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"gantry/internal/wire"
)

func script1(t *testing.T, text string, d dialect) *script {
	t.Helper()
	s, err := parse([]byte(text), d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// graph makes statuses of vertices.
type graph struct {
	t *translator
	n time.Time
}

func (g *graph) vertex(name string, cached, done bool, failed string) {
	g.n = g.n.Add(time.Second)
	start := g.n
	v := &client.Vertex{Digest: digest.FromString(name), Name: name, Started: &start, Cached: cached, Error: failed}
	if done {
		end := g.n
		v.Completed = &end
	}
	g.t.status(&client.SolveStatus{Vertexes: []*client.Vertex{v}})
}

func (g *graph) log(name string, stream int, text string) {
	g.t.status(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: digest.FromString(name), Stream: stream, Data: []byte(text)}}})
}

var hexID = regexp.MustCompile(`[0-9a-f]{12}`)

// names replaces ids by letters in the order of their first appearance.
func names(s string, ids map[string]string) string {
	return hexID.ReplaceAllStringFunc(s, func(id string) string {
		if ids[id] == "" {
			ids[id] = string(rune('A' + len(ids)))
		}
		return ids[id]
	})
}

const recorded = "FROM busybox:latest\nENV A=1\nCOPY f /f\nRUN echo hello && echo err >&2\nCMD [\"cat\",\"/f\"]\n"

const (
	vFrom = "[1/3] FROM docker.io/library/busybox:latest@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	vCopy = "[2/3] COPY f /f"
	vRun  = "[3/3] RUN echo hello && echo err >&2"
)

func TestStreamAsRecorded(t *testing.T) {
	known := newMemory()
	ids := map[string]string{"0123456789ab": "A"}
	var out strings.Builder
	tr := newTranslator(script1(t, recorded, dialect{}), known, func(s string) { out.WriteString(s) })
	g := &graph{t: tr}
	g.vertex("[internal] load build definition from Dockerfile", false, true, "")
	g.vertex(vFrom, true, true, "")
	g.vertex(vCopy, false, false, "")
	g.vertex(vCopy, false, true, "")
	g.vertex(vRun, false, false, "")
	g.log(vRun, 1, "hello\n")
	g.log(vRun, 2, "err\n")
	g.vertex(vRun, false, true, "")
	tr.finish("sha256:fedcba9876543210")
	want := `Step 1/5 : FROM busybox:latest
 ---> A
Step 2/5 : ENV A=1
 ---> Running in B
 ---> Removed intermediate container B
 ---> C
Step 3/5 : COPY f /f
 ---> D
Step 4/5 : RUN echo hello && echo err >&2
 ---> Running in E
hello
` + "\x1b[91merr\n\x1b[0m" + ` ---> Removed intermediate container E
 ---> F
Step 5/5 : CMD ["cat","/f"]
 ---> Running in G
 ---> Removed intermediate container G
 ---> H
`
	if got := names(out.String(), ids); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if ids["fedcba987654"] != "H" {
		t.Errorf("the last step is not the image: %v", ids)
	}
	// Again, from the cache: the same ids.
	out.Reset()
	tr = newTranslator(script1(t, recorded, dialect{}), known, func(s string) { out.WriteString(s) })
	g = &graph{t: tr}
	g.vertex(vRun, true, true, "") // vertices come as they like
	g.vertex(vCopy, true, true, "")
	g.vertex(vFrom, true, true, "")
	tr.finish("sha256:fedcba9876543210")
	want = `Step 1/5 : FROM busybox:latest
 ---> A
Step 2/5 : ENV A=1
 ---> Using cache
 ---> C
Step 3/5 : COPY f /f
 ---> Using cache
 ---> D
Step 4/5 : RUN echo hello && echo err >&2
 ---> Using cache
 ---> F
Step 5/5 : CMD ["cat","/f"]
 ---> Using cache
 ---> H
`
	if got := names(out.String(), ids); got != want {
		t.Errorf("cached: got\n%s\nwant\n%s", got, want)
	}
}

func TestStreamOfStages(t *testing.T) {
	const text = "ARG V=1\nFROM busybox AS a\nRUN one\nFROM busybox AS unused\nRUN false\nFROM a\nCOPY --from=0 /x /y\nWORKDIR /\nWORKDIR /w\n"
	var out strings.Builder
	tr := newTranslator(script1(t, text, dialect{labels: map[string]string{"l": "1"}}), newMemory(), func(s string) { out.WriteString(s) })
	g := &graph{t: tr}
	g.vertex("[a 1/2] FROM docker.io/library/busybox@sha256:0123456789abcdef", true, true, "")
	g.vertex("[a 2/2] RUN one", false, true, "")
	g.vertex("[stage-2 1/3] COPY --from=0 /x /y", false, true, "")
	g.vertex("[stage-2 2/3] WORKDIR /w", false, false, "")
	g.vertex("[stage-2 2/3] WORKDIR /w", false, true, "")
	tr.finish("sha256:fedcba9876543210")
	want := `Step 1/10 : ARG V=1
Step 2/10 : FROM busybox AS a
 ---> A
Step 3/10 : RUN one
 ---> Running in B
 ---> Removed intermediate container B
 ---> C
Step 4/10 : FROM busybox AS unused
 ---> Not needed
Step 5/10 : RUN false
Step 6/10 : FROM a
 ---> C
Step 7/10 : COPY --from=0 /x /y
 ---> D
Step 8/10 : WORKDIR /
 ---> Running in E
 ---> Removed intermediate container E
 ---> F
Step 9/10 : WORKDIR /w
 ---> Running in G
 ---> Removed intermediate container G
 ---> H
Step 10/10 : LABEL l=1
 ---> Running in I
 ---> Removed intermediate container I
 ---> J
`
	if got := names(out.String(), map[string]string{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, dockerfile, vertex, err, want, stream string }{
		{"run", "FROM busybox\nRUN exit 3\n", "[2/2] RUN exit 3", `process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`,
			"The command '/bin/sh -c exit 3' returned a non-zero code: 3", "Step 2/2 : RUN exit 3\n ---> Running in "},
		{"shell", "FROM busybox\nSHELL [\"ash\",\"-e\",\"-c\"]\nRUN exit 3\n", "[2/2] RUN exit 3", `process "ash -e -c exit 3" did not complete successfully: exit code: 3`,
			"The command 'ash -e -c exit 3' returned a non-zero code: 3", "Step 3/3 : RUN exit 3\n"},
		{"exec", "FROM busybox\nRUN [\"false\"]\n", `[2/2] RUN ["false"]`, `process "false" did not complete successfully: exit code: 1`,
			"The command 'false' returned a non-zero code: 1", ""},
		{"copy", "FROM busybox\nCOPY nosuch /x\n", "[2/2] COPY nosuch /x", `failed to calculate checksum of ref a::b: "/nosuch": not found`,
			"COPY failed: file not found in build context or excluded by .dockerignore: stat nosuch: file does not exist", "Step 2/2 : COPY nosuch /x\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			tr := newTranslator(script1(t, c.dockerfile, dialect{}), newMemory(), func(s string) { out.WriteString(s) })
			g := &graph{t: tr}
			g.vertex(c.vertex, false, true, c.err)
			f := failure(errors.New("failed to solve: "+c.err), tr.stop())
			if f.Message != c.want || !strings.Contains(out.String(), c.stream) {
				t.Errorf("%q, want %q; stream\n%s", f.Message, c.want, out.String())
			}
		})
	}
	f := failure(errors.New(`failed to solve: 127.0.0.1:1/x:y: failed to resolve source metadata for 127.0.0.1:1/x:y: failed to do request: failed to resolve reference "127.0.0.1:1/x:y": no`), nil)
	if f.Message != `failed to resolve reference "127.0.0.1:1/x:y": no` {
		t.Errorf("registry: %q", f.Message)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "the Dockerfile (D) cannot be empty",
		"# x\n":                    "failed to parse Dockerfile: file with no instructions",
		"RUN true\n":               "no build stage in current context",
		"FROM busybox\nBOGUS x\n":  "dockerfile parse error on line 2: unknown instruction: BOGUS",
		"FROM busybox\nEXPOSE\n":   "dockerfile parse error on line 2: EXPOSE requires at least one argument",
		"FROM busybox AS a\nRUN x": `target stage "b" could not be found`,
	} {
		_, err := parse([]byte(text), dialect{file: "D", target: "b"})
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	x := "1"
	s := script1(t, "FROM busybox\nARG X\n", dialect{args: map[string]*string{"X": &x, "UNUSED": &x, "http_proxy": &x}})
	if strings.Join(s.ignore, ",") != "UNUSED" {
		t.Errorf("not consumed: %v", s.ignore)
	}
}

func tarOf(t *testing.T, list ...tar.Header) *tarFS {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range list {
		data := ""
		if h.Typeflag == tar.TypeReg {
			data = h.PAXRecords["GANTRY.data"]
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := spool(context.Background(), &buf, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.close() })
	return f
}

func file(name, data string) tar.Header {
	return tar.Header{Name: name, Mode: 0o640, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GANTRY.data": data}}
}

func link(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}

// A context's names and links lead nowhere but into the context.
func TestContextStaysInside(t *testing.T) {
	f := tarOf(t, file("../../etc/passwd", "mine"), file("/abs", "abs"), link("up", "../../../../etc/passwd"), link("root", "/etc"), link("loop", "loop"),
		tar.Header{Name: "hard", Linkname: "../abs", Typeflag: tar.TypeLink}, tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1})
	for name, want := range map[string]string{"etc/passwd": "mine", "up": "mine", "root/passwd": "mine", "hard": "abs", "../abs": "abs"} {
		if got, err := f.file(name, 100); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"loop", "dev", "nosuch", "etc"} {
		if _, err := f.file(name, 100); err == nil {
			t.Errorf("%s can be read", name)
		}
	}
	var walked []string
	err := f.Walk(context.Background(), "", func(p string, e fs.DirEntry, err error) error {
		if err == nil {
			_, err = e.Info()
		}
		walked = append(walked, p)
		return err
	})
	if got := strings.Join(walked, " "); err != nil || got != "abs etc etc/passwd hard loop root up" {
		t.Errorf("walk: %q, %v", got, err)
	}
}

// The copy that the builder keeps is used again only where equal stamps mean
// equal contents.
func TestContextKeys(t *testing.T) {
	var k keys
	a := k.key(tarOf(t, file("x", "1"), file("y", "1")))
	if got := k.key(tarOf(t, file("x", "1"), file("y", "1"))); got != a {
		t.Error("the same context has another key")
	}
	if got := k.key(tarOf(t, file("x", "1"), file("y", "longer"))); got != a {
		t.Error("a change that the transfer sees makes another key")
	}
	b := k.key(tarOf(t, file("x", "2"), file("y", "1")))
	if b == a {
		t.Error("a change that the transfer can't see keeps the key")
	}
	if got := k.key(tarOf(t, file("x", "2"), file("y", "1"))); got != b {
		t.Error("the changed context has a third key")
	}
	if got := k.key(tarOf(t, file("z", "2"))); got == a || got == b {
		t.Error("another context has the same key")
	}
}

func TestAttrs(t *testing.T) {
	v := "v"
	got, err := attrs(&wire.BuildRequest{
		Dockerfile: "D", Target: "t", Platform: "linux/arm64", Args: map[string]*string{"A": &v, "N": nil}, Labels: map[string]string{"l": "1"},
		CacheFrom: []string{"a", "b"}, ExtraHosts: []string{"h:1.2.3.4", "six=[::1]"}, Network: "host", NoCache: true, Pull: true, Memory: 9, ShmSize: 7,
		Ulimits: []wire.BuildUlimit{{Name: "nofile", Soft: 1, Hard: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"filename": "D", "target": "t", "platform": "linux/arm64", "build-arg:A": "v", "label:l": "1", "cache-from": "a,b", "add-hosts": "h=1.2.3.4,six=::1",
		"force-network-mode": "host", "no-cache": "", "image-resolve-mode": "pull", "memory": "9", "shm-size": "7", "ulimit": "nofile=1:2",
	} {
		if have, ok := got[key]; !ok || have != want {
			t.Errorf("%s: %q, want %q", key, have, want)
		}
	}
	if _, ok := got["build-arg:N"]; ok {
		t.Error("an argument without a value is passed on")
	}
	if _, err := attrs(&wire.BuildRequest{Network: "mine", BuildKit: true}); err == nil || err.Error() != `network mode "mine" not supported by buildkit` {
		t.Errorf("network: %v", err)
	}
}

func TestStreamOfTriggers(t *testing.T) {
	ids := map[string]string{"0123456789ab": "A"}
	var out strings.Builder
	tr := newTranslator(script1(t, "FROM base\nRUN own\nCMD x\n", dialect{}), newMemory(), func(s string) { out.WriteString(s) })
	tr.triggers = func(id string) []string {
		if !strings.HasPrefix(id, "sha256:0123456789ab") {
			t.Errorf("asked for %s", id)
		}
		return []string{"ENV A=1", "RUN first"}
	}
	g := &graph{t: tr}
	from, trigger, own := "[1/3] FROM docker.io/library/base@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "[2/3] ONBUILD RUN first", "[3/3] RUN own"
	// All of a graph comes at once, the last first.
	var all []*client.Vertex
	for _, name := range []string{own, trigger, from} {
		all = append(all, &client.Vertex{Digest: digest.FromString(name), Name: name})
	}
	tr.status(&client.SolveStatus{Vertexes: all})
	g.vertex(from, true, true, "")
	g.vertex(trigger, false, false, "")
	g.log(trigger, 1, "triggered\n")
	g.vertex(trigger, false, true, "")
	g.vertex(own, false, false, "")
	g.log(own, 1, "mine\n")
	g.vertex(own, false, true, "")
	tr.finish("sha256:fedcba9876543210")
	want := `Step 1/3 : FROM base
# Executing 2 build triggers
 ---> Running in B
 ---> Removed intermediate container B
 ---> Running in C
triggered
 ---> Removed intermediate container C
 ---> D
Step 2/3 : RUN own
 ---> Running in E
mine
 ---> Removed intermediate container E
 ---> F
Step 3/3 : CMD x
 ---> Running in G
 ---> Removed intermediate container G
 ---> H
`
	if got := names(out.String(), ids); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Of a stage: known from the start.
	s := script1(t, "FROM x AS a\nONBUILD RUN one\nFROM a\nRUN two\n", dialect{})
	var list []string
	for _, st := range s.steps {
		list = append(list, st.text)
	}
	if got := strings.Join(list, "|"); got != "FROM x AS a|ONBUILD RUN one|FROM a|RUN one|RUN two" {
		t.Errorf("steps: %s", got)
	}
	if s.steps[3].nth != 1 || !s.steps[3].trigger || s.steps[4].nth != 2 || s.steps[2].triggers != 1 {
		t.Errorf("steps: %+v", s.steps)
	}
}
