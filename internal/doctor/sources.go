package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/id"
)

// Directories is the source of the directories below dir that are named by
// their owner's ID. Other names are not looked at.
func Directories(dir string, need Need) Source {
	return Source{Kind: "directory", Need: need, List: func(context.Context) ([]Thing, error) {
		return named(dir)
	}, Remove: func(_ context.Context, t Thing) error {
		return os.RemoveAll(t.Name)
	}}
}

// named lists the entries of dir whose name is a container's ID.
func named(dir string) ([]Thing, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Thing
	for _, e := range entries {
		if id.Valid(e.Name()) {
			list = append(list, Thing{filepath.Join(dir, e.Name()), e.Name()})
		}
	}
	return list, err
}

// Mounts is the source of the mounts below the daemon's directories whose path
// has a container's ID in it.
func Mounts(dirs ...string) Source {
	return Source{Kind: "mount", Need: Running, List: func(context.Context) ([]Thing, error) {
		table, err := os.ReadFile("/proc/self/mountinfo")
		return mountsBelow(table, dirs), err
	}, Remove: func(_ context.Context, t Thing) error {
		return unix.Unmount(t.Name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}}
}

// mountsBelow reads a mount table (proc_pid_mountinfo(5)).
func mountsBelow(table []byte, dirs []string) []Thing {
	var list []Thing
	for sc := bufio.NewScanner(bytes.NewReader(table)); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		path := unescape(fields[4])
		for _, dir := range dirs {
			if rest, ok := strings.CutPrefix(path, dir+"/"); ok {
				if owner := ownerIn(rest); owner != "" {
					list = append(list, Thing{path, owner})
				}
				break
			}
		}
	}
	return list
}

// unescape undoes the octal escapes of a mount table.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// ownerIn returns the first element of a path that is a container's ID.
func ownerIn(path string) string {
	for part := range strings.SplitSeq(path, "/") {
		if id.Valid(part) {
			return part
		}
	}
	return ""
}

// Cgroups is the source of the control groups named by a container's ID, in
// any hierarchy, below parent (a path within a hierarchy such as /gantry).
func Cgroups(mount, parent string) Source {
	return Source{Kind: "cgroup", Need: Running, List: func(context.Context) ([]Thing, error) {
		// One hierarchy mounted at mount, or one in each directory of it.
		roots := []string{filepath.Join(mount, parent)}
		entries, err := os.ReadDir(mount)
		for _, e := range entries {
			if e.IsDir() {
				roots = append(roots, filepath.Join(mount, e.Name(), parent))
			}
		}
		var list []Thing
		for _, root := range roots {
			more, err := named(root)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
		return list, err
	}, Remove: func(_ context.Context, t Thing) error {
		return removeGroup(t.Name)
	}}
}

// removeGroup removes a control group without processes, children first.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

// Processes is the source of the supervisors of containers: processes called
// program whose arguments hold a container's ID and that have something below
// dirs open. The last tells daemons of one host apart.
func Processes(program string, dirs ...string) Source {
	return Source{Kind: "process", Need: Running, List: func(ctx context.Context) ([]Thing, error) {
		entries, err := os.ReadDir("/proc")
		var list []Thing
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil {
				continue
			}
			cmd, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if err != nil {
				continue // it has ended
			}
			if owner := supervised(cmd, program); owner != "" && hasOpen(e.Name(), dirs) {
				list = append(list, Thing{e.Name(), owner})
			}
		}
		return list, err
	}, Remove: func(_ context.Context, t Thing) error {
		pid, err := strconv.Atoi(t.Name)
		if err != nil {
			return err
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			return nil // it has ended by itself
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// The number may have been given to another process since.
		if cmd, err := os.ReadFile("/proc/" + t.Name + "/cmdline"); err != nil || supervised(cmd, program) != t.Owner {
			return err
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != unix.ESRCH {
			return err
		}
		return nil // it has ended by itself
	}}
}

// supervised returns the container's ID of a command line of program.
func supervised(cmdline []byte, program string) string {
	args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	if filepath.Base(args[0]) != program {
		return ""
	}
	for _, a := range args[1:] {
		if id.Valid(a) {
			return a
		}
	}
	return ""
}

// hasOpen reports whether a process has its working directory or a descriptor
// below one of dirs.
func hasOpen(pid string, dirs []string) bool {
	links := []string{"/proc/" + pid + "/cwd"}
	fds, _ := os.ReadDir("/proc/" + pid + "/fd")
	for _, fd := range fds {
		links = append(links, "/proc/"+pid+"/fd/"+fd.Name())
	}
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil {
			continue
		}
		for _, dir := range dirs {
			if to == dir || strings.HasPrefix(to, dir+"/") {
				return true
			}
		}
	}
	return false
}
