package ocicli

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime"
	"gantry/internal/ociruntime/job"
)

func execFlags() flags {
	return flags{
		"process": flagValue, "p": "process", "detach": flagOnly, "d": "detach", "tty": flagOnly, "t": "tty",
		"cwd": flagValue, "env": flagValue, "e": "env", "user": flagValue, "u": "user", "additional-gids": flagValue, "g": "additional-gids",
		"cap": flagValue, "c": "cap", "console-socket": flagValue, "pid-file": flagValue, "preserve-fds": flagValue,
		"no-new-privs": flagOnly, "apparmor": flagValue, "process-label": flagValue, "ignore-paused": flagOnly, "cgroup": flagValue,
	}
}

// exec is the command of that name.
func (c *cli) exec(o options, args []string) error {
	if len(args) == 0 {
		return errs.New(errs.Invalid, "a container ID is needed")
	}
	ct, status, err := c.find(args[:1])
	if err != nil {
		return err
	}
	if status == specs.StateStopped || status == "paused" && !o.has("ignore-paused") {
		return errs.New(errs.Conflict, "cannot exec in a container that is %s", status)
	}
	p, err := ct.processOf(o, args[1:])
	if err != nil {
		return err
	}
	socket := o.get("console-socket")
	if p.Terminal && socket == "" && o.has("detach") {
		return errs.New(errs.Invalid, "a terminal needs --console-socket when the process is detached")
	}
	opts, err := processOptions(o)
	if err != nil {
		return err
	}
	g, err := ct.group()
	if err != nil {
		return err
	}
	if g != nil {
		done, err := joinGroup(&opts, g)
		if err != nil {
			return err
		}
		defer done()
	}
	i, err := ociruntime.Exec(ociruntime.Target{Pid: ct.record.Pid}, p, opts)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := sendConsole(socket, i.Console()); err != nil {
		return err
	}
	if err := i.Start(); err != nil {
		return err
	}
	if err := writePid(o.get("pid-file"), i.Pid()); err != nil {
		return err
	}
	if o.has("detach") {
		return nil
	}
	var console *os.File
	if socket == "" {
		console = i.Console()
	}
	c.code, err = follow(i, console)
	return err
}

// processOf is the process to exec: that of --process, or the container's own
// with what the flags and arguments say.
func (ct *container) processOf(o options, args []string) (*job.Process, error) {
	own := ct.job.Process
	if path := o.get("process"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		spec := new(specs.Process)
		if err := json.Unmarshal(data, spec); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", path, err)
		}
		p, err := job.ProcessFromSpec(spec, job.ProcessOptions{})
		if err != nil {
			return nil, err
		}
		p.Seccomp = own.Seccomp
		if o.has("tty") {
			p.Terminal = true
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errs.New(errs.Invalid, "a command is needed")
	}
	p := own
	p.Args, p.Terminal = args, o.has("tty")
	p.Env = append(append([]string(nil), own.Env...), o["env"]...)
	if v := o.get("cwd"); v != "" {
		p.Cwd = v
	}
	if o.has("no-new-privs") {
		p.NoNewPrivileges = true
	}
	if v := o.get("apparmor"); v != "" {
		p.AppArmor = v
	}
	if v := o.get("process-label"); v != "" {
		p.SELinux = v
	}
	if err := setCaps(&p, o["cap"]); err != nil {
		return nil, err
	}
	return &p, setUser(&p, o)
}

// setCaps adds capabilities to all sets but the inheritable and ambient ones.
func setCaps(p *job.Process, names []string) error {
	mask, err := job.CapabilityMask(names)
	if err != nil {
		return err
	}
	p.Caps.Bounding |= mask
	p.Caps.Effective |= mask
	p.Caps.Permitted |= mask
	return nil
}

// setUser takes --user uid[:gid] and --additional-gids.
func setUser(p *job.Process, o options) error {
	number := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n == 1<<32-1 {
			return 0, errs.New(errs.Invalid, "%q is no user or group ID", s)
		}
		return uint32(n), nil
	}
	if v := o.get("user"); v != "" {
		user, group, hasGroup := strings.Cut(v, ":")
		var err error
		if p.UID, err = number(user); err != nil {
			return err
		}
		if hasGroup {
			if p.GID, err = number(group); err != nil {
				return err
			}
		}
		if p.UID != 0 && len(o["cap"]) == 0 {
			p.Caps.Effective, p.Caps.Permitted = p.Caps.Ambient, p.Caps.Ambient
		}
	}
	for _, v := range o["additional-gids"] {
		g, err := number(v)
		if err != nil {
			return err
		}
		p.Groups = append(p.Groups[:len(p.Groups):len(p.Groups)], g)
	}
	return nil
}

// ps is the command of that name.
func (c *cli) ps(o options, args []string) error {
	if len(args) == 0 {
		return errs.New(errs.Invalid, "a container ID is needed")
	}
	ct, _, err := c.find(args[:1])
	if err != nil {
		return err
	}
	g, err := ct.needGroup()
	if err != nil {
		return err
	}
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	if o.get("format") == "json" {
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(c.stdout).Encode(pids)
	}
	rows := [][]string{{"UID", "PID", "PPID", "STAT", "CMD"}}
	for _, pid := range pids {
		if row, err := psRow(pid); err == nil {
			rows = append(rows, row)
		}
	}
	for _, r := range rows {
		if _, err := os.Stdout.WriteString(pad(r)); err != nil {
			return err
		}
	}
	return nil
}

func pad(r []string) string {
	var b strings.Builder
	for i, s := range r {
		b.WriteString(s)
		if i < len(r)-1 {
			b.WriteString(strings.Repeat(" ", max(1, 9-len(s))))
		}
	}
	return b.String() + "\n"
}

// psRow reads one process from procfs.
func psRow(pid int) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	stat := string(data)
	name := stat[strings.IndexByte(stat, '(')+1 : strings.LastIndexByte(stat, ')')]
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	cmd, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return nil, err
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
	if line == "" {
		line = "[" + name + "]"
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, err
	}
	return []string{strconv.Itoa(int(st.Uid)), strconv.Itoa(pid), f[1], f[0], line}, nil
}
