package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/ociruntime"
	"gantry/internal/shim/protocol"
)

// This file drives criu(8), which writes the memory and the state of processes
// into a directory and makes processes of it again. What belongs to the
// container's surroundings is not in there and is given anew: the network
// namespace, what is bind-mounted, and the pipes of the standard streams.

// frozenFile, beside criu's images, says what a restore must give anew.
const frozenFile = "gantry.json"

// frozen is its content.
type frozen struct {
	// Stdio names, in criu's words, what descriptors 0 to 2 of the first
	// process were; "" for one that it opened itself.
	Stdio [3]string
	// Net is the inode of the network namespace, 0 for one of its own.
	Net uint64
	// Mounts are the mount points of what comes from the host.
	Mounts []string
}

const netKey = "gantry-net"

// dumpArgs are the arguments of criu to write process pid into dir. Pure.
func (f *frozen) dumpArgs(pid int, dir string, leaveRunning bool) []string { //nolint:revive // as the user said
	args := []string{"dump", "--tree", strconv.Itoa(pid), "--images-dir", dir, "--log-file", "dump.log", "-v2",
		"--manage-cgroups=ignore", "--tcp-established", "--ext-unix-sk", "--file-locks", "--network-lock", "nftables"}
	after := "--leave-stopped" // whoever asked hears of it before the end
	if leaveRunning {
		after = "--leave-running"
	}
	args = append(args, after)
	for _, at := range f.Mounts {
		args = append(args, "--external", "mnt["+at+"]:"+at)
	}
	for _, s := range f.Stdio {
		if strings.HasPrefix(s, "file[") {
			args = append(args, "--external", s)
		}
	}
	if f.Net != 0 {
		args = append(args, "--external", fmt.Sprintf("net[%d]:%s", f.Net, netKey))
	}
	return args
}

// restoreArgs are the arguments of criu to make processes of dir again. sources
// are the host paths of Mounts; the descriptors that follow the first three are
// the standard streams that are not "", then the network namespace. Pure.
func (f *frozen) restoreArgs(dir, root, pidFile string, sources map[string]string) []string {
	args := []string{"restore", "--images-dir", dir, "--log-file", "restore.log", "-v2", "--root", root, "--pidfile", pidFile,
		"--manage-cgroups=ignore", "--restore-detached", "--tcp-established", "--ext-unix-sk", "--file-locks"}
	for _, at := range f.Mounts {
		args = append(args, "--external", "mnt["+at+"]:"+sources[at])
	}
	fd := 3
	for _, s := range f.Stdio {
		if s != "" {
			args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, s))
			fd++
		}
	}
	if f.Net != 0 {
		args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, netKey))
	}
	return args
}

// checkpoint writes the container's processes into a directory. Unless they are
// left running they are stopped then.
func (s *server) checkpoint(c protocol.Checkpoint) error {
	o, ok := s.runtime.(*own)
	switch started, exited := s.main.status(); {
	case !ok:
		return errs.New(errs.Unsupported, "a container of another runtime can not be written to a checkpoint")
	case !started || exited:
		return errs.New(errs.Conflict, "container %s is not running", s.id)
	case s.main.tty:
		return errs.New(errs.Unsupported, "checkpoint not support on containers with tty")
	}
	f, err := survey(s.main.task.Pid(), o.has)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	data, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Dir, frozenFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return s.helped(func() error {
		return runCriu(c.Program, filepath.Join(c.Dir, "dump.log"), nil, f.dumpArgs(s.main.task.Pid(), c.Dir, c.LeaveRunning))
	})
}

// runCriu runs the program; an error ends with what its log says last.
func runCriu(program, log string, files []*os.File, args []string) error {
	os.Remove(log) // criu appends
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.ExtraFiles = files
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	why := criuErrors(out.String())
	if data, e := os.ReadFile(log); e == nil && len(why) == 0 {
		why = criuErrors(string(data))
	}
	if len(why) == 0 {
		return fmt.Errorf("criu %s: %w", args[0], err)
	}
	return fmt.Errorf("criu %s: %w: %s", args[0], err, strings.Join(why, "; "))
}

// criuErrors are the first lines of a log that tell of errors. Pure.
func criuErrors(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if _, text, ok := strings.Cut(line, "Error ("); ok && len(lines) < 4 {
			lines = append(lines, "Error ("+strings.TrimSpace(text))
		}
	}
	return lines
}

// survey finds out what of a process comes from outside.
func survey(pid int, has *mounts) (*frozen, error) {
	f := &frozen{}
	proc := "/proc/" + strconv.Itoa(pid)
	for i := range f.Stdio {
		name := proc + "/fd/" + strconv.Itoa(i)
		to, err := os.Readlink(name)
		switch {
		case errors.Is(err, os.ErrNotExist): // it has closed it
		case err != nil:
			return nil, err
		case strings.HasPrefix(to, "pipe:["):
			f.Stdio[i] = to
		case to == "/dev/null":
			if f.Stdio[i], err = externalFile(proc, i); err != nil {
				return nil, err
			}
		}
	}
	var mine, its unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/net", &mine), unix.Stat(proc+"/ns/net", &its)); err != nil {
		return nil, err
	}
	if mine.Ino != its.Ino {
		f.Net = its.Ino
	}
	info, err := os.ReadFile(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	f.Mounts = outside(string(info), has)
	return f, nil
}

