package ociruntime

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunEcho(t *testing.T) {
	out := sh(t, "echo hello; hostname; echo $$; pwd; echo $HOME")
	if want := "hello\nbox\n1\n/\n/root\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestExitCodes(t *testing.T) {
	image := busybox(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255} {
		if _, _, code := run(t, newJob(t, image, newSpec("sh", "-c", script))); code != want {
			t.Errorf("%s: exit code %d, want %d", script, code, want)
		}
	}
}

func TestExecErrors(t *testing.T) {
	image := busybox(t)
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		code int
		text string
	}{
		{"nosuch", nil, 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/etc/passwd", nil, 126, `exec: "/etc/passwd": permission denied: the file is not executable (mode 0644, see chmod +x)`},
		{"/etc", nil, 126, `exec: "/etc": is a directory: permission denied`},
		{"/x", nil, 127, `exec: "/x": stat /x: no such file or directory`},
		{"true", func(s *specs.Spec) { s.Process.Cwd = "/etc/passwd" }, 126, `chdir to cwd ("/etc/passwd") set in config.json failed: not a directory`},
	} {
		spec := newSpec(c.name)
		if c.edit != nil {
			c.edit(spec)
		}
		i, err := Create(newJob(t, image, spec), Options{Exe: exe})
		if err != nil {
			t.Fatalf("%s: Create: %v", c.name, err)
		}
		err = i.Start()
		var ee *ExecError
		if !errors.As(err, &ee) || ee.Code != c.code || ee.Text != c.text {
			t.Errorf("%s: got %v, want %d %s", c.name, err, c.code, c.text)
		}
		i.Close()
	}
}

func TestMountsInside(t *testing.T) {
	out := sh(t, "cut -d' ' -f4- /proc/self/mountinfo; ls -l /dev")
	for _, want := range []string{"/ /proc rw,nosuid,nodev,noexec", "devpts rw,gid=5,mode=620,ptmxmode=666", "ro,size=4k,nr_inodes=1", "stdin -> /proc/self/fd/0", "ptmx -> pts/ptmx"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestParallel: starts at the same moment don't disturb one another, though each
// one's child is born with copies of the others' descriptors.
func TestParallel(t *testing.T) {
	image := busybox(t)
	var wg sync.WaitGroup
	for worker := range 8 {
		jobs := []string{}
		for n := range 6 {
			jobs = append(jobs, fmt.Sprintf("%d-%d", worker, n))
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for _, name := range jobs {
				out, errOut, code := run(t, newJob(t, image, newSpec("echo", name)))
				if out != name+"\n" || code != 0 {
					t.Errorf("%s: got %q %q %d", name, out, errOut, code)
				}
			}
		}()
	}
	wg.Wait()
}

// TestClosedUnstarted: a prepared process does not outlive a parent that goes away
// without releasing it.
func TestClosedUnstarted(t *testing.T) {
	i, err := Create(newJob(t, busybox(t), newSpec("true")), Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(i.sock)
	i.sock = -1
	if code, err := i.Wait(); err != nil || code == 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	i.Close()
}
