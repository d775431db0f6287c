// The tests of this folder build with a real daemon: a corpus of Dockerfiles
// whose images are known, the classic API, and builds as people make them.
package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"gantry/internal/testkit"
)

// limit is how long one build of the corpus may take on a busy machine.
const limit = 3 * time.Minute

// TestCorpus builds every Dockerfile of the corpus with BuildKit's client, and
// those that need no session with the classic API too: both must give the image
// that the case describes. GANTRY_UPDATE=1 writes the descriptions anew.
func TestCorpus(t *testing.T) {
	paths, err := filepath.Glob("corpus/*.txtar")
	must(t, err)
	if len(paths) < 60 {
		t.Fatalf("%d cases", len(paths))
	}
	d := testkit.StartBusybox(t)
	rootfs, err := testkit.BusyboxRootfs()
	must(t, err)
	base := digest.FromBytes(rootfs)
	c, err := client.New(context.Background(), "unix://"+d.Socket)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Run("cases", func(t *testing.T) {
		for _, p := range paths {
			tc, err := loadCase(p)
			must(t, err)
			t.Run(tc.name(), func(t *testing.T) {
				t.Parallel()
				runCase(t, d, c, tc, base)
			})
		}
	})
}

func runCase(t *testing.T, d *testkit.Daemon, c *client.Client, tc *testCase, base digest.Digest) {
	tc.serve(t)
	tc.unpack(t, filepath.Join(t.TempDir()))
	tc.repository(t)
	name := "corpus:" + tc.name()
	err := tc.solve(c, name)
	got := tc.outcome(t, d, name, base, err)
	if os.Getenv("GANTRY_UPDATE") != "" {
		tc.update(t, got)
	} else if got != tc.want {
		t.Errorf("BuildKit: got\n%s\nwant\n%s", got, tc.want)
	}
	if !tc.classic() {
		return
	}
	if err != nil {
		if _, err := tc.post(d, name+"-classic"); err == nil {
			t.Error("classic: no error")
		}
		return
	}
	log, err := tc.post(d, name+"-classic")
	if err != nil {
		t.Fatalf("classic: %v\n%s", err, log)
	}
	if same := tc.outcome(t, d, name+"-classic", base, nil); same != got {
		t.Errorf("classic: got\n%s\nwant\n%s", same, got)
	}
}

// classic says whether the case needs nothing that the classic API lacks.
func (c *testCase) classic() bool {
	return c.first("secret") == "" && c.first("ssh") == "" && c.first("named") == "" && c.first("platform") == ""
}

// solve builds with BuildKit's own client, as command lines do.
func (c *testCase) solve(bk *client.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	attrs := map[string]string{"filename": c.file()}
	for k, v := range c.pairs("arg") {
		attrs["build-arg:"+k] = v
	}
	for k, v := range c.pairs("label") {
		attrs["label:"+k] = v
	}
	for _, k := range []string{"target", "platform"} {
		if v := c.first(k); v != "" {
			attrs[k] = v
		}
	}
	mounts := map[string]fsutil.FS{}
	dirs := map[string]string{"context": "ctx", "dockerfile": "ctx"}
	for i, n := range c.directives["named"] {
		local := fmt.Sprintf("named%d", i)
		attrs["context:"+n], dirs[local] = "local:"+local, "named/"+n
	}
	for local, dir := range dirs {
		f, err := fsutil.NewFS(filepath.Join(c.dir, dir))
		if err != nil {
			return err
		}
		// As command lines do: the owner of files here is nobody's business.
		f, err = fsutil.NewFilterFS(f, &fsutil.FilterOpt{Map: func(_ string, s *types.Stat) fsutil.MapResult {
			s.Uid, s.Gid = 0, 0
			return fsutil.MapResultKeep
		}})
		if err != nil {
			return err
		}
		mounts[local] = f
	}
	attachables, end, err := c.attachables()
	if err != nil {
		return err
	}
	defer end()
	_, err = bk.Solve(ctx, nil, client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: attrs, LocalMounts: mounts, Session: attachables, SharedKey: c.name(),
		Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "docker.io/library/" + name}}},
	}, nil)
	return err
}

