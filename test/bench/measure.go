package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// startRate starts 100 detached containers, eight at once.
func startRate(d *daemon) ([]result, error) {
	const count, workers = 100, 8
	names := make(chan string)
	errc := make(chan error, workers)
	start := time.Now()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range names {
				if err := d.gantry("run", "-d", "--name", n, "busybox", "sleep", "3600"); err != nil {
					select {
					case errc <- err:
					default:
					}
				}
			}
		})
	}
	var all []string
	for i := range count {
		n := fmt.Sprintf("rate%d", i)
		all = append(all, n)
		names <- n
	}
	close(names)
	wg.Wait()
	took := time.Since(start)
	err := d.gantry(append([]string{"rm", "-f"}, all...)...)
	select {
	case err = <-errc:
	default:
	}
	rate := count / took.Seconds()
	return []result{{promise{"detached starts, 8 at once", "/s", 25, true}, rate, fmt.Sprintf("100 in %.2f s", took.Seconds())}}, err
}

// weights measures the memory of an idle shim and of the idle daemon, with
// fifty containers of one image running.
func weights(d *daemon) ([]result, error) {
	var names []string
	for i := range 50 {
		n := fmt.Sprintf("w%d", i)
		names = append(names, n)
		if err := d.gantry("run", "-d", "--name", n, "--network", "none", "busybox", "sleep", "3600"); err != nil {
			return nil, err
		}
	}
	defer d.gantry(append([]string{"rm", "-f"}, names...)...)
	time.Sleep(3 * time.Second) // idle means after the start's garbage has been returned
	shims, err := shimsOf(d.run)
	if err != nil {
		return nil, err
	}
	if len(shims) != len(names) {
		return nil, fmt.Errorf("%d processes named gantry-shim, want %d", len(shims), len(names))
	}
	var total uint64
	for _, pid := range shims {
		pss, err := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return nil, err
		}
		total += pss
	}
	rss, err := kilobytes(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid), "VmRSS:")
	if err != nil {
		return nil, err
	}
	return []result{
		{promise{"idle shim, PSS", "MB", 1.5, false}, float64(total) / float64(len(shims)) / 1024, "mean of 50"},
		{promise{"idle daemon, RSS", "MB", 60, false}, float64(rss) / 1024, "with 50 containers"},
	}, nil
}

// shimsOf returns the pids of the shims of the daemon whose run root is dir.
func shimsOf(dir string) ([]int, error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, c := range comms {
		name, err := os.ReadFile(c)
		if err != nil || strings.TrimSpace(string(name)) != "gantry-shim" {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c))); err == nil && holdsBelow(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// holdsBelow reports whether a process has something open below dir.
func holdsBelow(pid int, dir string) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if path, err := os.Readlink(fd); err == nil && strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// sharedPages measures how often the program that two containers of one image
// run is in memory: the share of its pages that each of them accounts for
// (Pss: pages divided by how many map them), added up, over its size there.
func sharedPages(d *daemon) ([]result, error) {
	var pss, rss uint64
	for _, n := range []string{"pages-a", "pages-b"} {
		if err := d.gantry("run", "-d", "--name", n, "--network", "none", "busybox", "sleep", "3600"); err != nil {
			return nil, err
		}
		defer d.gantry("rm", "-f", n)
	}
	time.Sleep(300 * time.Millisecond) // both have run their start
	for _, n := range []string{"pages-a", "pages-b"} {
		pid, err := d.output("inspect", "-f", "{{.State.Pid}}", n)
		if err != nil {
			return nil, err
		}
		r, p, err := programText("/proc/" + pid + "/smaps")
		if err != nil {
			return nil, err
		}
		pss, rss = pss+p, max(rss, r)
	}
	return []result{{promise{"copies of one program in memory", "", 1, false}, float64(pss) / float64(rss), "Pss of its text in two containers, over its size"}}, nil
}

// programText returns the resident and the proportional size, in kB, of the
// executable mappings of files in a smaps file (proc_pid_smaps(5)).
func programText(smaps string) (rss, pss uint64, err error) {
	data, err := os.ReadFile(smaps)
	if err != nil {
		return 0, 0, err
	}
	counted := false
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			counted = len(fields) >= 6 && strings.HasPrefix(fields[1], "r-x") && strings.HasPrefix(fields[5], "/")
		case counted && (fields[0] == "Rss:" || fields[0] == "Pss:"):
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", smaps, err)
			}
			if fields[0] == "Rss:" {
				rss += n
			} else {
				pss += n
			}
		}
	}
	if rss == 0 {
		return 0, 0, fmt.Errorf("%s has no text of a program", smaps)
	}
	return rss, pss, nil
}

// kilobytes reads a "Key:   n kB" line.
func kilobytes(path, key string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}
