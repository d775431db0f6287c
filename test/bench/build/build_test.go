package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// What is promised, in docs/spec.md.
const (
	maxCold    = 0.4 // ours over docker.io's
	maxNothing = 0.5 // ours over docker.io's
	maxContext = 0.3 // seconds
)

const (
	steps = 20     // of a build
	files = 10_000 // of a context
	big   = 64     // MB that a step writes
)

// Who does it.
const (
	ours    = "gantry"
	classic = "docker.io 20.10"
	theirs  = "its BuildKit"
)

var everyone = [...]string{ours, classic, theirs}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// A bench is everything that runs.
type bench struct {
	*testing.T
	dir   string
	d     *testkit.Daemon
	peer  *testkit.Peer
	times map[string]map[string][]float64
}

func TestFigures(t *testing.T) {
	if os.Getenv("GANTRY_FIGURES") == "" {
		t.Skip("asked for by GANTRY_FIGURES=1")
	}
	b := &bench{T: t, dir: t.TempDir(), times: map[string]map[string][]float64{}}
	b.peer = testkit.StartPeer(t)
	b.d = testkit.StartBusybox(t)
	archive := filepath.Join(b.dir, "busybox.tar")
	var image bytes.Buffer
	b.must(testkit.Busybox(&image, "busybox:latest"))
	b.must(os.WriteFile(archive, image.Bytes(), 0o600))
	b.must(command(nil, b.peer.CLI, "-H", "unix://"+b.peer.Socket, "load", "-q", "-i", archive))
	many := b.context(map[string]string{"Dockerfile": "FROM busybox\nCOPY . /context/\n"})
	for i := range files {
		at := filepath.Join(many, "tree", fmt.Sprint(i%100), fmt.Sprintf("file%d", i))
		b.must(os.MkdirAll(filepath.Dir(at), 0o755))
		b.must(os.WriteFile(at, fmt.Appendf(nil, "file %d\n", i), 0o644))
	}
	for _, who := range everyone {
		b.must(b.build(who, many, "many"))  // the first time
		b.must(b.build(who, b.run(0), "x")) // and what only the first build costs
	}
	for round := range number("GANTRY_FIGURES_ROUNDS", 5) {
		for _, who := range everyone {
			unix.Sync()
			dir := b.run(round + 1)
			b.time("cold", who, func() error { return b.build(who, dir, "cold") })
			b.time("nothing", who, func() error { return b.build(who, dir, "cold") })
			b.time("context", who, func() error { return b.build(who, many, "many") })
		}
		b.export(round)
	}
	b.changed()
	b.report()
}

// run returns a context with a Dockerfile of steps that nobody has built.
func (b *bench) run(round int) string {
	text := "FROM busybox\n"
	for i := range steps {
		text += fmt.Sprintf("RUN echo %d of round %d >/file%d\n", i, round, i)
	}
	return b.context(map[string]string{"Dockerfile": text})
}

func (b *bench) context(files map[string]string) string {
	dir, err := os.MkdirTemp(b.dir, "context")
	b.must(err)
	for name, text := range files {
		b.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

func (b *bench) build(who, dir, tag string) error {
	switch who {
	case ours:
		_, err := b.d.Gantry("build", "--progress=plain", "-t", tag, dir)
		return err
	case theirs:
		return command([]string{"DOCKER_BUILDKIT=1"}, b.peer.CLI, "-H", "unix://"+b.peer.Socket, "build", "--progress=plain", "-t", tag, dir)
	}
	return command([]string{"DOCKER_BUILDKIT=0"}, b.peer.CLI, "-H", "unix://"+b.peer.Socket, "build", "-t", tag, dir)
}

// A status is what is needed of a line of --progress=rawjson.
type status struct {
	Vertexes []struct {
		Digest, Name, Error string
		Started, Completed  *time.Time
		Cached              bool
	}
}

// A step is what a build has told of one of its steps.
type step struct {
	name   string
	took   time.Duration
	cached bool
}

// watch builds with Gantry and returns the steps by the order they were told.
func (b *bench) watch(dir, tag string) []step {
	b.Helper()
	cmd := exec.Command(b.d.Program("gantry"), "build", "--progress=rawjson", "-t", tag, dir)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+b.d.Socket)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		b.Fatalf("build: %v\n%s", err, said.String())
	}
	var order []string
	all := map[string]step{}
	for dec := json.NewDecoder(&said); ; {
		var s status
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.Fatalf("progress: %v", err)
		}
		for _, v := range s.Vertexes {
			if _, ok := all[v.Digest]; !ok {
				order = append(order, v.Digest)
			}
			one := step{name: v.Name, cached: v.Cached}
			if v.Started != nil && v.Completed != nil {
				one.took = v.Completed.Sub(*v.Started)
			}
			all[v.Digest] = one
		}
	}
	var list []step
	for _, d := range order {
		list = append(list, all[d])
	}
	return list
}

