package daemon

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"gantry/internal/config"
	"gantry/internal/daemon/handover"
	"gantry/internal/durable"
	"gantry/internal/errs"
)

// hold takes the daemon's directories and writes the pid file. What another
// daemon holds is refused before anything of it has been touched.
func (d *Daemon) hold(c *config.Config) error {
	d.locks = map[string]*durable.Lock{}
	for _, dir := range []string{c.Root, c.Run} {
		lock, err := d.lock(dir)
		if errs.Is(err, errs.Conflict) {
			return errs.New(errs.Conflict, "another daemon uses %s: each daemon of a host needs a --data-root, an --exec-root and a --pidfile of its own", dir)
		}
		if err != nil {
			return err
		}
		d.last("lock of "+dir, func(context.Context) error { return lock.Close() })
		d.locks[dir] = lock
	}
	if c.PidFile == "" {
		return nil
	}
	if pid := livingDaemon(c.PidFile); pid != 0 {
		return errs.New(errs.Conflict, "ensure gantryd is not running or delete %s: process with PID %d is still running", c.PidFile, pid)
	}
	if err := durable.Replace(c.PidFile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	d.last("pid file", func(context.Context) error { return os.Remove(c.PidFile) })
	return nil
}

// lock takes a directory, or takes it over from the program before.
func (d *Daemon) lock(dir string) (*durable.Lock, error) {
	if d.handed != nil {
		if fd, ok := d.handed.Locks[dir]; ok {
			if f := handover.File(fd); f != nil {
				return durable.InheritLock(f), nil
			}
		}
	}
	// A child that a killed daemon was about to start holds its files until it
	// executes its program.
	for end := time.Now().Add(killedTime); ; time.Sleep(5 * time.Millisecond) {
		l, err := durable.LockDir(dir)
		if !errs.Is(err, errs.Conflict) || time.Now().After(end) {
			return l, err
		}
	}
}

// killedTime is how long the files of a killed daemon may stay open.
const killedTime = time.Second

// livingDaemon returns the process that a pid file names, if that runs the
// program that this one does. Another program has only been given the number of
// a daemon that crashed.
func livingDaemon(pidFile string) int {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return 0
	}
	theirs, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return 0
	}
	ours, err := os.ReadFile("/proc/self/comm")
	if err != nil || string(theirs) != string(ours) {
		return 0
	}
	return pid
}
