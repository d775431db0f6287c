// Package handover replaces the running program by another one in the same
// process (execve(2)), which keeps the process ID, the locks and the sockets:
// the old program says in an environment variable which descriptor is what, and
// the new one reads that.
//
// The daemon's wiring calls it at an upgrade. It writes nothing, and must not
// know what is served on the sockets.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// variable carries a State to the next program.
const variable = "GANTRY_HANDOVER"

// Protocol is what Hello says: programs of another one can't take over.
const Protocol = 1

// Hello is what a program prints that is asked whether it can take over.
func Hello() string { return fmt.Sprintf("gantryd takes over %d\n", Protocol) }

// A State is what one program leaves to the next.
type State struct {
	Protocol int
	Attempt  int             // how many times a program was to take over
	Args     []string        // of the command line, with the name of the program
	From     string          // version of the one before
	Doors    map[string]Door // by what they are for
	Locks    map[string]int  // descriptors by directory
	Old      int             // descriptor of the program before
	Failed   string          // why the next one gave back; empty at first
}

// A Door is a socket with the connections that wait for their next request.
type Door struct {
	Listener int
	Conns    []int
}

// Take returns what the program before left; nil if there was none. The
// descriptors are closed at the next execve(2).
func Take() (*State, error) {
	text := os.Getenv(variable)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(variable)
	s := &State{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("what the program before left can't be read: %w", err)
	}
	for _, fd := range s.descriptors() {
		unix.CloseOnExec(fd)
	}
	if s.Protocol != Protocol {
		return s, errs.New(errs.Unsupported, "the program before hands over by protocol %d, this one takes over by %d", s.Protocol, Protocol)
	}
	reapChildren()
	return s, nil
}

func (s *State) descriptors() []int {
	all := []int{s.Old}
	for _, d := range s.Doors {
		all = append(append(all, d.Listener), d.Conns...)
	}
	for _, fd := range s.Locks {
		all = append(all, fd)
	}
	return all
}

// File returns a file of its own for a descriptor; nil if there is none.
func File(fd int) *os.File {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(own), "handed over "+strconv.Itoa(own))
}

// Release closes the descriptors: this program is up, and there is no way back.
func (s *State) Release() {
	for _, fd := range s.descriptors() {
		unix.Close(fd)
	}
}

// Exec replaces this program by that at path. It returns only with an error.
func (s *State) Exec(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, variable+"=") }), variable+"="+string(text))
	for _, fd := range s.descriptors() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", fd, err)
		}
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, s.Args, env))
}

// Back gives everything back to the program before, which is told why. It
// returns only with an error.
func (s *State) Back(why error) error {
	if s.Failed != "" {
		return errors.Join(why, errs.New(errs.Unknown, "the program before failed too: %s", s.Failed))
	}
	s.Failed = why.Error()
	return errors.Join(why, s.Exec(fmt.Sprintf("/proc/self/fd/%d", s.Old)))
}

// helloTime is how long a program may take to say that it can take over.
const helloTime = 20 * time.Second

// Ask has the program at path check, with the same arguments, whether it could
// take over. The program that serves goes on meanwhile.
func Ask(ctx context.Context, path string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(slices.Clone(args), "--upgrade-check")...)
	cmd.WaitDelay = time.Second
	var out, complaints limited
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	switch said := strings.TrimSpace(complaints.String()); {
	case ctx.Err() != nil:
		return errs.New(errs.Invalid, "%s did not say within %v that it can take over", path, helloTime)
	case err != nil && said != "":
		return errs.New(errs.Invalid, "%s can't take over: %w: %s", path, err, said)
	case err != nil:
		return errs.New(errs.Invalid, "%s can't take over: %w", path, err)
	case out.String() != Hello():
		return errs.New(errs.Invalid, "%s can't take over: it is no gantryd of this kind (it says %.60q)", path, out.String())
	}
	return nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ strings.Builder }

// Write keeps at most 4 kB.
func (l *limited) Write(p []byte) (int, error) {
	l.Builder.Write(p[:min(len(p), max(0, 4096-l.Len()))])
	return len(p), nil
}

var _ io.Writer = (*limited)(nil)

// reapChildren waits for the processes that the program before started, the
// containers' supervisors among them: nobody else would.
func reapChildren() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, task := range tasks {
		data, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		for _, text := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(text); err == nil {
				go func() {
					var status unix.WaitStatus
					for {
						if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
							return
						}
					}
				}()
			}
		}
	}
}
