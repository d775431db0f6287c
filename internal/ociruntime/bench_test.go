package ociruntime

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// BenchmarkRun is create, start and wait of busybox true with five namespaces,
// an overlay root and Docker's mounts.
func BenchmarkRun(b *testing.B) {
	j := newJob(b, busybox(b), newSpec("true"))
	for b.Loop() {
		i, err := Create(j, Options{Exe: exe})
		if err != nil {
			b.Fatal(err)
		}
		if err := i.Start(); err != nil {
			b.Fatal(err)
		}
		if code, err := i.Wait(); err != nil || code != 0 {
			b.Fatal(code, err)
		}
		i.Close()
	}
}

// BenchmarkClone is the floor: the same program in five new namespaces by the
// standard library, with no root file system of its own.
func BenchmarkClone(b *testing.B) {
	needRoot(b)
	for b.Loop() {
		c := exec.Command("/bin/busybox", "true")
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		}
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChild is the start of the child half alone.
func BenchmarkChild(b *testing.B) {
	for b.Loop() {
		c := exec.Command("/proc/self/fd/3")
		c.Args[0] = initName
		c.ExtraFiles = []*os.File{exe}
		c.Path = "/proc/self/exe"
		c.Run()
	}
}

// BenchmarkExec is a further process in a running container.
func BenchmarkExec(b *testing.B) {
	c := start(b)
	p := &job.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}
	for b.Loop() {
		i, err := Exec(Target{Pid: c.Pid(), Pidfd: c.Pidfd()}, p, Options{Exe: exe})
		if err != nil {
			b.Fatal(err)
		}
		if err := i.Start(); err != nil {
			b.Fatal(err)
		}
		i.Wait()
		i.Close()
	}
}
