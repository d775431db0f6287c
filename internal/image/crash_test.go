package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

const crashEnv = "GANTRY_IMAGE_TEST_CRASH"

// TestKilledLoad kills a process that loads, tags and removes images, at many
// moments. Afterwards every image that is listed is whole, and nothing is left
// of the others.
func TestKilledLoad(t *testing.T) {
	f := newFixture(t)
	archive := func(n int) []byte {
		var buf bytes.Buffer
		i := small(fmt.Sprintf("app:%d", n%3), "shared", strings.Repeat(fmt.Sprint(n), 50_000))
		if err := i.DockerArchive(&buf); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	if root := os.Getenv(crashEnv); root != "" {
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
		f.root = root
		f.open()
		for n := 0; ; n++ {
			fmt.Print(".")
			f.loadBytes(archive(n))
			if n%3 == 2 {
				if _, err := f.Remove(t.Context(), "app:0", RemoveOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	found := 0
	for round := range 10 {
		f.killRound(1+round/3, time.Duration(round*3)*time.Millisecond)
		f.open()
		found += f.checkWhole(round)
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("no image was ever loaded before the kill")
	}
}

// killRound runs the child on the fixture's directory and kills it a moment
// after it has begun its nth load.
func (f *fixture) killRound(n int, after time.Duration) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledLoad$")
	cmd.Env = append(os.Environ(), crashEnv+"="+f.root, "TMPDIR="+f.t.TempDir()) // it cannot tidy up
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, n)); err != nil {
		f.t.Errorf("child: %v", err)
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	_ = cmd.Wait()
}

// checkWhole looks at every image and returns how many there are. Every second
// time it then removes all and looks for leftovers.
func (f *fixture) checkWhole(round int) int {
	f.t.Helper()
	ctx := f.t.Context()
	list, err := f.List(ctx, ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	groups, err := f.groups(ctx)
	if err != nil || len(groups) != len(list) {
		f.t.Errorf("round %d: %d records, %d images, %v", round, len(groups), len(list), err)
	}
	for _, s := range list {
		i, err := f.Resolve(ctx, s.ID, nil)
		if err != nil {
			f.t.Errorf("round %d: %v", round, err)
			continue
		}
		dirs, err := f.store.Dirs(ctx, i.ChainID)
		if err != nil || len(dirs) != 2 {
			f.t.Errorf("round %d: %s is not unpacked: %v", round, s.RepoTags, err)
			continue
		}
		for n, name := range []string{"file1", "file0"} {
			if fi, err := os.Stat(filepath.Join(dirs[n], name)); err != nil || fi.Size() == 0 {
				f.t.Errorf("round %d: %s: %v", round, s.RepoTags, err)
			}
		}
	}
	if round%2 == 0 {
		return len(list) // the next round goes on from here
	}
	for _, s := range list {
		if _, err := f.Remove(ctx, s.ID, RemoveOptions{Force: true}); err != nil {
			f.t.Errorf("round %d: %v", round, err)
		}
	}
	if n, err := f.stored(ctx); n != 0 || err != nil {
		f.t.Errorf("round %d: %d bytes stay, %v", round, n, err)
	}
	if err := f.store.Settle(ctx); err != nil {
		f.t.Errorf("round %d: %v", round, err)
	}
	left, err := filepath.Glob(filepath.Join(f.root, "snapshots/snapshots/*"))
	if err != nil || len(left) != 0 {
		f.t.Errorf("round %d: left %q, %v", round, left, err)
	}
	if left, _ = filepath.Glob(filepath.Join(f.root, "content/ingest/*")); len(left) != 0 {
		f.t.Errorf("round %d: left %q", round, left)
	}
	return len(list)
}

// TestTooManyLayers is of row S10.
func TestTooManyLayers(t *testing.T) {
	f := newFixture(t)
	layers := strings.Repeat(`"l",`, maxLayers) + `"l"`
	data := testkit.Layer(testkit.File{Name: "c", Data: []byte("{}")}, testkit.File{Name: "l", Data: testkit.Layer()},
		testkit.File{Name: "manifest.json", Data: []byte(`[{"Config":"c","Layers":[` + layers + `]}]`)})
	err := f.Load(t.Context(), bytes.NewReader(data), LoadOptions{}, nil)
	if err == nil || err.Error() != "image has 501 layers, more than 500" {
		t.Errorf("got %v", err)
	}
	large := testkit.Layer(testkit.File{Name: "manifest.json", Data: bytes.Repeat([]byte(" "), maxManifest+1)})
	if err := f.Load(t.Context(), bytes.NewReader(large), LoadOptions{}, nil); err == nil || !strings.Contains(err.Error(), "more than 4194304") {
		t.Errorf("got %v", err)
	}
}
