package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/ociruntime"
	"gantry/internal/ociruntime/job"
	"gantry/internal/seccomp"
)

func createFlags() flags {
	return flags{
		"bundle": flagValue, "b": "bundle", "console-socket": flagValue, "pid-file": flagValue, "preserve-fds": flagValue,
		"no-pivot": flagOnly, "no-new-keyring": flagOnly, "detach": flagOnly, "d": "detach", "keep": flagOnly,
		"no-subreaper": flagOnly,
	}
}

// create is the command of that name.
func (c *cli) create(o options, args []string) error {
	id, err := one(args)
	if err != nil {
		return err
	}
	o["detach"] = []string{"true"}
	_, i, err := c.make(id, o)
	if err != nil {
		return err
	}
	return i.Close()
}

// run is the command of that name: create, start, and without --detach wait and
// delete.
func (c *cli) run(o options, args []string) error {
	id, err := one(args)
	if err != nil {
		return err
	}
	ct, i, err := c.make(id, o)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := ct.release(); err != nil {
		return errors.Join(err, ct.destroy())
	}
	if o.has("detach") {
		return nil
	}
	var console *os.File
	if o.get("console-socket") == "" {
		console = i.Console()
	}
	if c.code, err = follow(i, console); err != nil || o.has("keep") {
		return err
	}
	return ct.destroy()
}

// follow passes signals on to a process, and the terminal's bytes if there is
// one to serve, until it ends.
func follow(i *ociruntime.Init, console *os.File) (int, error) {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(sigs)
	var t *tty
	if console != nil {
		var err error
		if t, err = serveTTY(console); err != nil {
			return 0, err
		}
		defer t.close()
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-sigs:
				if s == syscall.SIGWINCH {
					t.resize()
					continue
				}
				i.Signal(s.(syscall.Signal))
			case <-ended:
				return
			}
		}
	}()
	return i.Wait()
}

// make creates a container from its bundle up to the waiting init. After an
// error nothing is left.
func (c *cli) make(id string, o options) (ct *container, i *ociruntime.Init, err error) {
	if err := checkID(id); err != nil {
		return nil, nil, err
	}
	bundle, err := filepath.Abs(o.get("bundle"))
	if err != nil {
		return nil, nil, err
	}
	spec, err := readSpec(bundle)
	if err != nil {
		return nil, nil, err
	}
	ct = &container{dir: filepath.Join(c.root, id)}
	if ct.job, err = c.jobOf(id, bundle, spec); err != nil {
		return nil, nil, err
	}
	if ct.job.Process.Terminal && o.get("console-socket") == "" && o.has("detach") {
		return nil, nil, errs.New(errs.Invalid, "a terminal needs --console-socket when the container is detached")
	}
	if err := os.MkdirAll(c.root, 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(ct.dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, nil, errs.New(errs.Conflict, "container with id exists: %s", id)
	} else if err != nil {
		return nil, nil, err
	}
	ct.record = record{
		OCIVersion: spec.Version, ID: id, Bundle: bundle, Rootfs: ct.job.Root.Path,
		Created: time.Now().UTC(), Annotations: spec.Annotations, Cgroup: ct.job.Cgroup.Path,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ct.undo(i))
		}
	}()
	if err := unix.Mkfifo(ct.fifo(), 0o622); err != nil {
		return ct, nil, fmt.Errorf("make %s: %w", ct.fifo(), err)
	}
	if i, err = ct.spawn(o); err != nil {
		return ct, i, err
	}
	return ct, i, ct.announce(i, o)
}

// spawn makes the cgroup and the init.
func (ct *container) spawn(o options) (*ociruntime.Init, error) {
	opts, err := processOptions(o)
	if err != nil {
		return nil, err
	}
	opts.Fifo = ct.fifo()
	g, err := ct.group()
	if err != nil {
		return nil, err
	}
	if g != nil {
		if err := g.Create(nil); err != nil {
			return nil, err
		}
		done, err := joinGroup(&opts, g)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	i, err := ociruntime.Create(ct.job, opts)
	if err != nil {
		return nil, err
	}
	if g != nil {
		// After Create: a limit on processes counts the runtime's threads.
		err = g.Update(ct.job.Cgroup.Resources)
	}
	return i, err
}

// joinGroup has the new process put into g. The returned function frees what
// that needs.
func joinGroup(opts *ociruntime.Options, g *cgroup.Group) (func(), error) {
	dir, err := g.OpenDir()
	if err != nil {
		return nil, err
	}
	if dir == nil { // not v2
		opts.Joined = g.Add
		return func() {}, nil
	}
	opts.CgroupFD = int(dir.Fd())
	return func() { dir.Close() }, nil
}

// announce hands the terminal out and writes down what there is now.
func (ct *container) announce(i *ociruntime.Init, o options) error {
	var err error
	ct.record.Pid = i.Pid()
	if ct.record.StartTime, _, err = processStat(i.Pid()); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(ct.dir, jobFile), ct.job.Encode(), 0o600); err != nil {
		return err
	}
	if err := ct.save(); err != nil {
		return err
	}
	if err := sendConsole(o.get("console-socket"), i.Console()); err != nil {
		return err
	}
	return writePid(o.get("pid-file"), i.Pid())
}

