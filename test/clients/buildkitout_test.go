package clients

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// small is an image without programs.
func small() registry.Image {
	return registry.Image{Layers: [][]byte{testkit.Layer(testkit.File{Name: "base", Data: []byte("base\n"), Mode: 0o644})}}
}

func TestBuildsWithRegistries(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := buildkit(t, d)
	reg := registry.New(t, registry.Options{Auth: registry.Token, User: "user", Password: "secret"})
	reg.Put("team/base", "1", small())
	known := configfile.New("")
	known.AuthConfigs[reg.Host] = types.AuthConfig{ServerAddress: reg.Host, Username: "user", Password: "secret"}
	files := map[string]string{"Dockerfile": "FROM " + reg.Host + "/team/base:1 AS base\nFROM busybox\nCOPY --from=base /base /b\nRUN cat /b > /c\n"}
	name := reg.Host + "/team/made:1"
	push := func(o *client.SolveOpt) {
		o.Session = []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(known)})}
		o.Exports = []client.ExportEntry{{Type: "image", Attrs: map[string]string{"name": name, "push": "true"}}}
		o.CacheExports = []client.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": reg.Host + "/team/cache:1", "mode": "max"}}}
		o.CacheImports = []client.CacheOptionsEntry{{Type: "registry", Attrs: map[string]string{"ref": reg.Host + "/team/cache:1"}}}
	}
	if _, said, err := solve(t, c, files, func(o *client.SolveOpt) { push(o); o.Session, o.CacheImports = nil, nil }); err == nil {
		t.Errorf("without credentials: %s", said)
	}
	r, said, err := solve(t, c, files, push)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if got := d.OK(t, "run", "--rm", name, "cat", "/c"); strings.TrimSpace(got) != "base" {
		t.Errorf("the image says %q", got)
	}
	if _, _, ok := reg.Manifest("team/made", r.ExporterResponse["containerimage.digest"]); !ok {
		t.Errorf("%v was not pushed", r.ExporterResponse)
	}
	// Another daemon has nothing but the registry's cache.
	other := testkit.StartBusybox(t, "--bridge", "none")
	_, said, err = solve(t, buildkit(t, other), map[string]string{"Dockerfile": files["Dockerfile"] + "RUN --network=none echo next\n"}, func(o *client.SolveOpt) {
		push(o)
		o.Exports = toImageEntry("docker.io/library/there:1")
		o.CacheExports = nil
	})
	if err != nil || said != "next\n" {
		t.Errorf("from the registry's cache: %v, said %q", err, said)
	}
	if got := other.OK(t, "run", "--rm", "--network", "none", "there:1", "cat", "/c"); strings.TrimSpace(got) != "base" {
		t.Errorf("the other image says %q", got)
	}
}

func toImageEntry(name string) []client.ExportEntry {
	var o client.SolveOpt
	toImage(name)(&o)
	return o.Exports
}

type closing struct{ *bytes.Buffer }

func (closing) Close() error { return nil }

func TestBuildOutputs(t *testing.T) {
	d := testkit.StartBusybox(t, "--bridge", "none")
	c := buildkit(t, d)
	files := map[string]string{"Dockerfile": "FROM busybox AS b\nRUN --network=none --mount=type=secret,id=s cp /run/secrets/s /s && mkdir /o && echo out > /o/f\nFROM scratch\nCOPY --from=b /o /\n"}
	dir := t.TempDir()
	for _, kind := range []string{"local", "tar", "oci", "docker"} {
		var out bytes.Buffer
		_, said, err := solve(t, c, files, func(o *client.SolveOpt) {
			e := client.ExportEntry{Type: kind, Attrs: map[string]string{"name": "docker.io/library/x:" + kind}}
			if kind == "local" {
				e.OutputDir = filepath.Join(dir, kind)
			} else {
				e.Output = func(map[string]string) (io.WriteCloser, error) { return closing{&out}, nil }
			}
			o.Exports = []client.ExportEntry{e}
			o.Session = []session.Attachable{secretsprovider.FromMap(map[string][]byte{"s": []byte("hidden")})}
		})
		switch {
		case err != nil:
			t.Errorf("%s: %v\n%s", kind, err, said)
		case kind == "local":
			if data, err := os.ReadFile(filepath.Join(dir, kind, "f")); err != nil || string(data) != "out\n" {
				t.Errorf("local: %q, %v", data, err)
			}
		case !strings.Contains(out.String(), "ustar"):
			t.Errorf("%s is no tar: %d bytes", kind, out.Len())
		case kind == "docker":
			archive := filepath.Join(dir, "x.tar")
			if err := os.WriteFile(archive, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := d.OK(t, "load", "-i", archive); !strings.Contains(got, "x:docker") {
				t.Errorf("load: %q", got)
			}
		}
	}
	if out := d.OK(t, "system", "df", "-v"); !strings.Contains(out, "regular") {
		t.Errorf("no build cache in %s", out)
	}
	if out := d.OK(t, "builder", "prune", "-af"); !strings.Contains(out, "Total") {
		t.Error(out)
	}
	if out := d.OK(t, "system", "df", "--format", "{{.Type}} {{.TotalCount}}"); !strings.Contains(out, "Build Cache 0") {
		t.Errorf("after a prune: %s", out)
	}
}

// TestKilledDuringABuild: nothing of a build stays, and the next one finds its
// books in order.
func TestKilledDuringABuild(t *testing.T) {
	d := testkit.StartBusybox(t)
	begun := make(chan struct{})
	go func() {
		// It ends with the daemon.
		solveUntil(t, d, "FROM busybox\nRUN echo first > /f\nRUN --mount=type=secret,id=s --mount=type=bind,target=/src,rw --mount=type=cache,target=/c echo begun; sleep 1000\n", "begun", begun)
	}()
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("the build does not begin")
	}
	d.Kill()
	d.Start(t)
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(data), d.Run+"/build") {
		t.Errorf("%v; mounts are left: %s", err, data)
	}
	if es, err := os.ReadDir(filepath.Join(d.Root, "containers")); err != nil || len(es) != 0 {
		t.Errorf("containers are left: %v, %v", es, err)
	}
	_, said, err := solve(t, buildkit(t, d), map[string]string{"Dockerfile": "FROM busybox\nRUN echo first > /f\nRUN --mount=type=cache,target=/c cat /f\n"}, toImage("docker.io/library/again:1"))
	if err != nil || said != "first\n" {
		t.Errorf("%v, said %q", err, said)
	}
	d.OK(t, "run", "--rm", "again:1", "true")
}

// solveUntil builds and closes said when a step says what.
func solveUntil(t *testing.T, d *testkit.Daemon, dockerfile, what string, said chan<- struct{}) {
	c, err := client.New(t.Context(), "unix://"+d.Socket)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status := make(chan *client.SolveStatus)
	go func() {
		for s := range status {
			for _, l := range s.Logs {
				if strings.Contains(string(l.Data), what) && said != nil {
					close(said)
					said = nil
				}
			}
		}
	}()
	o := client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: contextOf(t, map[string]string{"Dockerfile": dockerfile})}
	_, _ = c.Solve(ctx, nil, o, status)
}
