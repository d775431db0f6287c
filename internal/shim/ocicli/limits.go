package ocicli

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

func updateFlags() flags {
	f := flags{"resources": flagValue, "r": "resources"}
	for name := range limitFlags(nil) {
		f[name] = flagValue
	}
	return f
}

// limitFlags says what each flag of update sets in r.
func limitFlags(r *specs.LinuxResources) map[string]func(n int64) {
	unsigned := func(p **uint64) func(int64) { return func(n int64) { u := uint64(n); *p = &u } }
	signed := func(p **int64) func(int64) { return func(n int64) { *p = &n } }
	if r == nil {
		r = new(specs.LinuxResources)
	}
	cpu, mem := new(specs.LinuxCPU), new(specs.LinuxMemory)
	inCPU := func(f func(int64)) func(int64) { return func(n int64) { r.CPU = cpu; f(n) } }
	inMemory := func(f func(int64)) func(int64) { return func(n int64) { r.Memory = mem; f(n) } }
	return map[string]func(int64){
		"cpu-period": inCPU(unsigned(&cpu.Period)), "cpu-quota": inCPU(signed(&cpu.Quota)), "cpu-share": inCPU(unsigned(&cpu.Shares)),
		"memory": inMemory(signed(&mem.Limit)), "memory-reservation": inMemory(signed(&mem.Reservation)), "memory-swap": inMemory(signed(&mem.Swap)),
		"pids-limit": func(n int64) { r.Pids = &specs.LinuxPids{Limit: &n} },
	}
}

// update is the command of that name.
func (c *cli) update(o options, args []string) error {
	ct, status, err := c.find(args)
	if err != nil {
		return err
	}
	if status == specs.StateStopped {
		return errs.New(errs.Conflict, "cannot update a container that is %s", status)
	}
	g, err := ct.needGroup()
	if err != nil {
		return err
	}
	r := new(specs.LinuxResources)
	if path := o.get("resources"); path != "" {
		if err := readResources(path, r); err != nil {
			return err
		}
		return g.Update(r)
	}
	for name, set := range limitFlags(r) {
		v := o.get(name)
		if v == "" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return errs.New(errs.Invalid, "--%s %s: not a number", name, v)
		}
		set(n)
	}
	return g.Update(r)
}

// readResources reads the file, or standard input for "-".
func readResources(path string, r *specs.LinuxResources) error {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if err := json.NewDecoder(in).Decode(r); err != nil {
		return errs.New(errs.Invalid, "%s: %w", path, err)
	}
	return nil
}

// events is the command of that name. With --stats it prints once, else at
// every interval until the container has ended.
func (c *cli) events(o options, args []string) error {
	ct, status, err := c.find(args)
	if err != nil {
		return err
	}
	interval := 5 * time.Second
	if v := o.get("interval"); v != "" {
		if interval, err = time.ParseDuration(v); err != nil || interval <= 0 {
			return errs.New(errs.Invalid, "--interval %s: not a duration", v)
		}
	}
	g, err := ct.needGroup()
	if err != nil {
		return err
	}
	for ; status != specs.StateStopped; time.Sleep(interval) {
		stats, err := g.Stats()
		if err != nil {
			return err
		}
		line := struct {
			Type string        `json:"type"`
			ID   string        `json:"id"`
			Data *cgroup.Stats `json:"data"`
		}{"stats", ct.record.ID, stats}
		if err := json.NewEncoder(c.stdout).Encode(line); err != nil || o.has("stats") {
			return err
		}
		if status, err = ct.status(); err != nil {
			return err
		}
	}
	return nil
}

// features is the command of that name (runtime-spec, features.md).
func (c *cli) features(options, []string) error {
	yes, no := true, false
	return c.print(features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specVersion,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: strings.Fields("async atime bind defaults dev diratime dirsync exec idmap lazytime loud mand noatime nodev nodiratime noexec nolazytime" +
			" nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec" +
			" rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent" +
			" slave strictatime suid symfollow sync tmpcopyup unbindable"),
		Linux: &features.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: job.CapabilityNames(1<<41 - 1),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &no},
			Seccomp:      &features.Seccomp{Enabled: &yes},
			Apparmor:     &features.Apparmor{Enabled: &yes},
			Selinux:      &features.Selinux{Enabled: &yes},
		},
	})
}
