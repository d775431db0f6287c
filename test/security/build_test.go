package security

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// built builds a Dockerfile in a context, and returns what its steps have said.
func built(t *testing.T, d *testkit.Daemon, dir, dockerfile string, change func(*client.SolveOpt)) (string, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	local, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": local, "dockerfile": local}}
	if change != nil {
		change(&o)
	}
	return solved(t, d, nil, o)
}

func solved(t *testing.T, d *testkit.Daemon, def *llb.Definition, o client.SolveOpt) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := client.New(ctx, "unix://"+d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status, said := make(chan *client.SolveStatus), make(chan string, 1)
	go func() {
		var b strings.Builder
		for s := range status {
			for _, l := range s.Logs {
				b.Write(l.Data)
			}
		}
		said <- b.String()
	}()
	_, err = c.Solve(ctx, def, o, status)
	return <-said, err
}

// Row S12, CVE-2024-23651, CVE-2024-23652, CVE-2024-1753, CVE-2025-4953: a
// Dockerfile that is against its host. Nothing outside of the build is read,
// written or removed.
func TestHostileDockerfiles(t *testing.T) {
	d := testkit.StartBusybox(t, "--bridge", "none")
	canary := t.TempDir()
	if err := os.Chmod(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stub", "secret"} {
		if err := os.WriteFile(filepath.Join(canary, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(canary, "dir"), 0o777); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, canary)
	for name, steps := range map[string]string{
		// The places of mounts become links to the host before they are cleaned up.
		"stubs":       "RUN --network=none --mount=type=tmpfs,target=/d/dir --mount=type=bind,source=Dockerfile,target=/d/stub mv /d /e && ln -s CANARY /d\n",
		"linked stub": "RUN --network=none ln -s CANARY /l\nRUN --network=none --mount=type=tmpfs,target=/l/dir --mount=type=bind,source=Dockerfile,target=/l/stub true\n",
		// A cache's part is a link.
		"cache": "RUN --network=none --mount=type=cache,id=c,target=/c ln -sfn CANARY /c/sub; ln -sfn / /c/root\n" +
			"RUN --network=none --mount=type=cache,id=c,source=root,target=/x ! test -e /x/proc\n",
		"cache out": "RUN --network=none --mount=type=cache,id=c2,target=/c ln -sfn CANARY /c/sub\n" +
			"RUN --network=none --mount=type=cache,id=c2,source=sub,target=/x echo broken > /x/secret; rm -f /x/stub\n",
		// A stage's part is a link.
		"bind": "RUN --network=none ln -s / /root-link; ln -s CANARY /out\nFROM busybox AS second\nRUN --network=none --mount=type=bind,from=first,source=/root-link,target=/x,rw ! test -e /xCANARY/secret; rm -rf /xCANARY\n",
		"copy": "RUN --network=none ln -s CANARY /out\nCOPY Dockerfile /out/stub\nCOPY Dockerfile /out/dir/\n",
	} {
		t.Run(name, func(t *testing.T) {
			said, err := built(t, d, t.TempDir(), "FROM busybox AS first\n"+strings.ReplaceAll(steps, "CANARY", canary), nil)
			t.Logf("%v %s", err, said)
			if after := snapshot(t, canary); after != before {
				t.Fatalf("the host was changed:\n%s\nit was:\n%s", after, before)
			}
		})
	}
	t.Run("context", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("of the host"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(canary, "secret"), filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "own"), []byte("own"), 0o644); err != nil {
			t.Fatal(err)
		}
		said, err := built(t, d, dir, "FROM busybox\nCOPY link /x\nRUN --network=none cat /x\n", nil)
		if err == nil || strings.Contains(said, "of the host") {
			t.Errorf("a file outside of the context: %v, %q", err, said)
		}
		said, err = built(t, d, dir, "FROM busybox\nRUN --network=none --mount=type=bind,target=/src,rw echo changed > /src/own\nRUN --network=none --mount=type=bind,target=/src cat /src/own\n", nil)
		if data, readErr := os.ReadFile(filepath.Join(dir, "own")); err != nil || readErr != nil || string(data) != "own" || said != "own" {
			t.Errorf("a step has changed its context: %v %v %q, %q", err, readErr, data, said)
		}
	})
}

