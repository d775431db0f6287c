package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"gantry/internal/config"
	"gantry/internal/daemon/listen"
	"gantry/internal/version"
)

// Run does what the command line asks for and returns when the daemon has
// ended. Messages go to stderr.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, cmd, err := config.Load(args)
	if err != nil {
		return err
	}
	switch cmd {
	case config.Help:
		return config.WriteHelp(stdout)
	case config.Version:
		_, err := fmt.Fprintf(stdout, "Gantry version %s, build %s (Docker Engine %s)\n", version.Version, version.Commit, version.Engine)
		return err
	case config.Validate:
		for _, a := range c.APISockets {
			if _, err := readPolicy(a.Policy); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(stdout, "configuration OK")
		return err
	}
	log, level := newLog(stderr, c.LogFormat, c.LogLevel)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	inherited, err := listen.Inherited()
	if err != nil {
		return err
	}
	// Nothing of ours is for others to read unless a mode says so.
	syscall.Umask(0o022)
	began := time.Now()
	d, err := open(ctx, c, log, level)
	if err != nil {
		return err
	}
	err = d.serve(ctx, args, inherited, began)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime(d.config.Load()))
	defer cancel()
	return errors.Join(err, d.close(end))
}

func shutdownTime(c *config.Config) time.Duration {
	if c.ShutdownTimeout < 0 {
		return 24 * time.Hour
	}
	return time.Duration(c.ShutdownTimeout) * time.Second
}

// serve listens and answers until a signal asks for the end, ctx ends or a
// listener fails. From then on a further signal ends the process at once.
func (d *Daemon) serve(ctx context.Context, args []string, inherited []net.Listener, began time.Time) error {
	c := d.config.Load()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE)
	doors, err := d.openDoors(ctx, c, inherited)
	if err != nil {
		return err
	}
	failed := make(chan error, len(doors))
	for _, o := range doors {
		d.log.Info("listening", "address", o.l.Addr().Network()+"://"+o.l.Addr().String(), "for", o.what)
		go func() { failed <- o.serve(o.l) }()
	}
	// What bringing everything up took is not needed again.
	debug.FreeOSMemory()
	d.log.Info("ready", "version", version.Version, "name", c.String(), "root", c.Root, "took", time.Since(began))
	if err := listen.Notify("READY=1"); err != nil {
		d.log.Warn("systemd was not told", "err", err)
	}
	defer d.watchdog(ctx)()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				d.reload(args)
			case syscall.SIGUSR1:
				_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
			default:
				_ = listen.Notify("STOPPING=1")
				d.stopContainers(ctx, s.String())
				return nil
			}
		}
	}
}
