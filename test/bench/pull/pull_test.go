package pull

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// What is promised, in docs/spec.md.
const (
	minLimit = 0.8 // limit over our pull
	maxPeer  = 0.5 // our pull over docker.io's
	maxRSS   = 100 // MB
)

const debianRegistry = "/var/cache/gantry-test/docker-registry/usr/bin/docker-registry"

// Who does it.
const (
	limit  = "limit"
	ours   = "gantry"
	docker = "docker.io 20.10"
	skopeo = "skopeo"
)

// number reads a number from the environment.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func TestFigures(t *testing.T) {
	if os.Getenv("GANTRY_FIGURES") == "" {
		t.Skip("asked for by GANTRY_FIGURES=1")
	}
	for _, packing := range []string{"gzip", "zstd"} {
		t.Run(packing, func(t *testing.T) { measure(t, packing, number("GANTRY_FIGURES_MB", 1024)) })
	}
}

// A bench is everything that runs.
type bench struct {
	*testing.T
	dir, packing string
	d            *testkit.Daemon
	peer         *testkit.Peer
	image        string
	archive      string // what ours has saved, for the loads
	rss          int    // of the daemon at most, in MB
	times        map[string]map[string][]float64
}

func measure(t *testing.T, packing string, size int) {
	dir, err := os.MkdirTemp("", "gantry-figures-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b := &bench{T: t, dir: dir, packing: packing, archive: filepath.Join(dir, "archive.tar"), times: map[string]map[string][]float64{}}
	packed, err := makeImage(filepath.Join(dir, "oci"), size, packing)
	b.must(err)
	b.peer = testkit.StartPeer(t)
	b.d = testkit.StartDaemon(t, "--bridge", "none")
	b.registries()
	rounds := number("GANTRY_FIGURES_ROUNDS", 3)
	t.Logf("%d MB in %d layers, %d MB packed with %s, %d processors, %d rounds", size, layers, packed>>20, packing, runtime.NumCPU(), rounds)
	b.must(b.ours("pull", "-q", b.image))
	b.must(b.ours("save", "-o", b.archive, b.image))
	b.must(b.ours("rmi", b.image))
	for range rounds {
		b.round()
	}
	b.report(size)
}

// registries starts one in each network namespace, on the same files.
func (b *bench) registries() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	host := l.Addr().String()
	l.Close()
	b.image = host + "/big:1"
	conf := filepath.Join(b.dir, "registry.yml")
	b.must(os.WriteFile(conf, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %q}\n", b.dir, host), 0o600))
	for _, line := range [][]string{{debianRegistry, "serve", conf}, b.peer.Enter(debianRegistry, "serve", conf)} {
		cmd := exec.Command(line[0], line[1:]...)
		b.must(cmd.Start())
		b.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", host); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			b.Fatal("the registry does not answer")
		}
	}
	b.must(command("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+b.dir+"/oci:big", "docker://"+b.image))
}

// round does everything once.
func (b *bench) round() {
	b.time("unpack", limit, b.unpack)
	unpacked := filepath.Join(b.dir, "limit")
	b.must(os.RemoveAll(unpacked))

	store := "containers-storage:[overlay@" + b.dir + "/skopeo/lib+" + b.dir + "/skopeo/run]" + b.image
	forget := func() {
		_ = command("umount", b.dir+"/skopeo/lib/overlay")
		b.must(os.RemoveAll(b.dir + "/skopeo"))
	}
	b.time("pull", ours, func() error { return b.ours("pull", "-q", b.image) })
	b.time("save", ours, func() error { return b.ours("save", "-o", b.dir+"/saved.tar", b.image) })
	b.must(b.ours("rmi", b.image))
	b.settle()
	b.time("load", ours, func() error { return b.ours("load", "-q", "-i", b.archive) })
	b.must(b.ours("rmi", b.image))
	b.settle()

	if b.time("pull", docker, func() error { return b.theirs("pull", "-q", b.image) }) {
		b.time("save", docker, func() error { return b.theirs("save", "-o", b.dir+"/saved.tar", b.image) })
		b.must(b.theirs("rmi", b.image))
	}
	if b.time("load", docker, func() error { return b.theirs("load", "-q", "-i", b.archive) }) {
		b.must(b.theirs("rmi", b.image))
	}
	b.settle()

	if b.time("pull", skopeo, func() error {
		return command("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+b.image, store)
	}) {
		b.time("save", skopeo, func() error {
			return command("skopeo", "copy", "-q", store, "docker-archive:"+b.dir+"/skopeo.tar:"+b.image)
		})
		_ = os.Remove(b.dir + "/skopeo.tar")
	}
	forget()
	b.time("load", skopeo, func() error { return command("skopeo", "copy", "-q", "docker-archive:"+b.archive, store) })
	forget()
	b.settle()
}

// time does it and notes how long it took, and the daemon's memory. One that
// can't do it is noted as that.
func (b *bench) time(what, who string, do func() error) bool {
	b.Helper()
	status := fmt.Sprintf("/proc/%d/", b.d.Pid())
	b.must(os.WriteFile(status+"clear_refs", []byte("5"), 0)) // forget the peak
	began := time.Now()
	err := do()
	took := time.Since(began).Seconds()
	if b.times[what] == nil {
		b.times[what] = map[string][]float64{}
	}
	switch {
	case err != nil && who == ours:
		b.Fatalf("%s: %v", what, err)
	case err != nil:
		b.Logf("%s %s: %v", who, what, err)
		return false
	}
	b.times[what][who] = append(b.times[what][who], took)
	if who == ours {
		b.rss = max(b.rss, peak(status))
	}
	return true
}

// peak is the most memory that a process has had, in MB.
func peak(proc string) (mb int) {
	text, _ := os.ReadFile(proc + "status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, _ = fmt.Sscan(rest, &mb)
		}
	}
	return mb >> 10
}

// settle waits until what was removed is deleted and written.
func (b *bench) settle() {
	time.Sleep(time.Second)
	unix.Sync()
}

// report compares what each has taken at best, since others use the machine too.
func (b *bench) report(size int) {
	least := func(what, who string) float64 {
		if t := b.times[what][who]; len(t) > 0 {
			return slices.Min(t)
		}
		return 0
	}
	for _, what := range []string{"unpack", "pull", "load", "save"} {
		for _, who := range []string{limit, ours, docker, skopeo} {
			if t := slices.Sorted(slices.Values(b.times[what][who])); len(t) > 0 {
				b.Logf("%-6s %-16s least %6.2f s, median %6.2f s", what, who, t[0], t[len(t)/2])
			}
		}
	}
	bound := least("unpack", limit)
	b.Logf("limit over ours: pull %.2f, load %.2f (promised %.1f); the daemon's memory at most %d MB (promised %d)", bound/least("pull", ours), bound/least("load", ours), minLimit, b.rss, maxRSS)
	if theirs := least("pull", docker); theirs > 0 {
		b.Logf("ours over docker.io: pull %.2f (promised %.1f), load %.2f, save %.2f", least("pull", ours)/theirs, maxPeer, least("load", ours)/least("load", docker), least("save", ours)/least("save", docker))
		if least("pull", ours)/theirs > maxPeer {
			b.Error("the promise beside docker.io is broken")
		}
	}
	if size >= 1024 && (bound/least("pull", ours) < minLimit || b.rss > maxRSS) {
		b.Error("a promise is broken")
	}
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// unpack unpacks the layers with the tools that every machine has, to disk.
func (b *bench) unpack() error {
	to := filepath.Join(b.dir, "limit")
	list, err := filepath.Glob(filepath.Join(b.dir, "oci", "l*.tar.packed"))
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, l := range list {
		g.Go(func() error {
			at := filepath.Join(to, fmt.Sprint(i))
			return errors.Join(os.MkdirAll(at, 0o755), command("sh", "-c", b.packing+" -dc <'"+l+"' | tar -x -C '"+at+"'"))
		})
	}
	return errors.Join(g.Wait(), command("sync", "-f", to))
}

func (b *bench) ours(args ...string) error {
	_, err := b.d.Gantry(args...)
	return err
}

func (b *bench) theirs(args ...string) error {
	line := b.peer.Enter(append([]string{b.peer.CLI, "-H", "unix://" + b.peer.Socket}, args...)...)
	return command(line[0], line[1:]...)
}
