package ociruntime

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// lookup finds the program: Args[0] itself if it holds a slash, else the first
// executable file of that name in PATH. Errors are *ExecError in the words that
// Docker's clients know, with the exit code of a shell: 127 not found, 126
// found but not executable.
func (c *child) lookup() (string, error) {
	name := c.proc.Args[0]
	if strings.Contains(name, "/") {
		return name, c.executable(name)
	}
	path, _ := getenv(c.proc.Env, "PATH")
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		if c.executable(file) == nil {
			return file, nil
		}
	}
	return "", &ExecError{Code: 127, Text: fmt.Sprintf("exec: %q: executable file not found in $PATH", name) + whyNotFound(name, path)}
}

// getenv returns the last value of a variable.
func getenv(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

func (c *child) executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		code := 126
		if err == unix.ENOENT || err == unix.ENOTDIR {
			code = 127
		}
		text := fmt.Sprintf("exec: %q: stat %s: %s", file, file, err)
		if err == unix.EACCES {
			text += whyDenied(file)
		}
		return &ExecError{Code: code, Text: text}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec: %q: is a directory: permission denied", file)}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != nil {
		text := fmt.Sprintf("exec: %q: %s", file, err)
		if err == unix.EACCES {
			text += whyDenied(file)
		}
		return &ExecError{Code: 126, Text: text}
	}
	return nil
}

// vectors makes the arguments and environment of the program for execve(2).
// HOME is added if it is missing, from the container's own passwd file.
func (c *child) vectors() (argv, envp []*byte, err error) {
	args := c.proc.Args
	if c.reaping() {
		args = append([]string{reaperName, "--"}, args...)
	}
	env := c.proc.Env
	if home, ok := getenv(env, "HOME"); !ok || home == "" {
		env = append(env[:len(env):len(env)], "HOME="+c.home())
	}
	if argv, err = pointers(args); err != nil {
		return nil, nil, err
	}
	envp, err = pointers(env)
	return argv, envp, err
}

func (c *child) reaping() bool { return c.job != nil && c.job.Reaper }

func pointers(list []string) ([]*byte, error) {
	out := make([]*byte, len(list)+1)
	for i, s := range list {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, fmt.Errorf("argument or variable %q holds a zero byte", s)
		}
		out[i] = p
	}
	return out, nil
}

// maxPasswd bounds the passwd file of an image.
const maxPasswd = 4 << 20

func (c *child) home() string {
	data, err := c.tree.root.ReadFile("/etc/passwd", maxPasswd)
	if err == nil {
		if home := homeOf(data, c.proc.UID); home != "" {
			return home
		}
	}
	return "/"
}

// homeOf finds a user's home directory in a passwd(5) file.
func homeOf(passwd []byte, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) >= 6 && f[2] == want {
			return f[5]
		}
	}
	return ""
}

// execute is the last thing a child does.
func (c *child) execute(path string, argv, envp []*byte) error {
	// A handler dies with execve, but "ignore" is inherited: from whoever
	// started the shim.
	defaultSignals()
	if c.reaping() {
		if err := unix.Dup3(c.sock, 3+len(c.s.extra), 0); err != nil {
			return fmt.Errorf("pass the socket to the reaper: %w", err)
		}
		empty := []byte{0}
		_, _, e := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(c.s.exe), uintptr(unsafe.Pointer(&empty[0])),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
		return fmt.Errorf("execute the reaper: %w", e)
	}
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, e := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
	return execError(c.proc.Args[0], path, e)
}

// sigaction is the kernel's struct of rt_sigaction(2) on the architectures that
// we run on.
type sigaction struct{ handler, flags, restorer, mask uint64 }

func defaultSignals() {
	const ignore = 1 // SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		var now, dfl sigaction
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0); e == 0 && now.handler == ignore {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
		}
	}
}

// processOf is as much of a process as lookup needs, from this process's own
// environment.
func processOf(args []string) *job.Process {
	return &job.Process{Args: args, Env: os.Environ()}
}
