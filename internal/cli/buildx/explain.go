package buildx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"gantry/internal/cli/buildx/solve"
	"gantry/internal/cli/buildx/why"
)

// largeContext is what a build may send, in bytes, before it is told which
// directories of its context are the largest.
const largeContext = 100 << 20

// largestDirs is how many of them are named.
const largestDirs = 10

// notebook takes down what a build does, to explain it and to compare the next
// one with. A build whose context is no directory has nothing to compare.
type notebook struct {
	job   job
	store why.Store
	key   []string
	last  chan *why.Record // of the build before, read while this one runs

	mu    sync.Mutex
	order []string
	steps map[string]*why.Vertex
	files map[string]why.File
	sent  int64
}

// newNotebook returns the notebook of a build.
func newNotebook(j job) *notebook {
	n := &notebook{job: j, steps: map[string]*why.Vertex{}, files: map[string]why.File{}}
	dir, err := filepath.Abs(j.req.Context)
	cache, cerr := os.UserCacheDir()
	if fi, serr := os.Stat(j.req.Context); err == nil && cerr == nil && serr == nil && fi.IsDir() && j.req.Call.Name == "" {
		n.store = why.Store{Dir: filepath.Join(cache, "gantry", "builds")}
		n.key = []string{dir, j.req.Dockerfile, j.req.Target, j.name, strings.Join(j.req.Platforms, ",")}
		n.last = make(chan *why.Record, 1)
		go func() { n.last <- n.store.Load(n.key) }()
	}
	return n
}

// status takes down the steps of a status.
func (n *notebook) status(s *client.SolveStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range s.Vertexes {
		d := v.Digest.String()
		x := n.steps[d]
		if x == nil {
			x = &why.Vertex{Digest: d}
			n.steps[d] = x
			n.order = append(n.order, d)
		}
		x.Name, x.Cached = v.Name, x.Cached || v.Cached
		x.Done = x.Done || v.Completed != nil
		if len(v.Inputs) > 0 {
			x.Inputs = x.Inputs[:0]
			for _, in := range v.Inputs {
				x.Inputs = append(x.Inputs, in.String())
			}
		}
	}
}

// watch is solve.Env's Watch: of the contexts only the main one is taken down.
func (n *notebook) watch(name, _ string) solve.Watcher {
	if name != "context" || n.key == nil {
		return nil
	}
	return n
}

// Seen is solve.Watcher's.
func (n *notebook) Seen(path string, fi fs.FileInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.files[path]
	f.Size, f.MTime, f.Mode = fi.Size(), fi.ModTime().UnixNano(), uint32(fi.Mode())
	n.files[path] = f
}

// Sent is solve.Watcher's.
func (n *notebook) Sent(path string) io.WriteCloser {
	return &summer{n: n, path: path, sum: sha256.New()}
}

// summer is the sum of a file that is sent.
type summer struct {
	n    *notebook
	path string
	sum  hash.Hash
	size int64
}

func (s *summer) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	return s.sum.Write(p)
}

func (s *summer) Close() error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	f := s.n.files[s.path]
	f.Sum = hex.EncodeToString(s.sum.Sum(nil)[:12])
	s.n.files[s.path] = f
	s.n.sent += s.size
	return nil
}

// finish writes the explanation that was asked for, and the record.
func (n *notebook) finish(w io.Writer, mode progressui.DisplayMode, ok bool) {
	if n.key == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := <-n.last
	now := n.record()
	if before != nil {
		why.Carry(before.Files, now.Files)
	}
	loud := mode != progressui.QuietMode && mode != progressui.RawJSONMode
	if n.job.explain {
		explain(w, n.job.name, why.Compare(before, now), now.Steps)
	}
	if n.job.explain || loud && n.sent > largeContext {
		largest(w, n.files, n.sent)
	}
	if ok && (before == nil || !now.Same(*before)) {
		// A record that can't be kept costs the next explanation, not the build.
		_ = n.store.Save(n.key, now)
	}
}

// record is what this build was made of.
func (n *notebook) record() why.Record {
	var list []why.Vertex
	for _, d := range n.order {
		list = append(list, *n.steps[d])
	}
	r := n.job.req
	rec := why.Record{Args: r.Args, Options: options(r), Steps: why.Steps(list), Files: n.files, Source: r.Inline}
	if rec.Source == "" {
		file := r.Dockerfile
		if file == "" {
			file = filepath.Join(r.Context, "Dockerfile")
		}
		if b, err := os.ReadFile(file); err == nil {
			rec.Source = string(b)
		}
	}
	return rec
}

// options are the flags that the results of steps depend on.
func options(r solve.Request) map[string]string {
	out := map[string]string{}
	for k, v := range map[string]string{"--network": r.Network, "--add-host": strings.Join(r.Hosts, " "), "--ulimit": strings.Join(r.Ulimits, " "), "--cgroup-parent": r.CgroupParent} {
		if v != "" && v != "default" {
			out[k] = v
		}
	}
	if r.ShmSize > 0 {
		out["--shm-size"] = units.BytesSize(float64(r.ShmSize))
	}
	if len(r.NoCacheFilter) > 0 {
		out["no-cache"] = strings.Join(r.NoCacheFilter, ",")
	}
	if r.NoCache {
		out["no-cache"] = ""
	}
	return out
}

func explain(w io.Writer, name string, list []why.Reason, steps []why.Step) {
	if name != "" {
		name = " of " + name
	}
	if len(list) == 0 {
		fmt.Fprintf(w, "\nEvery step%s was taken from the cache.\n", name)
		return
	}
	n := 0
	for _, s := range steps {
		if !strings.HasPrefix(strings.ToUpper(s.Text), "FROM ") {
			n++
		}
	}
	fmt.Fprintf(w, "\n%d of %d steps%s ran:\n", len(list), n, name)
	for _, r := range list {
		fmt.Fprintf(w, " - %s\n", r.Step)
		for _, y := range r.Why {
			fmt.Fprintf(w, "     %s\n", y)
		}
	}
}

func largest(w io.Writer, files map[string]why.File, sent int64) {
	dirs := why.Largest(files, largestDirs)
	if len(dirs) == 0 {
		return
	}
	fmt.Fprintf(w, "\nLargest directories of the context (%s sent in this build):\n", units.HumanSize(float64(sent)))
	dirs = slices.DeleteFunc(dirs, func(d why.Dir) bool { return d.Bytes == 0 })
	for _, d := range dirs {
		fmt.Fprintf(w, " %10s  %6d files  %s\n", units.HumanSize(float64(d.Bytes)), d.Files, d.Path)
	}
}