func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	return durable.Replace(path, []byte(strconv.Itoa(pid)), 0o644)
}

// undo removes what make has made.
func (ct *container) undo(i *ociruntime.Init) error {
	if i != nil {
		unix.Kill(i.Pid(), unix.SIGKILL)
		i.Wait()
		i.Close()
	}
	g, err := ct.group()
	if err == nil && g != nil {
		err = g.Remove()
	}
	return errors.Join(err, os.RemoveAll(ct.dir))
}

func readSpec(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, errs.New(errs.Invalid, "%s/config.json: %w", bundle, err)
	}
	return spec, nil
}

// jobOf makes the container's job.
func (c *cli) jobOf(id, bundle string, spec *specs.Spec) (*job.Job, error) {
	o := job.Options{ID: id, Bundle: bundle}
	if spec.Linux != nil && spec.Linux.Seccomp != nil {
		var err error
		if o.Filter, o.FilterFlags, err = seccomp.Compile(spec.Linux.Seccomp); err != nil {
			return nil, err
		}
	}
	j, err := job.FromSpec(spec, o)
	if err != nil {
		return nil, err
	}
	if r := j.Cgroup.Resources; r != nil && len(r.Devices) > 0 {
		all := *r
		all.Devices = append(slices.Clone(r.Devices), defaultDevices()...)
		j.Cgroup.Resources = &all
	}
	if !c.systemdCgroup || !cgroup.SystemdRuns() || strings.Count(j.Cgroup.Path, ":") != 2 {
		j.Cgroup.Path = cgroupPath(j.Cgroup.Path, id)
	}
	return j, nil
}

// defaultDevices are allowed whatever a spec's list says: the devices that a
// runtime has to supply (runtime-spec, config-linux.md, "Default Devices"), and
// making nodes, which opens nothing.
func defaultDevices() []specs.LinuxDeviceCgroup {
	var rules []specs.LinuxDeviceCgroup
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {136, -1}} {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d[0], Minor: &d[1], Access: "rwm"}
		if d[1] < 0 {
			r.Minor = nil // any terminal
		}
		rules = append(rules, r)
	}
	for _, kind := range []string{"c", "b"} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: "m"})
	}
	return rules
}

// cgroupPath is where the container's group is below every hierarchy when
// systemd does not make it. Paths for systemd, slice:prefix:name, become the path
// that it would give them.
func cgroupPath(path, id string) string {
	if path == "" {
		return "/" + id
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return filepath.Clean("/" + path)
	}
	slice, prefix, name := parts[0], parts[1], parts[2]
	if slice == "" {
		slice = "system.slice"
	}
	dir := "/"
	if stem := strings.TrimSuffix(slice, ".slice"); stem != "-" {
		// a-b.slice is below a.slice (systemd.slice(5)).
		for i := range stem {
			if stem[i] == '-' && i > 0 {
				dir = filepath.Join(dir, stem[:i]+".slice")
			}
		}
		dir = filepath.Join(dir, slice)
	}
	if strings.HasSuffix(name, ".slice") {
		return filepath.Join(dir, name)
	}
	if prefix != "" {
		name = prefix + "-" + name
	}
	return filepath.Join(dir, name+".scope")
}

// processOptions are those that create and exec have in common: our own
// standard streams, and descriptors to pass.
func processOptions(o options) (ociruntime.Options, error) {
	opts := ociruntime.Options{Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if v := o.get("preserve-fds"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 1024 {
			return opts, errs.New(errs.Invalid, "--preserve-fds %s: not a number of descriptors", v)
		}
		for fd := 3; fd < 3+n; fd++ {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
				return opts, errs.New(errs.Invalid, "--preserve-fds %d: descriptor %d is not open", n, fd)
			}
			opts.ExtraFiles = append(opts.ExtraFiles, os.NewFile(uintptr(fd), "preserved"))
		}
	}
	return opts, nil
}
