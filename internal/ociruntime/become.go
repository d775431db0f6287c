package ociruntime

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// become turns the prepared child into the user's program: what needs rights
// first, then the user, then the filter, then the last rights. It returns only
// with an error.
func (c *child) become() error {
	p := c.proc
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"set the security label", c.label},
		{"set up standard streams", c.streams},
		{"set scheduling", c.schedule},
		{"set limits", c.limits},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	unix.Umask(int(p.Umask))
	inside, err := c.chdir()
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return c.cwdError(err)
	}
	if err := c.ids(); err != nil {
		return err
	}
	if !inside {
		// Root may have been denied what the user is allowed (a directory of
		// a network file system).
		if inside, err = c.chdir(); !inside {
			return c.cwdError(err)
		}
	}
	// A directory that was open outside the root would show here (row S1).
	if wd, err := unix.Getwd(); err != nil || !strings.HasPrefix(wd, "/") {
		return errors.New("the working directory is outside of the container")
	}
	path, err := c.lookup()
	if err != nil {
		return err
	}
	argv, envp, err := c.vectors()
	if err != nil {
		return err
	}
	if err := c.confine(); err != nil {
		return err
	}
	return c.execute(path, argv, envp)
}

func (c *child) cwdError(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno // without the name, which the text has already
	}
	text := fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %s", c.proc.Cwd, err)
	if errors.Is(err, unix.EACCES) {
		text += whyDenied(c.proc.Cwd + "/.")
	}
	return &ExecError{Code: 126, Text: text}
}

// chdir enters the working directory. It is resolved in the container's root
// without following magic links, so no descriptor of ours can be one (row S1).
func (c *child) chdir() (inside bool, err error) {
	fd, err := c.tree.root.OpenFd(c.proc.Cwd, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fchdir(fd)
	}
	return err == nil, err
}

// label asks for the label that execve(2) will give. A label that can't be set
// is an error: the process must not run without it (row S6).
func (c *child) label() error {
	p := c.proc
	if p.AppArmor == "" && p.SELinux == "" {
		return nil
	}
	proc, err := privateProcfs()
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	tid := unix.Gettid()
	if p.SELinux != "" {
		if err := writeProcFile(proc, fmt.Sprintf("self/task/%d/attr/exec", tid), p.SELinux); err != nil {
			return err
		}
	}
	if p.AppArmor == "" {
		return nil
	}
	file := fmt.Sprintf("self/task/%d/attr/apparmor/exec", tid)
	err = writeProcFile(proc, file, "exec "+p.AppArmor)
	if errors.Is(err, os.ErrNotExist) && p.AppArmor == "unconfined" {
		return nil
	}
	return err
}

// streams puts descriptors 0 to 2, and the extra ones from 3 on, in place, and
// leaves every other one to be closed by execve(2).
func (c *child) streams() error {
	std := c.s.stdio
	if c.console >= 0 {
		std = [3]int32{int32(c.console), int32(c.console), int32(c.console)}
	}
	first := 3 + len(c.s.extra)
	// Everything still needed moves out of the way of the low numbers.
	lift := func(fd int32) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, first+1) }
	sources := append(append([]int32{}, std[:]...), c.s.extra...)
	lifted := make([]int, len(sources))
	for i, fd := range sources {
		var err error
		if lifted[i], err = lift(fd); err != nil {
			return err
		}
	}
	sock, err := lift(syncFd)
	if err != nil {
		return err
	}
	exe, err := lift(c.s.exe)
	if err != nil {
		return err
	}
	c.s.exe = int32(exe)
	for i, fd := range lifted {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return err
		}
		unix.Close(fd)
	}
	c.sock = sock
	if err := c.own(); err != nil {
		return err
	}
	return unix.CloseRange(uint(first), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
}

// own gives the standard streams to the user, so that it can open
// /proc/self/fd/N, and makes a terminal the controlling one.
func (c *child) own() error {
	if c.console >= 0 {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("make the terminal the controlling one: %w", err)
		}
	}
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		null := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		if null || st.Uid == c.proc.UID {
			continue
		}
		err := unix.Fchown(fd, int(c.proc.UID), -1)
		if err != nil && err != unix.EPERM && err != unix.EINVAL && err != unix.EROFS {
			return fmt.Errorf("give descriptor %d to user %d: %w", fd, c.proc.UID, err)
		}
	}
	return nil
}

// schedAttr is the kernel's struct sched_attr (sched_setattr(2)).
type schedAttr struct {
	size                      uint32
	policy                    uint32
	flags                     uint64
	nice                      int32
	priority                  uint32
	runtime, deadline, period uint64
	utilMin, utilMax          uint32
}