// attachables are the secrets and the agent of the case.
func (c *testCase) attachables() (list []session.Attachable, end func(), err error) {
	end = func() {}
	if s := c.pairs("secret"); len(s) > 0 {
		m := map[string][]byte{}
		for k, v := range s {
			m[k] = []byte(v)
		}
		list = append(list, secretsprovider.FromMap(m))
	}
	if c.first("ssh") != "" {
		path := filepath.Join(c.dir, "agent.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, nil, err
		}
		end = func() { l.Close() }
		a, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{Paths: []string{path}}})
		if err != nil {
			return nil, end, err
		}
		list = append(list, a)
	}
	return list, end, nil
}

var (
	vertexNoise = regexp.MustCompile(`(ref )?[a-z0-9]{25}::[a-z0-9]{25}|sha256:[0-9a-f]{64}`)
	errorFront  = regexp.MustCompile(`^failed to solve: |^rpc error: code = \w+ desc = `)
)

// outcome is the golden text: the image's picture, or the error.
func (c *testCase) outcome(t *testing.T, d *testkit.Daemon, name string, base digest.Digest, err error) string {
	t.Helper()
	if err != nil {
		text := errorFront.ReplaceAllString(errorFront.ReplaceAllString(err.Error(), ""), "")
		return "error " + vertexNoise.ReplaceAllString(c.hide(text), "ID") + "\n"
	}
	resp, err := d.Client().Get("http://gantry/images/" + name + "/get")
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("save %s: %s: %s", name, resp.Status, text)
	}
	got, err := picture(resp.Body, base)
	if err != nil {
		t.Fatal(err)
	}
	return c.hide(got)
}

// post builds with the classic API and returns what the stream said.
func (c *testCase) post(d *testkit.Daemon, name string) (string, error) {
	q := url.Values{"t": {name}, "dockerfile": {c.file()}, "target": {c.first("target")}}
	for key, directive := range map[string]string{"buildargs": "arg", "labels": "label"} {
		data, err := json.Marshal(c.pairs(directive))
		if err != nil {
			return "", err
		}
		q.Set(key, string(data))
	}
	var body bytes.Buffer
	w := tar.NewWriter(&body)
	if err := errors.Join(w.AddFS(os.DirFS(filepath.Join(c.dir, "ctx"))), w.Close()); err != nil {
		return "", err
	}
	return postBuild(d, q, &body)
}

// postBuild sends a context and returns what is said; the error is the stream's.
func postBuild(d *testkit.Daemon, q url.Values, body io.Reader) (string, error) {
	resp, err := d.Client().Post("http://gantry/build?"+q.Encode(), "application/x-tar", body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return "", fmt.Errorf("%s: %s", resp.Status, text)
	}
	var log strings.Builder
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct{ Stream, Error string }
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return log.String(), nil
		} else if err != nil {
			return log.String(), err
		}
		log.WriteString(m.Stream)
		if m.Error != "" {
			return log.String(), errors.New(m.Error)
		}
	}
}

// serve starts the case's web server, if it has files or a repository.
func (c *testCase) serve(t *testing.T) {
	need := false
	for _, f := range c.archive.Files {
		need = need || strings.HasPrefix(f.Name, "http") || strings.HasPrefix(f.Name, "git/")
	}
	c.web, c.repo = "{{HTTP}}", "{{GIT}}"
	if !need {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(c.dir, "http", filepath.Clean("/"+r.URL.Path)))
	})
	mux.HandleFunc("/repo.git/", c.git)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c.web, c.repo = s.URL, s.URL+"/repo.git"
}

// git answers for the case's repository.
func (c *testCase) git(w http.ResponseWriter, r *http.Request) {
	(&cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(c.dir, "bare"), "GIT_HTTP_EXPORT_ALL=1"}}).ServeHTTP(w, r)
}

// repository makes the case's git repository.
func (c *testCase) repository(t *testing.T) {
	work := filepath.Join(c.dir, "git")
	if _, err := os.Stat(work); err != nil {
		return
	}
	when := stamp.Format(time.RFC3339)
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work}, {"-C", work, "add", "."},
		{"-C", work, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first"},
		{"clone", "-q", "--bare", work, filepath.Join(c.dir, "bare", "repo.git")},
	} {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE="+when, "GIT_COMMITTER_DATE="+when, "GIT_CONFIG_NOSYSTEM=1", "HOME="+c.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
}
