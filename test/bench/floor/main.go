// Command floor is the least that starting a container can cost in Go: mount
// an overlay, clone into five namespaces, pivot into the overlay, execute
// busybox's true, wait, take it down. No control group, no image, no daemon.
// `make bench` divides everything else by it.
//
// Usage: floor LOWER-DIRECTORY SCRATCH-DIRECTORY
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: floor LOWER SCRATCH")
		os.Exit(2)
	}
	var err error
	if os.Args[0] == "child" {
		err = child(os.Args[1])
	} else {
		err = parent(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func parent(lower, scratch string) error {
	dir, err := os.MkdirTemp(scratch, "floor")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	upper, work, merged := filepath.Join(dir, "u"), filepath.Join(dir, "w"), filepath.Join(dir, "m")
	for _, d := range []string{upper, work, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	opts := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	if err := syscall.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer syscall.Unmount(merged, syscall.MNT_DETACH)
	p, err := os.StartProcess("/proc/self/exe", []string{"child", merged, "-"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		},
	})
	if err != nil {
		return err
	}
	st, err := p.Wait()
	if err == nil && !st.Success() {
		err = fmt.Errorf("child: %v", st)
	}
	return err
}

func child(merged string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := os.Chdir(merged); err != nil {
		return err
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return err
	}
	return syscall.Exec("/bin/busybox", []string{"true"}, nil)
}