func (c *child) schedule() error {
	p := c.proc
	if s := p.Scheduler; s != nil {
		a := schedAttr{
			policy: s.Policy, flags: s.Flags, nice: s.Nice, priority: s.Priority,
			runtime: s.Runtime, deadline: s.Deadline, period: s.Period,
		}
		a.size = uint32(unsafe.Sizeof(a))
		if _, _, e := unix.RawSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&a)), 0); e != 0 {
			return fmt.Errorf("scheduler: %w", e)
		}
	}
	if q := p.IOPriority; q != nil {
		const whoProcess, classShift = 1, 13 // linux/ioprio.h
		if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(q.Class)<<classShift|uintptr(q.Priority)); e != 0 {
			return fmt.Errorf("I/O priority: %w", e)
		}
	}
	set := p.FinalAffinity
	if len(set) == 0 {
		set = p.Affinity
	}
	if len(set) > 0 {
		if _, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(8*len(set)), uintptr(unsafe.Pointer(&set[0]))); e != 0 {
			return fmt.Errorf("CPU affinity: %w", e)
		}
	}
	if c.job != nil && c.job.Personality != nil {
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(*c.job.Personality), 0, 0); e != 0 {
			return fmt.Errorf("personality: %w", e)
		}
	}
	return nil
}

// limits sets resource limits. The Go runtime has raised the soft limit of open
// files for itself, to one below the hard limit; a program whose spec does not
// name the limit gets the kernel's ordinary soft limit back.
func (c *child) limits() error {
	nofile := false
	for _, r := range c.proc.Rlimits {
		if r.Resource == unix.RLIMIT_NOFILE {
			nofile = true
		}
		lim := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		if err := unix.Prlimit(0, r.Resource, &lim, nil); err != nil {
			return fmt.Errorf("limit %d to %d:%d: %w", r.Resource, r.Soft, r.Hard, err)
		}
	}
	if nofile {
		return nil
	}
	const ordinary = 1024 // INR_OPEN_CUR of linux/fs.h
	var lim unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &lim); err != nil {
		return err
	}
	if lim.Cur == lim.Max-1 && lim.Cur > ordinary {
		lim.Cur = ordinary
		return unix.Prlimit(0, unix.RLIMIT_NOFILE, &lim, nil)
	}
	return nil
}

// ids drops what the bounding set must not have and becomes the process's user,
// keeping its permitted capabilities for what is still to be done. Together with
// confine the order is:
//
//	bounding set, keep capabilities, groups, gid, uid  │  all capabilities
//	effective again, [no_new_privs,] filter, the wanted capabilities, ambient set
//
// so that each step is possible and almost no system call comes after the filter.
func (c *child) ids() error {
	last := lastCapability()
	for n := uintptr(0); n <= last; n++ {
		if c.proc.Caps.Bounding>>n&1 == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := setIDs(c.proc); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("don't keep capabilities: %w", err)
	}
	return nil
}

// confine installs the filter and leaves the wanted capabilities. What this
// process does not have itself (inside another container) can't be given.
func (c *child) confine() error {
	p := c.proc
	had, err := permitted()
	if err != nil {
		return err
	}
	if err := setCaps(had, had, 0); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	if err := filter(p.Seccomp); err != nil {
		return err
	}
	// Inheritable first: the ambient set is what is permitted and inheritable.
	inheritable := p.Caps.Inheritable & p.Caps.Bounding & had
	if err := setCaps(p.Caps.Effective&had, p.Caps.Permitted&had, inheritable); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	for set := p.Caps.Ambient & had; set != 0; set &= set - 1 {
		n := bits.TrailingZeros64(set)
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", n, err)
		}
	}
	return nil
}

// setIDs sets groups, gid and uid of this thread: raw system calls, since Go's
// own would go round all threads.
func setIDs(p *job.Process) error {
	var groups unsafe.Pointer
	if len(p.Groups) > 0 {
		groups = unsafe.Pointer(&p.Groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(groups), 0); e != 0 {
		// In a user namespace whose owner may not set groups there are none
		// that anybody could use (user_namespaces(7), "setgroups").
		if e != unix.EPERM || len(p.Groups) > 0 {
			return fmt.Errorf("set supplementary groups %v: %w", p.Groups, e)
		}
	}
	runtime.KeepAlive(p)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); e != 0 {
		return fmt.Errorf("set gid %d: %w", p.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); e != 0 {
		return fmt.Errorf("set uid %d: %w", p.UID, e)
	}
	return nil
}

// lastCapability is the highest one that the kernel knows: asking for more is
// EINVAL.
func lastCapability() uintptr {
	n := uintptr(unix.CAP_LAST_CAP)
	for n < 63 && unix.Prctl(unix.PR_CAPBSET_READ, n+1, 0, 0, 0) == nil {
		n++
	}
	for n > 0 && unix.Prctl(unix.PR_CAPBSET_READ, n, 0, 0, 0) != nil {
		n--
	}
	return n
}

func permitted() (uint64, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32, nil
}

func setCaps(effective, permitted, inheritable uint64) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	return unix.Capset(&h, &d[0])
}

// sockFprog is the kernel's struct sock_fprog (seccomp(2)).
type sockFprog struct {
	n      uint16
	filter *byte
}

// filter installs the system call filter on this thread; execve(2) keeps it.
func filter(s *job.Seccomp) error {
	if s == nil || len(s.Filter) == 0 {
		return nil
	}
	prog := sockFprog{n: uint16(len(s.Filter) / 8), filter: &s.Filter[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(s.Flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(s)
	if e != 0 {
		return fmt.Errorf("install the seccomp filter: %w", e)
	}
	return nil
}
