package parity

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// A player replays commands with one program.
type player struct {
	places Places
	env    []string
}

// rootfs is the file system of the image that the recordings were made with:
// nothing but busybox and two accounts.
func rootfs(t *testing.T) []byte {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(bin, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := []testkit.File{{Name: "bin/"}}
	for name := range strings.FieldsSeq(string(applets)) {
		if name = filepath.Base(name); name != "busybox" {
			files = append(files, testkit.File{Name: "bin/" + name, Link: "busybox"})
		}
	}
	files = append(files, testkit.File{Name: "bin/busybox", Data: data, Mode: 0o755}, testkit.File{Name: "etc/"},
		testkit.File{Name: "etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		testkit.File{Name: "etc/group", Data: []byte("root:x:0:\n")},
		testkit.File{Name: "tmp/"})
	return testkit.Layer(files...)
}

// newPlayer starts a daemon and lays out the directory that the recordings were
// made in. program goes by the name of docker.
func newPlayer(t *testing.T, program string) *player {
	t.Helper()
	d := testkit.StartDaemon(t)
	if program == "" {
		program = d.Program("gantry")
	}
	return settle(t, program, Places{Root: d.Root, Socket: d.Socket})
}

// settle makes the directory for a daemon that runs, and gives it the image.
func settle(t *testing.T, program string, places Places) *player {
	t.Helper()
	dir := t.TempDir()
	places.Home, places.Cwd = filepath.Join(dir, "home"), filepath.Join(dir, "work")
	p := &player{places: places}
	bin := filepath.Join(dir, "bin")
	for _, sub := range []string{bin, p.places.Home, filepath.Join(p.places.Cwd, "d", "sub")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(program, filepath.Join(bin, "docker")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"f": "a\n", "d/sub/s": "s\n", "envf": "# comment\nA=1\nB=\"q\"\nC= x\n"} {
		if err := os.WriteFile(filepath.Join(p.places.Cwd, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + p.places.Home, "DOCKER_HOST=unix://" + places.Socket}
	if out := p.play(t, "docker import - busybox:latest", bytes.NewReader(rootfs(t))); out.Code != 0 {
		t.Fatalf("import busybox: %+v", out)
	}
	return p
}

// play runs a command as a person would type it, with nothing at its input.
func (p *player) play(t *testing.T, command string, stdin *bytes.Reader) Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.places.Cwd, p.env, time.Second
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Errorf("%s: %v", command, err)
	}
	return Step{Command: command, Stdout: p.places.Normalise(out.String()), Stderr: p.places.Normalise(errs.String()), Code: cmd.ProcessState.ExitCode()}
}

func sessions(t *testing.T) map[string][]Step {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	all := map[string][]Step{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := ParseSession(string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for i, s := range steps {
			steps[i].Stdout, steps[i].Stderr = normalise(s.Stdout), normalise(s.Stderr)
		}
		all[filepath.Base(f)] = steps
	}
	return all
}

func TestParity(t *testing.T) {
	programs := map[string]string{"gantry": ""}
	if docker, err := exec.LookPath("docker"); err == nil {
		programs["docker"] = docker
	} else {
		t.Log("no docker command line on this machine: only gantry is compared")
	}
	all := sessions(t)
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			p := newPlayer(t, program)
			needed := make([]bool, len(accepted))
			for _, file := range slices.Sorted(maps.Keys(all)) {
				t.Run(file, func(t *testing.T) {
					for _, want := range all[file] {
						got := p.play(t, want.Command, nil)
						if diff := Differences(want, got); diff != "" && !accept(accepted, name, got, needed) {
							t.Errorf("$ %s\n%s", want.Command, diff)
						}
					}
				})
			}
			for i, a := range accepted {
				if (a.program == "" || a.program == name) && !needed[i] && !a.machine {
					t.Errorf("accepted, but there is no difference: %s (%s)", a.command, a.reason)
				}
			}
		})
	}
}

// The parser and the comparison themselves.
func TestSession(t *testing.T) {
	steps, err := ParseSession("# comment\n\n$ a b\nstdout:\none\n\ntwo<no newline>\nstderr:\nbad\nexit: 3\n\n$ c\nexit: 0\n")
	if err != nil || len(steps) != 2 {
		t.Fatalf("%v %v", steps, err)
	}
	if s := steps[0]; s.Command != "a b" || normalise(s.Stdout) != "one\n\ntwo" || s.Stderr != "bad\n" || s.Code != 3 {
		t.Errorf("read %+v", s)
	}
	for _, bad := range []string{"x\n", "$ a\nx\nexit: 0\n", "$ a\nexit: x\n", "$ a\n"} {
		if s, err := ParseSession(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, s)
		}
	}
	diff := Differences(Step{Stdout: "same\nwant\n"}, Step{Stdout: "same\ngot\n", Code: 1})
	if diff != "exit: want 0, got 1\nstdout:\n  - want\n  + got\n" {
		t.Errorf("the difference is %q", diff)
	}
}

func TestNormalise(t *testing.T) {
	p := Places{Root: "/tmp/x/lib", Home: "/h", Cwd: "/w", Socket: "/tmp/x/s"}
	for in, want := range map[string]string{
		"Up 3 seconds": "Up <while>", "About an hour ago": "<while>", "3.12MB": "<size>", "a   b  ": "a  b",
		"/tmp/x/lib/volumes/v": "<root>/volumes/v", "172.19.0.7": "<address>", "brave_turing|x": "<name>|x",
		strings.Repeat("ab", 32): "<id>", "0123456789ab": "<id12>", "2026-01-02T03:04:05.678Z": "<time>",
	} {
		if got := p.Normalise(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}
