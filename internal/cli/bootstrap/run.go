package bootstrap

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// grace is how long a program may take to clean up after itself.
const grace = 30 * time.Second

// runner runs the programs.
type runner struct {
	dir   string // that is removed afterwards
	date  time.Time
	proxy []string
	tell  func(string)
	last  []string // lines that the program wrote last
}

// produce writes the program's tar to w.
func (r *runner) produce(ctx context.Context, tool string, p Plan, w io.Writer) error {
	root := filepath.Join(r.dir, "root")
	args := Args(tool, p, root)
	if tool == Mmdebstrap {
		return r.run(ctx, w, args...)
	}
	if err := r.run(ctx, r.lines(), args...); err != nil {
		return err
	}
	return r.run(ctx, w, "tar", "-C", root, "--sort=name", "--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--one-file-system", "-c", ".")
}

// run runs a program to its end. When ctx ends, it gets time to clean up.
func (r *runner) run(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = slices.Concat(os.Environ(), r.proxy, []string{
		"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "TMPDIR=" + r.dir,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.date.Unix(), 10),
	})
	cmd.Dir = "/"
	cmd.Stdout = out
	cmd.Stderr = r.lines()
	// A group of its own: ctrl-c is ours to pass on, and reaches all that it has
	// started. Root's mounts are in a namespace that ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whatever is left of the group
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s failed: %w%s", args[0], err, r.why())
}

// lines returns a writer that tells what a program says, a line at a time.
func (r *runner) lines() *lineWriter {
	return &lineWriter{func(line string) {
		if line = strings.TrimSpace(line); line == "" {
			return
		}
		if r.last = append(r.last, line); len(r.last) > 40 {
			r.last = r.last[1:]
		}
		r.tell(line)
	}, nil}
}

// why returns the lines that tell why a program failed.
func (r *runner) why() string {
	var b strings.Builder
	for _, l := range r.last {
		if strings.HasPrefix(l, "E:") || strings.HasPrefix(l, "Err:") {
			b.WriteString("\n" + l)
		}
	}
	if b.Len() == 0 {
		for _, l := range r.last[max(0, len(r.last)-5):] {
			b.WriteString("\n" + l)
		}
	}
	return b.String()
}

// lineWriter cuts what is written to it into lines, at carriage returns too.
type lineWriter struct {
	tell func(string)
	rest []byte
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexAny(l.rest, "\r\n")
		if i < 0 {
			if len(l.rest) > bufio.MaxScanTokenSize {
				l.rest = nil
			}
			return len(p), nil
		}
		l.tell(string(l.rest[:i]))
		l.rest = l.rest[i+1:]
	}
}