// Row S13, CVE-2024-23653: what a build may is decided once, whoever asks and
// however it is asked.
func TestBuildEntitlements(t *testing.T) {
	d := testkit.StartBusybox(t, "--bridge", "none")
	granted := func(list ...string) func(*client.SolveOpt) {
		return func(o *client.SolveOpt) { o.AllowedEntitlements = list }
	}
	for _, c := range []struct {
		step  string
		grant []string
	}{
		{"--security=insecure", nil}, {"--security=insecure", []string{"security.insecure"}}, {"--security=insecure", []string{"network.host"}}, {"--network=host", nil},
	} {
		said, err := built(t, d, t.TempDir(), "FROM busybox\nRUN "+c.step+" grep CapEff /proc/self/status\n", granted(c.grant...))
		if err == nil || !strings.Contains(err.Error(), "not allowed") || said != "" {
			t.Errorf("%s, asking for %v: %v, %q", c.step, c.grant, err, said)
		}
	}
	// Without the frontend that could have looked.
	for name, with := range map[string]llb.RunOption{"insecure": llb.Security(pb.SecurityMode_INSECURE), "host network": llb.Network(pb.NetMode_HOST)} {
		def, err := llb.Image("docker.io/library/busybox:latest").Run(llb.Shlex("grep CapEff /proc/self/status"), with).Marshal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if said, err := solved(t, d, def, client.SolveOpt{}); err == nil || said != "" {
			t.Errorf("%s: %v, %q", name, err, said)
		}
	}
	// Docker's default lets those who ask have the host's network.
	said, err := built(t, d, t.TempDir(), "FROM busybox\nRUN --network=host grep CapEff /proc/self/status\n", granted("network.host"))
	if err != nil || !strings.Contains(said, "00000000a80425fb") {
		t.Errorf("host network: %v, %q", err, said)
	}
}

// Row S13 again: what daemon.json says that builds may be granted is what they
// may be granted, and only those that ask for it.
func TestConfiguredEntitlements(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "daemon.json")
	for name, text := range map[string]string{
		file:                              `{"cdi-spec-dirs": ["` + dir + `"], "builder": {"history": {"maxAge": "24h", "maxEntries": 7}, "entitlements": {"network-host": false, "security-insecure": true, "device": true}}}`,
		filepath.Join(dir, "vendor.json"): `{"cdiVersion":"0.5.0","kind":"vendor.com/thing","devices":[{"name":"one","containerEdits":{"env":["THING=one"],"deviceNodes":[{"path":"/dev/thing","hostPath":"/dev/null"}]}}]}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := testkit.StartBusybox(t, "--bridge", "none", "--config-file", file)
	for _, c := range []struct {
		step  string
		grant []string
		want  string // what the step says; empty if it may not run
	}{
		{"--network=host true", []string{"network.host"}, ""},
		{"--security=insecure grep CapEff /proc/self/status", nil, ""},
		{"--security=insecure --network=none grep CapEff /proc/self/status", []string{"security.insecure"}, "CapEff:\t000001ff"},
		{"--device=vendor.com/thing=one true", nil, ""},
		{"--device=vendor.com/thing=two,required --network=none true", []string{"device"}, ""},
		{"--device=vendor.com/thing=one --network=none echo $THING $(test -c /dev/thing && echo there)", []string{"device"}, "one there"},
		{"--network=none echo ${THING:-nothing} $(ls /dev/thing 2>/dev/null)", []string{"device"}, "nothing"},
	} {
		said, err := built(t, d, t.TempDir(), "FROM busybox\nRUN "+c.step+"\n", func(o *client.SolveOpt) { o.AllowedEntitlements = c.grant })
		if c.want == "" && (err == nil || said != "") || c.want != "" && (err != nil || !strings.HasPrefix(strings.TrimSpace(said), c.want)) {
			t.Errorf("%s, asking for %v: %v, %q", c.step, c.grant, err, said)
		}
	}
}

// Row S14, CVE-2024-24557: an image whose layers are not what it says must not
// become what another build finds in the cache.
func TestPulledImagesDoNotPoisonTheCache(t *testing.T) {
	d := testkit.StartDaemon(t, "--bridge", "none")
	reg := registry.New(t, registry.Options{})
	good, evil := testkit.Layer(testkit.File{Name: "f", Data: []byte("good"), Mode: 0o644}), testkit.Layer(testkit.File{Name: "f", Data: []byte("evil"), Mode: 0o644})
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(good)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: reg.PutBlob("x", config), Layers: []ocispec.Descriptor{reg.PutBlob("x", evil)}}
	m.SchemaVersion = 2
	m.Config.MediaType, m.Layers[0].MediaType = ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	reg.PutManifest("x", "evil", ocispec.MediaTypeImageManifest, manifest)
	reg.Put("x", "good", registry.Image{Layers: [][]byte{good}, Packing: "none"})
	out := t.TempDir()
	to := func(o *client.SolveOpt) { o.Exports = []client.ExportEntry{{Type: "local", OutputDir: out}} }
	if _, err := built(t, d, t.TempDir(), "FROM "+reg.Host+"/x:evil\nCOPY Dockerfile /d\n", to); err == nil {
		t.Error("an image was taken whose layer is another than it says")
	}
	if _, err := built(t, d, t.TempDir(), "FROM "+reg.Host+"/x:good\nCOPY Dockerfile /d\n", to); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(out, "f")); err != nil || string(data) != "good" {
		t.Errorf("the good image has %q, %v", data, err)
	}
}
