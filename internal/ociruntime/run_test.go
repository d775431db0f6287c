package ociruntime

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
		{"/etc/passwd", nil, 126, `exec: "/etc/passwd": permission denied`},
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
	t.Log(out)
}
