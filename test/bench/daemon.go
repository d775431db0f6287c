package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// startDaemon starts a daemon on throw-away directories and loads busybox.
func startDaemon(bin string) (*daemon, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gantry-bench-")
	if err != nil {
		return nil, err
	}
	run, err := os.MkdirTemp(inMemory(), "gantry-bench-")
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	d := &daemon{dir: dir, run: run, bin: bin, sock: filepath.Join(dir, "gantry.sock"), floorBin: filepath.Join(dir, "floor"), lower: filepath.Join(dir, "lower")}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// inMemory returns a directory on a tmpfs, as /run is on hosts in general: a run
// root on a disk is nobody's default.
func inMemory() string {
	for _, dir := range []string{"/run", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC {
			return dir
		}
	}
	return ""
}

func (d *daemon) prepare() error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", d.floorBin, "./test/bench/floor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the floor: %w: %s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: run `make deps`", err)
	}
	if err := os.MkdirAll(filepath.Join(d.lower, "bin"), 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.lower, "bin", "busybox"), program, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.bin, "gantryd"), "--data-root", filepath.Join(d.dir, "lib"), "--exec-root", d.run,
		"--pidfile", filepath.Join(d.dir, "pid"), "--config-file", "", "-H", "unix://"+d.sock)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); d.gantry("version") != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the daemon does not answer: %s", text)
		}
	}
	var image bytes.Buffer
	if err := testkit.Busybox(&image, "busybox:latest"); err != nil {
		return err
	}
	load := d.command("load")
	load.Stdin = &image
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("load busybox: %w: %s", err, out)
	}
	return nil
}

// stop ends the daemon and removes its directories.
func (d *daemon) stop() error {
	var err error
	if d.cmd != nil && d.cmd.Process != nil {
		err = d.cmd.Process.Signal(syscall.SIGTERM)
		d.cmd.Wait()
	}
	return errors.Join(err, os.RemoveAll(d.dir), os.RemoveAll(d.run))
}
