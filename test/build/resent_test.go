package build_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// resent is a context that is built again and again.
type resent struct {
	*cliCase
	ctx string
}

// told is what a build shows of a context of which no file was told.
var told = regexp.MustCompile(`(?m)^#\d+ transferring context: 64B`)

// build builds, and checks that the result is the context, and whether its files had
// to be told.
func (r *resent) build(what string, unchanged bool) {
	r.t.Helper()
	if said := r.either(what); told.MatchString(said) != unchanged {
		r.t.Errorf("%s: no file of the context was told: %v\n%s", what, !unchanged, said)
	}
}

// either is build where the daemon may have kept an older transfer or not.
func (r *resent) either(what string) string {
	r.t.Helper()
	out := filepath.Join(r.t.TempDir(), "out")
	_, said := r.ok("build", "--progress=plain", "-o", out, r.ctx)
	r.same(what, out)
	return said
}

func (r *resent) same(what, out string) {
	r.t.Helper()
	list := func(dir string) string {
		cmd := exec.Command("sh", "-c", `none="! -name Dockerfile ! -name .dockerignore ! -path ./ignored"
find . -mindepth 1 -type d -printf '%p %m\n' | LC_ALL=C sort
find . ! -type d $none -printf '%p %m %y %l\n' | LC_ALL=C sort
find . -type f $none -exec sha256sum {} + | LC_ALL=C sort`)
		cmd.Dir = dir
		b, err := cmd.Output()
		must(r.t, err)
		return string(b)
	}
	if want, got := list(r.ctx), list(out); got != want {
		r.t.Errorf("%s: built is\n%s\nnot\n%s", what, got, want)
	}
}

// stock builds as another client does that the daemon takes for the same.
func (r *resent) stock(what string) {
	r.t.Helper()
	c, err := client.New(r.t.Context(), "unix://"+r.d.Socket)
	must(r.t, err)
	defer c.Close()
	local, err := fsutil.NewFS(r.ctx)
	must(r.t, err)
	machine, _ := os.ReadFile("/etc/machine-id") // as gantry does, without it too
	sum := sha256.Sum256([]byte(string(machine) + strconv.Itoa(os.Getuid())))
	out := filepath.Join(r.t.TempDir(), "out")
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	_, err = c.Solve(ctx, nil, client.SolveOpt{
		Frontend: "dockerfile.v0", SharedKey: filepath.Base(r.ctx) + ":" + hex.EncodeToString(sum[:8]), LocalMounts: map[string]fsutil.FS{"context": local, "dockerfile": local},
		Exports: []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
	}, nil)
	must(r.t, err)
	r.same(what, out)
}

// TestAContextIsSentAgain builds what has changed in ways that a checksum of it, or
// what the daemon remembers, might miss.
func TestAContextIsSentAgain(t *testing.T) {
	d := testkit.StartBusybox(t)
	r := &resent{newCLI(t, d, map[string]string{
		"ctx/Dockerfile": "FROM scratch\nCOPY . /\n", "ctx/.dockerignore": "Dockerfile\n.dockerignore\nignored\n",
		"ctx/a": "one", "ctx/d/b": "two", "ctx/d/e/f": "three", "ctx/ignored": "x",
	}), ""}
	r.ctx = filepath.Join(r.dir, "ctx")
	must(t, os.Symlink("b", filepath.Join(r.ctx, "d/link")))
	path := func(name string) string { return filepath.Join(r.ctx, name) }
	r.build("the first time", false)
	r.build("again", true)
	r.write("ctx/ignored", "changed")
	r.build("a change in what is ignored", true)

	old, err := os.Stat(path("a"))
	must(t, err)
	r.write("ctx/a", "ONE")
	r.build("a file of the same size", false)
	r.build("again", true)
	// What is put back the daemon had.
	put := func() {
		r.write("ctx/a", "one")
		must(t, os.Chtimes(path("a"), time.Time{}, old.ModTime()))
	}
	put()
	r.either("put back")
	r.build("again", true)

	for what, change := range map[string]func() error{
		"a mode":      func() error { return os.Chmod(path("d/b"), 0o751) },
		"a file less": func() error { return os.Remove(path("d/e/f")) },
		"a file more": func() error { return os.WriteFile(path("d/e/g"), []byte("four"), 0o600) },
		"a link":      func() error { return errors.Join(os.Remove(path("d/link")), os.Symlink("e/x", path("d/link"))) },
		"a directory": func() error { return errors.Join(os.Mkdir(path("n"), 0o711), os.Chmod(path("n"), 0o711)) },
		"an attribute": func() error {
			return errors.Join(unix.Setxattr(path("a"), "user.x", []byte("y"), 0), os.Chtimes(path("a"), time.Time{}, time.Unix(1.6e9, 0)))
		},
		"what is ignored": func() error {
			return os.WriteFile(path(".dockerignore"), []byte("Dockerfile\n.dockerignore\nignored\nnothing\n"), 0o644)
		},
	} {
		must(t, change())
		// Other patterns, of which none fits, make no other files.
		r.build(what, what == "what is ignored")
		r.build(what+", again", true)
	}

	// Another client changes what the daemon has.
	put()
	r.either("put back")
	r.write("ctx/a", "two")
	r.stock("another client")
	r.build("what another client sent", false)
	r.stock("another client, again")
	put()
	r.either("put back, for the first client")
	r.stock("put back, for the other")

	// It is known after the daemon was killed, and not when the cache is gone.
	r.either("before the daemon dies")
	d.Kill()
	d.Start(t)
	r.build("after the daemon was killed", true)
	r.write("ctx/d/b", "TWO")
	r.build("changed after it", false)
	r.ok("builder", "prune", "-af")
	r.build("without a cache", false)
	r.build("with it", true)
}
