package clients_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// limit reads a file of a container's control group: of the v1 controller, or
// the one named by v2 in the unified tree.
func (s story) limit(name, controller, v1, v2 string) string {
	s.Helper()
	pid := strings.TrimSpace(s.ok("inspect", "-f", "{{.State.Pid}}", name))
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		s.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) == 3 && f[1] == "":
			unified = f[2]
		case len(f) == 3 && strings.Contains(","+f[1]+",", ","+controller+","):
			return s.read(filepath.Join("/sys/fs/cgroup", controller, f[2], v1))
		}
	}
	return s.read(filepath.Join("/sys/fs/cgroup", unified, v2))
}

func (s story) read(path string) string {
	s.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

// TestUpdateLive: what update says is what the kernel holds, at once, and what a
// later start gets.
func TestUpdateLive(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("rm", "-f", "upd")
		s.ok("run", "-d", "--name", "upd", "-m", "64m", "--memory-swap", "128m", "busybox", "sleep", "1000")
		mb := func(n int) string { return strconv.Itoa(n << 20) }
		cases := []struct{ flags, controller, v1, want1, v2, want2 string }{
			{"--cpu-quota 20000 --cpu-period 50000", "cpu", "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000"},
			{"--cpu-shares 512", "cpu", "cpu.shares", "512", "", ""},
			{"--cpuset-cpus 0", "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0"},
			{"--cpuset-mems 0", "cpuset", "cpuset.mems", "0", "cpuset.mems", "0"},
			{"-m 32m --memory-swap 64m", "memory", "memory.limit_in_bytes", mb(32), "memory.max", mb(32)},
			{"-m 96m --memory-swap 196m", "memory", "memory.memsw.limit_in_bytes", mb(196), "memory.swap.max", mb(100)},
			{"--memory-reservation 16m", "memory", "memory.soft_limit_in_bytes", mb(16), "memory.low", mb(16)},
			{"--pids-limit 77", "pids", "pids.max", "77", "pids.max", "77"},
			{"--pids-limit -1", "pids", "pids.max", "max", "pids.max", "max"},
			{"--pids-limit 78", "pids", "pids.max", "78", "pids.max", "78"},
			{"--pids-limit 79", "pids", "pids.max", "79", "pids.max", "79"},
		}
		_, v1 := os.Stat("/sys/fs/cgroup/cpu")
		check := func(flags, controller, file1, want1, file2, want2 string) {
			s.Helper()
			want := want1
			if v1 != nil {
				if want = want2; file2 == "" {
					return
				}
			}
			if got := s.limit("upd", controller, file1, file2); got != want {
				s.Errorf("update %s: %s is %s, want %s", flags, file1, got, want)
			}
		}
		for _, c := range cases {
			s.ok(append(append([]string{"update"}, strings.Fields(c.flags)...), "upd")...)
			check(c.flags, c.controller, c.v1, c.want1, c.v2, c.want2)
		}
		s.ok("restart", "-t", "0", "upd")
		for _, i := range []int{0, 1, 2, 5, 6, 10} {
			c := cases[i]
			check(c.flags+", restarted", c.controller, c.v1, c.want1, c.v2, c.want2)
		}
		s.ok("update", "--restart", "on-failure:3", "upd")
		if got := s.ok("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}", "upd"); got != "on-failure 3\n" {
			s.Errorf("%s", got)
		}
		for text, flags := range map[string]string{
			"Nano CPUs cannot be updated as CPU Period has already been set":                                             "--cpus 0.5",
			"Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time":   "-m 1g",
			"Minimum memory limit allowed is 6MB":                                                                        "-m 1m",
			"Requested CPUs are not available - requested 4000":                                                          "--cpuset-cpus 4000",
			"invalid restart policy: unknown policy 'bad'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'": "--restart bad",
			"invalid restart policy: maximum retry count can only be used with 'on-failure'":                             "--restart always:3",
			"invalid restart policy: on-unhealthy needs a health check":                                                  "--restart on-unhealthy",
			"CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)":                       "--cpu-period 10",
		} {
			r, err := s.cli.Run(nil, append(append([]string{"update"}, strings.Fields(flags)...), "upd")...)
			if err != nil || r.Code != 1 || !strings.Contains(r.Stderr+r.Stdout, text) {
				s.Errorf("update %s: %+v, %v; want %q", flags, r, err, text)
			}
		}
	})
}
