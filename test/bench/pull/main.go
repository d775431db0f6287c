// Command pull measures a pull of 1 GB in 8 layers from a registry on loopback:
// time and memory, beside what skopeo takes to copy it without unpacking, and
// beside the least that it can cost: `gzip -d | tar -x` of the layers, as many at
// once as there are processors. Each is measured by turns. It needs root, skopeo
// and the unpacked Debian package docker-registry (test/deps.sh).
//
// Usage: pull [-bin DIR] [-n ROUNDS] [-mb MEGABYTES]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// What is promised, in docs/spec.md.
const (
	minRatio = 0.8 // limit over ours
	maxRSS   = 100 // MB
)

const debianRegistry = "/var/cache/gantry-test/docker-registry/usr/bin/docker-registry"

func main() {
	bin := flag.String("bin", "bin", "directory of gantry and gantryd")
	rounds := flag.Int("n", 3, "rounds")
	size := flag.Int("mb", 1024, "megabytes, unpacked")
	flag.Parse()
	dir, err := os.MkdirTemp("", "gantry-pull-")
	if err == nil {
		err = run(dir, *bin, *rounds, *size)
		err = errOr(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pull:", err)
		os.Exit(1)
	}
}

func errOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// A bench is everything that runs.
type bench struct {
	dir, bin string
	registry *exec.Cmd
	daemon   *exec.Cmd
	image    string
	packed   int64
}

func run(dir, bin string, rounds, size int) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	b := &bench{dir: dir, bin: bin}
	defer b.close()
	if b.packed, err = makeImage(filepath.Join(dir, "oci"), size); err != nil {
		return err
	}
	if err := b.start(); err != nil {
		return err
	}
	fmt.Printf("%d MB in %d layers, %d MB packed, %d processors, %d rounds\n", size, layers, b.packed>>20, runtime.NumCPU(), rounds)
	times := map[string][]float64{}
	for range rounds {
		for _, m := range []struct {
			name string
			do   func() error
		}{{"gzip -d | tar -x", b.limit}, {"gantry pull", b.pull}, {"skopeo copy", b.skopeo}} {
			began := time.Now()
			if err := m.do(); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			times[m.name] = append(times[m.name], time.Since(began).Seconds())
		}
	}
	return b.report(times)
}

func (b *bench) report(times map[string][]float64) error {
	for name, t := range times {
		slices.Sort(t)
		fmt.Printf("%-18s median %6.2f s, least %6.2f s\n", name, t[len(t)/2], t[0])
	}
	limit, ours := times["gzip -d | tar -x"], times["gantry pull"]
	ratio := limit[len(limit)/2] / ours[len(ours)/2]
	rss, cpu, err := b.cost()
	if err != nil {
		return err
	}
	fmt.Printf("limit / ours %.2f (promised %.1f); daemon at most %d MB (promised %d), %.1f s of processor a pull\n", ratio, minRatio, rss, maxRSS, cpu/float64(len(ours)))
	if ratio < minRatio || rss > maxRSS {
		return fmt.Errorf("a promise is broken")
	}
	return nil
}

// start runs the registry and the daemon, and fills the registry.
func (b *bench) start() error {
	const addr = "127.0.0.1:5077"
	conf := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %q}\n", b.dir, addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	b.registry = exec.Command(debianRegistry, "serve", conf)
	if err := b.registry.Start(); err != nil {
		return err
	}
	b.image = addr + "/big:1"
	b.daemon = exec.Command(filepath.Join(b.bin, "gantryd"), "--data-root", b.dir+"/lib", "--exec-root", b.dir+"/run", "--pidfile", b.dir+"/pid",
		"--config-file", "", "--bridge", "none", "-H", "unix://"+b.dir+"/s.sock")
	if err := b.daemon.Start(); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return command("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+b.dir+"/oci:big", "docker://"+b.image)
}

func (b *bench) close() {
	for _, c := range []*exec.Cmd{b.daemon, b.registry} {
		if c != nil && c.Process != nil {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait()
		}
	}
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// limit unpacks the layers with the tools that every machine has, to disk.
func (b *bench) limit() error {
	to := filepath.Join(b.dir, "limit")
	list, err := filepath.Glob(filepath.Join(b.dir, "oci", "l*.tar.gz"))
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, l := range list {
		g.Go(func() error {
			at := filepath.Join(to, fmt.Sprint(i))
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			return command("sh", "-c", "gzip -dc '"+l+"' | tar -x -C '"+at+"'")
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := command("sync", "-f", to); err != nil {
		return err
	}
	return os.RemoveAll(to)
}

func (b *bench) gantry(args ...string) error {
	return command(filepath.Join(b.bin, "gantry"), append([]string{"-H", "unix://" + b.dir + "/s.sock"}, args...)...)
}

func (b *bench) pull() error {
	if err := b.gantry("pull", "-q", b.image); err != nil {
		return err
	}
	return b.gantry("rmi", b.image)
}

func (b *bench) skopeo() error {
	to := filepath.Join(b.dir, "copy")
	if err := command("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+b.image, "oci:"+to+":big"); err != nil {
		return err
	}
	return os.RemoveAll(to)
}

// cost is what the daemon has taken: memory at most, in MB, and processor time,
// in seconds.
func (b *bench) cost() (mb int, cpu float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.daemon.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &mb); err != nil {
				return 0, 0, err
			}
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.daemon.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	var user, system float64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, 0, err
	}
	return mb >> 10, (user + system) / 100, nil
}
