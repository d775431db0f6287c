package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"gantry/internal/build"
	"gantry/internal/config"
	"gantry/internal/daemon/handover"
	"gantry/internal/daemon/listen"
	"gantry/internal/version"
)

// Run does what the command line asks for and returns when the daemon has
// ended. Messages go to stderr.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, cmd, err := load(args)
	if err == nil && cmd != config.Serve {
		return answer(c, cmd, stdout)
	}
	if err == nil {
		// Set before anything else runs, and never again: what is started later
		// sees one environment, whether something was built before or not.
		err = os.Setenv("TMPDIR", build.TempDir(c.Run))
	}
	handed, taken := handover.Take()
	if err = errors.Join(err, taken); err != nil {
		if handed != nil {
			return handed.Back(err)
		}
		return err
	}
	log, level := newLog(stderr, c.LogFormat, c.LogLevel)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	d := &Daemon{log: log, level: level, handed: handed, next: make(chan string, 1), args: args}
	return d.run(ctx, c)
}

// answer does what needs no daemon.
func answer(c *config.Config, cmd config.Command, stdout io.Writer) (err error) {
	switch cmd {
	case config.Help:
		return config.WriteHelp(stdout)
	case config.Version:
		_, err = fmt.Fprintf(stdout, "Gantry version %s, build %s (Docker Engine %s)\n", version.Version, version.Commit, version.Engine)
		return err
	}
	for _, a := range c.APISockets {
		if _, err := readPolicy(a.Policy); err != nil {
			return err
		}
	}
	if c.TLSVerify {
		if _, err := listen.NewTLS(listen.TLSFiles{CA: c.TLSCA, Cert: c.TLSCert, Key: c.TLSKey}); err != nil {
			return err
		}
	}
	text := "configuration OK\n"
	if cmd == config.UpgradeCheck {
		text = handover.Hello()
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// run is the daemon's life.
func (d *Daemon) run(ctx context.Context, c *config.Config) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE)
	inherited, err := listen.Inherited()
	if err != nil {
		return err
	}
	// Nothing of ours is for others to read unless a mode says so.
	syscall.Umask(0o022)
	defer upgrades{d}.comeUp()()
	began := time.Now()
	var sockets doors
	if _, err = open(ctx, c, d); err == nil {
		sockets, err = d.openDoors(ctx, c, inherited)
	}
	if err != nil {
		return upgrades{d}.giveBack(ctx, err)
	}
	program, err := d.serve(ctx, sockets, signals, began)
	if program != "" {
		return upgrades{d}.handOver(ctx, program)
	}
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
// listener fails, or until program is to take over.
func (d *Daemon) serve(ctx context.Context, doors doors, signals <-chan os.Signal, began time.Time) (program string, err error) {
	c := d.config.Load()
	failed := make(chan error, len(doors))
	for _, o := range doors {
		d.log.Info("listening", "address", o.l.Addr().Network()+"://"+o.l.Addr().String(), "for", o.what)
		go func() { failed <- o.serve(o.l) }()
	}
	// What bringing everything up took is not needed again.
	debug.FreeOSMemory()
	upgrades{d}.isUp()
	d.log.Info("ready", "version", version.Version, "name", c.String(), "root", c.Root, "took", time.Since(began))
	if err := listen.Notify("READY=1"); err != nil {
		d.log.Warn("systemd was not told", "err", err)
	}
	defer d.watchdog(ctx)()
	for {
		select {
		case <-ctx.Done():
			return "", nil
		case err := <-failed:
			return "", err
		case program := <-d.next:
			return program, nil
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				d.reload(d.args)
			case syscall.SIGUSR1:
				_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
			case syscall.SIGUSR2:
				go upgrades{d}.upgradeBySignal(ctx)
			default:
				_ = listen.Notify("STOPPING=1")
				d.stopContainers(ctx, s.String())
				return "", nil
			}
		}
	}
}
