package clients

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"gantry/internal/testkit"
)

// buildkit returns BuildKit's client of a daemon, over its socket.
func buildkit(t *testing.T, d *testkit.Daemon) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), "unix://"+d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// solve builds the Dockerfile with the files of a context, and returns what the
// steps have said.
func solve(t *testing.T, c *client.Client, files map[string]string, change func(*client.SolveOpt)) (*client.SolveResponse, string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	local, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "Dockerfile"},
		LocalMounts: map[string]fsutil.FS{"context": local, "dockerfile": local},
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	status := make(chan *client.SolveStatus)
	said := make(chan string, 1)
	go func() {
		var b strings.Builder
		for s := range status {
			for _, v := range s.Vertexes {
				if v.Completed != nil && v.Started != nil && os.Getenv("GANTRY_VERTEX") != "" {
					t.Logf("%8s %v cached=%v %s", v.Completed.Sub(*v.Started).Round(time.Millisecond/10), v.Started.Format("05.000"), v.Cached, v.Name)
				}
			}
			for _, l := range s.Logs {
				b.Write(l.Data)
			}
		}
		said <- b.String()
	}()
	r, err := c.Solve(ctx, nil, o, status)
	return r, <-said, err
}

// toImage exports to an image of the daemon.
func toImage(name string) func(*client.SolveOpt) {
	return func(o *client.SolveOpt) {
		o.Exports = []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": name}}}
	}
}

func TestBuildKitBuildsAnImage(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := buildkit(t, d)
	files := map[string]string{
		"Dockerfile": "FROM busybox\nWORKDIR /app\nCOPY f .\nRUN cat f > g && id -u >> g && echo out && echo err >&2\nENV A=b\nCMD [\"cat\",\"/app/g\"]\n",
		"f":          "hello\n",
	}
	for range 2 {
		began := time.Now()
		r, said, err := solve(t, c, files, toImage("docker.io/library/built:1"))
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, said, d.Log())
		}
		t.Log(time.Since(began), r.ExporterResponse, said)
	}
	if got := d.OK(t, "run", "--rm", "built:1"); got != "hello\n0" && got != "hello\n0\n" {
		t.Errorf("the image says %q", got)
	}
}
