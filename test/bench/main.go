// Command bench measures the promises of docs/spec.md: every time as a ratio to
// the floor program, measured in the same run by turns, so that a slow or busy
// machine slows both. It starts its own daemon on throw-away directories and
// prints a table; a broken promise makes it exit with 1.
//
// Usage: bench [-bin DIR] [-n ROUNDS] [-only NAME] [-networks]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "directory of gantry, gantryd and gantry-shim")
	rounds := flag.Int("n", 60, "rounds of each timed command")
	only := flag.String("only", "", "measure only promises whose name contains this")
	nets := flag.Bool("networks", false, "measure the promises about networks instead")
	flag.Parse()
	measures := []func(*daemon) ([]result, error){
		func(d *daemon) ([]result, error) { return timings(d, *rounds, *only) }, startRate, weights, sharedPages,
	}
	if *nets {
		measures = []func(*daemon) ([]result, error){networks}
	}
	ok, err := run(*bin, *only, measures)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(bin, only string, measures []func(*daemon) ([]result, error)) (ok bool, err error) {
	d, err := startDaemon(bin)
	if err != nil {
		return false, err
	}
	defer func() {
		if e := d.stop(); err == nil {
			err = e
		}
	}()
	ok = true
	report := func(p promise, got float64, detail string) {
		verdict := "kept"
		if p.worse(got) {
			verdict, ok = "BROKEN", false
		}
		fmt.Printf("%-34s %10.2f %-8s promised %s %-8g %-7s %s\n", p.name, got, p.unit, p.sign(), p.bound, verdict, detail)
	}
	for _, m := range measures {
		rs, err := m(d)
		if err != nil {
			return false, err
		}
		for _, r := range rs {
			if strings.Contains(r.name, only) {
				report(r.promise, r.value, r.detail)
			}
		}
	}
	return ok, nil
}

// A promise is one line of docs/spec.md.
type promise struct {
	name  string
	unit  string
	bound float64
	least bool // the bound is a minimum
}

func (p promise) sign() string {
	if p.least {
		return "≥"
	}
	return "≤"
}

func (p promise) worse(v float64) bool {
	if p.least {
		return v < p.bound
	}
	return v > p.bound
}

type result struct {
	promise
	value  float64
	detail string
}

// timings runs the floor and every command by turns and compares medians.
func timings(d *daemon, rounds int, only string) ([]result, error) {
	if err := d.gantry("run", "-d", "--name", "bench-exec", "--network", "none", "busybox", "sleep", "3600"); err != nil {
		return nil, err
	}
	defer d.gantry("rm", "-f", "bench-exec")
	commands := []struct {
		promise
		args []string
	}{
		{promise{"run --rm --network none", "F", 5, false}, []string{"run", "--rm", "--network", "none", "busybox", "true"}},
		{promise{"run --rm (bridge)", "F", 7, false}, []string{"run", "--rm", "busybox", "true"}},
		{promise{"exec", "F", 2.5, false}, []string{"exec", "bench-exec", "true"}},
		{promise{"ps", "F", 1.5, false}, []string{"ps"}},
	}
	commands = slices.DeleteFunc(commands, func(c struct {
		promise
		args []string
	}) bool {
		return !strings.Contains(c.name, only)
	})
	if len(commands) == 0 {
		return nil, nil
	}
	floor := make([]time.Duration, 0, rounds)
	times := make([][]time.Duration, len(commands))
	for i := range rounds + 3 {
		f, err := d.floor()
		if err != nil {
			return nil, err
		}
		if i >= 3 { // the first rounds fill caches
			floor = append(floor, f)
		}
		for j, c := range commands {
			start := time.Now()
			if err := d.gantry(c.args...); err != nil {
				return nil, err
			}
			if i >= 3 {
				times[j] = append(times[j], time.Since(start))
			}
		}
	}
	f := median(floor)
	fmt.Printf("floor F: median %.2f ms, 10%% %.2f, 90%% %.2f, %d rounds\n", ms(f), ms(quantile(floor, 0.1)), ms(quantile(floor, 0.9)), rounds)
	var out []result
	for j, c := range commands {
		m := median(times[j])
		out = append(out, result{c.promise, float64(m) / float64(f), fmt.Sprintf("median %.2f ms, 90%% %.2f ms", ms(m), ms(quantile(times[j], 0.9)))})
	}
	return out, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(ds []time.Duration) time.Duration { return quantile(ds, 0.5) }

func quantile(ds []time.Duration, q float64) time.Duration {
	s := slices.Clone(ds)
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// A daemon is a gantryd on throw-away directories, with busybox loaded.
type daemon struct {
	dir, run, bin, sock string
	floorBin            string
	lower               string
	cmd                 *exec.Cmd
}

func (d *daemon) env() []string { return append(os.Environ(), "GANTRY_HOST=unix://"+d.sock) }

func (d *daemon) command(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(d.bin, "gantry"), args...)
	c.Env = d.env()
	return c
}

func (d *daemon) gantry(args ...string) error {
	if out, err := d.command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("gantry %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *daemon) output(args ...string) (string, error) {
	out, err := d.command(args...).Output()
	if err != nil {
		return "", fmt.Errorf("gantry %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (d *daemon) floor() (time.Duration, error) {
	start := time.Now()
	out, err := exec.Command(d.floorBin, d.lower, d.dir).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("floor: %w: %s", err, out)
	}
	return time.Since(start), nil
}
