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

// contextOf is a context with files.
func contextOf(t *testing.T, files map[string]string) map[string]fsutil.FS {
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
	return map[string]fsutil.FS{"context": local, "dockerfile": local}
}

// solve builds the Dockerfile with the files of a context, and returns what the
// steps have said.
func solve(t *testing.T, c *client.Client, files map[string]string, change func(*client.SolveOpt)) (*client.SolveResponse, string, error) {
	t.Helper()
	o := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "Dockerfile"},
		LocalMounts: contextOf(t, files),
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

// layers counts the unpacked layers of a daemon.
func layers(t *testing.T, d *testkit.Daemon) int {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(d.Root, "snapshots", "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestBuildKitBuildsAnImage(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := buildkit(t, d)
	files := map[string]string{
		"Dockerfile": "FROM busybox\nWORKDIR /app\nCOPY f .\nRUN cat f > g && id -u >> g && echo out && echo err >&2\nRUN true\nENV A=b\nCMD [\"sh\",\"-c\",\"cat g; ls /etc/hosts; echo $A\"]\n",
		"f":          "hello\n",
	}
	first := ""
	for i := range 2 {
		r, said, err := solve(t, c, files, toImage("docker.io/library/built:1"))
		if err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		if want := i == 0; strings.Contains(said, "out\n") != want || strings.Contains(said, "err\n") != want {
			t.Errorf("build %d said %q", i, said)
		}
		digest := r.ExporterResponse["containerimage.digest"]
		if i == 0 {
			first = digest
		} else if digest != first {
			t.Errorf("the second build made %s, the first %s", digest, first)
		}
	}
	before := layers(t, d)
	if got := d.OK(t, "run", "--rm", "built:1"); strings.TrimSpace(got) != "hello\n0\n/etc/hosts\nb" {
		t.Errorf("the image says %q", got)
	}
	if after := layers(t, d); after != before {
		t.Errorf("a run of what was built unpacked %d layers", after-before)
	}
	if out, err := d.Gantry("image", "verify", "built:1"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// A step that does nothing makes no files: its tar is the empty one.
	if out := d.OK(t, "image", "inspect", "-f", "{{.RootFS.Layers}}", "built:1"); !strings.Contains(out, "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef") {
		t.Error(out)
	}
	// Its books survive the daemon, whether it ends or is killed.
	d.Kill()
	d.Start(t)
	if _, said, err := solve(t, buildkit(t, d), files, toImage("docker.io/library/built:2")); err != nil || strings.Contains(said, "out\n") {
		t.Errorf("after a restart: %v, said %q", err, said)
	}
	d.OK(t, "rmi", "built:1", "built:2")
	if _, said, err := solve(t, buildkit(t, d), files, toImage("docker.io/library/built:3")); err != nil || strings.Contains(said, "out\n") {
		t.Errorf("after the image was removed: %v, said %q", err, said)
	}
	if got := d.OK(t, "run", "--rm", "built:3", "cat", "/app/f"); strings.TrimSpace(got) != "hello" {
		t.Errorf("the image says %q", got)
	}
}

func TestBuildStepsAreConfined(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := buildkit(t, d)
	_, said, err := solve(t, c, map[string]string{"Dockerfile": `FROM busybox
RUN grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status; hostname; cat /proc/sys/kernel/hostname >/dev/null && echo x 2>&1 >/proc/sys/kernel/hostname || echo masked; ls /sys/class/net | tr '\n' ' '; grep -c . /etc/hosts
RUN --network=none ls /sys/class/net | sed s/^/none-/
RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && ! dd if=/dev/zero of=/t/y bs=1M count=2 2>/dev/null && echo small
RUN --mount=type=cache,target=/c echo kept >> /c/f
RUN --mount=type=cache,target=/c cat /c/f && touch new
RUN --mount=type=bind,target=/src,rw echo w > /src/w && cat /src/Dockerfile | head -1
RUN ls -d /c /t /src 2>&1 | grep -c No; test ! -e /.dockerenv && echo unmarked
`}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{"CapEff:\t00000000a80425fb", "Seccomp:\t2", "buildkitsandbox", "masked", "eth0 lo", "none-lo", "small", "kept", "FROM busybox", "3\nunmarked"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
	if strings.Contains(said, "none-eth0") {
		t.Errorf("a step without network has one:\n%s", said)
	}
	for _, step := range []string{"--network=host", "--security=insecure"} {
		if _, said, err := solve(t, c, map[string]string{"Dockerfile": "FROM busybox\nRUN " + step + " id\n"}, nil); err == nil || !strings.Contains(err.Error(), "is not allowed") {
			t.Errorf("%s: %v %s", step, err, said)
		}
	}
	_, _, err = solve(t, c, map[string]string{"Dockerfile": "FROM busybox\nRUN exit 3\n"}, nil)
	if want := `process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a failing step: %v", err)
	}
}

func TestBuildIsCancelled(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := buildkit(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	status := make(chan *client.SolveStatus)
	go func() {
		for s := range status {
			for _, l := range s.Logs {
				if strings.Contains(string(l.Data), "begun") {
					cancel()
				}
			}
		}
	}()
	_, err := c.Solve(ctx, nil, client.SolveOpt{
		Frontend: "dockerfile.v0", LocalMounts: contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"}),
	}, status)
	if err == nil {
		t.Fatal("it was not cancelled")
	}
	// Nothing of the step stays: the test's end looks for it. The daemon goes on.
	for range 100 {
		if es, err := os.ReadDir(filepath.Join(d.Root, "containers")); err == nil && len(es) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, said, err := solve(t, c, map[string]string{"Dockerfile": "FROM busybox\nRUN true\n"}, nil); err != nil {
		t.Errorf("%v %s", err, said)
	}
}
