package soak

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

func decode(text string, into any) error { return json.Unmarshal([]byte(text), into) }

// archive is a tar of one small file.
func archive() []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	t.WriteHeader(&tar.Header{Name: "soaked", Mode: 0o644, Size: 3})
	t.Write([]byte("abc"))
	t.Close()
	return b.Bytes()
}

// state is what a daemon holds that could leak.
type state struct{ descriptors, goroutines int }

// settled waits until the daemon holds no more than it will, and says what.
func settled(t *testing.T, d *testkit.Daemon) state {
	t.Helper()
	var last state
	for same := 0; same < 5; {
		time.Sleep(200 * time.Millisecond)
		now := state{strings.Count(open(d.Pid()), "\n"), strings.Count(goroutines(d), "\ngoroutine ")}
		if now == last {
			same++
		} else {
			same = 0
		}
		last = now
	}
	return last
}

// open lists a process's descriptors, one a line.
func open(pid int) string {
	var b strings.Builder
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil {
			fmt.Fprintf(&b, "%s %s\n", filepath.Base(fd), to)
		}
	}
	return b.String()
}

// clear removes what the workers have left.
func clear(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-aq", "--no-trunc"}, []string{"rm", "-fv"}},
		{[]string{"network", "ls", "-q", "--filter", "type=custom"}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "-q"}, []string{"volume", "rm"}},
	} {
		if names := strings.Fields(d.OK(t, kind.list...)); len(names) > 0 {
			d.OK(t, append(kind.remove, names...)...)
		}
	}
}

// goroutines has the daemon write the stacks of its goroutines into its log, as
// SIGUSR1 asks it to, and returns them.
func goroutines(d *testkit.Daemon) string {
	before := len(d.Log())
	syscall.Kill(d.Pid(), syscall.SIGUSR1)
	for last := ""; ; {
		time.Sleep(50 * time.Millisecond)
		text := d.Log()[before:]
		if text != "" && text == last {
			return "\n" + text
		}
		last = text
	}
}