// externalFile names a file that is not in the process's mount namespace.
func externalFile(proc string, fd int) (string, error) {
	info, err := os.ReadFile(proc + "/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(proc+"/fd/"+strconv.Itoa(fd), &st); err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.Atoi(strings.TrimSpace(v))
			return fmt.Sprintf("file[%x:%x]", id, st.Ino), err
		}
	}
	return "", nil
}

// outside lists the mount points of what comes from the host: bind mounts, the
// null device over masked files, and v1 control groups.
func outside(mountinfo string, has *mounts) (list []string) {
	has.mu.Lock()
	defer has.mu.Unlock()
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		at := left[4]
		if m, there := has.at[at]; there && m.bind || right[0] == "devtmpfs" || right[0] == "cgroup" {
			list = append(list, at)
		}
	}
	return list
}

// restore makes the container's processes of a checkpoint. They run when it
// returns.
func (o *own) restore(stdio [3]*os.File) (task, error) {
	data, err := os.ReadFile(filepath.Join(o.frozen.Dir, frozenFile))
	f := &frozen{}
	if err == nil {
		err = json.Unmarshal(data, f)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "the checkpoint can't be read: %w", err)
	}
	files, done, err := o.given(f, stdio)
	if err != nil {
		return nil, err
	}
	defer done()
	pidFile := filepath.Join(o.s.dir, "criu.pid")
	root := filepath.Join(o.s.dir, "criu-root")
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if o.job.Root.Overlay == nil {
		return nil, errs.New(errs.Unsupported, "the container's root file system is no overlay")
	}
	err = onOwnThread(func() error {
		if err := mountRootAt(o.job.Root.Overlay, root); err != nil {
			return err
		}
		if err := mountNull(o.null()); err != nil {
			return fmt.Errorf("null device for masked files: %w", err)
		}
		return runCriu(o.frozen.Program, filepath.Join(o.frozen.Dir, "restore.log"), files, f.restoreArgs(o.frozen.Dir, root, pidFile, o.sources(f)))
	})
	if err != nil {
		return nil, err
	}
	data, err = os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("pid of the restored process: %w", err)
	}
	if o.s.group != nil {
		if err := addTree(o.s.group, pid); err != nil {
			unix.Kill(pid, unix.SIGKILL)
			return nil, err
		}
	}
	o.has = newMounts(o.job.Mounts, make([]ociruntime.MountID, len(o.job.Mounts)))
	return restored(pid), nil
}

// null is where the null device is that masks files.
func (o *own) null() string { return filepath.Join(o.s.dir, "criu-null") }

// mountNull binds the null device to a path, read-only: criu takes the flags of
// some mounts from their source, and the mode and the owner of the host's device
// are not the container's to change.
func mountNull(at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// given are the open files that criu gets; done closes those that are its alone.
func (o *own) given(f *frozen, stdio [3]*os.File) (files []*os.File, done func(), err error) {
	for i, s := range f.Stdio {
		if s != "" {
			files = append(files, stdio[i])
		}
	}
	if f.Net == 0 {
		return files, func() {}, nil
	}
	n := o.job.Namespace(unix.CLONE_NEWNET)
	if n == nil || n.Path == "" {
		return nil, nil, errs.New(errs.Invalid, "the checkpoint is of a container with another network mode")
	}
	ns, err := os.Open(n.Path)
	if err != nil {
		return nil, nil, err
	}
	return append(files, ns), func() { ns.Close() }, nil
}

// sources are the host paths of the mounts that come from there.
func (o *own) sources(f *frozen) map[string]string {
	out := map[string]string{}
	for _, at := range f.Mounts {
		out[at] = o.null()
		if name, ok := strings.CutPrefix(at, "/sys/fs/cgroup/"); ok && o.s.group != nil {
			first, _, _ := strings.Cut(name, ",")
			out[at] = filepath.Join(o.s.cgroups.V1[first], o.s.group.Path())
		}
	}
	for _, m := range o.job.Mounts {
		if m.Type == "bind" {
			out[m.Target] = m.Source
		}
	}
	return out
}

// addTree puts a process and all below it into a group. What they start
// meanwhile is found in the next round.
func addTree(g *cgroup.Group, pid int) error {
	seen := map[int]bool{}
	for more := true; more; {
		more = false
		for _, p := range append([]int{pid}, descendants(pid)...) {
			if seen[p] {
				continue
			}
			seen[p], more = true, true
			if err := g.Add(p); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, t := range tasks {
		data, _ := os.ReadFile(t)
		for _, w := range strings.Fields(string(data)) {
			if p, err := strconv.Atoi(w); err == nil {
				all = append(append(all, p), descendants(p)...)
			}
		}
	}
	return all
}

// restored is a process that criu has made.
type restored int

func (r restored) Pid() int          { return int(r) }
func (r restored) Console() *os.File { return nil }
func (r restored) Start() error      { return nil }