// export measures what it costs that a build's result becomes an image: of small
// layers, and of a large one, whose files must not be copied.
func (b *bench) export(round int) {
	b.Helper()
	exporting := func(list []step) float64 {
		for _, s := range list {
			if s.name == "exporting to image" {
				return s.took.Seconds()
			}
		}
		b.Fatal("no step is the export")
		return 0
	}
	note := func(what string, n float64) {
		if b.times[what] == nil {
			b.times[what] = map[string][]float64{}
		}
		b.times[what][ours] = append(b.times[what][ours], n)
	}
	note("export", exporting(b.watch(b.run(-1-round), "export")))
	before := b.disk("snapshots")
	large := b.context(map[string]string{"Dockerfile": fmt.Sprintf("FROM busybox\nRUN dd if=/dev/urandom of=/%d bs=1M count=%d\n", round, big)})
	note("export of 64 MB", exporting(b.watch(large, "large")))
	unix.Sync()
	if grown := b.disk("snapshots") - before; grown > big<<20*5/4 {
		b.Errorf("a layer of %d MB takes %d MB of unpacked layers: it was copied", big, grown>>20)
	}
}

// disk returns the bytes that files below the daemon's data root occupy.
func (b *bench) disk(sub string) (sum int64) {
	b.must(filepath.WalkDir(filepath.Join(b.d.Root, sub), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			sum += fi.Size()
		}
		return nil
	}))
	return sum
}

// changed checks that a change in the middle leaves what is before it cached.
func (b *bench) changed() {
	b.Helper()
	const at = 12
	dir := b.run(-1000)
	b.watch(dir, "changed")
	text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	b.must(err)
	old := fmt.Sprintf("RUN echo %d of", at)
	b.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), bytes.Replace(text, []byte(old), []byte(old+" another"), 1), 0o644))
	built, n := []int{}, 0
	for _, s := range b.watch(dir, "changed") {
		if !strings.Contains(s.name, "RUN echo") {
			continue
		}
		var i int
		_, _ = fmt.Sscanf(s.name[strings.Index(s.name, "RUN echo"):], "RUN echo %d", &i)
		if n++; !s.cached {
			built = append(built, i)
		}
	}
	slices.Sort(built)
	want := []int{}
	for i := at; i < steps; i++ {
		want = append(want, i)
	}
	if n != steps || !slices.Equal(built, want) {
		b.Errorf("of %d steps these were built after a change of %d: %v", n, at, built)
	}
}

func (b *bench) time(what, who string, do func() error) {
	b.Helper()
	began := time.Now()
	if err := do(); err != nil {
		b.Fatalf("%s %s: %v", who, what, err)
	}
	if b.times[what] == nil {
		b.times[what] = map[string][]float64{}
	}
	b.times[what][who] = append(b.times[what][who], time.Since(began).Seconds())
}

// report compares the medians.
func (b *bench) report() {
	median := func(what, who string) float64 {
		t := slices.Sorted(slices.Values(b.times[what][who]))
		return t[len(t)/2]
	}
	for _, what := range []string{"cold", "nothing", "context", "export", "export of 64 MB"} {
		for _, who := range everyone {
			if t := b.times[what][who]; len(t) > 0 {
				b.Logf("%-16s %-16s least %6.3f s, median %6.3f s", what, who, slices.Min(t), median(what, who))
			}
		}
	}
	for what, bound := range map[string]float64{"cold": maxCold, "nothing": maxNothing} {
		for _, who := range []string{classic, theirs} {
			got := median(what, ours) / median(what, who)
			b.Logf("%s over that of %s: %.2f (promised beside docker.io: %.1f)", what, who, got, bound)
			if who == classic && got > bound {
				b.Errorf("the promise for %s is broken", what)
			}
		}
	}
	if got := median("context", ours); got > maxContext {
		b.Errorf("a context of %d files sent again: %.2f s, promised %.1f s", files, got, maxContext)
	}
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
