package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"gantry/internal/config"
	"gantry/internal/daemon/listen"
	"gantry/internal/version"
	"gantry/internal/wire"
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
	listeners, err := openAll(ctx, c, inherited)
	if err != nil {
		return err
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		d.log.Info("listening", "address", l.Addr().Network()+"://"+l.Addr().String())
		go func() { failed <- d.server.Serve(l) }()
	}
	d.log.Info("ready", "version", version.Version, "name", c.String(), "root", c.Root, "took", time.Since(began))
	if err := listen.Notify("READY=1"); err != nil {
		d.log.Warn("systemd was not told", "err", err)
	}
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
				d.log.Info("ending; containers go on", "signal", s.String())
				_ = listen.Notify("STOPPING=1")
				return nil
			}
		}
	}
}

// openAll opens every socket of the configuration.
func openAll(ctx context.Context, c *config.Config, inherited []net.Listener) (all []net.Listener, err error) {
	o := listen.Options{Group: c.Group, Inherited: inherited}
	if c.TLSVerify {
		if o.TLS, err = listen.ServerTLS(c.TLSCA, c.TLSCert, c.TLSKey); err != nil {
			return nil, err
		}
	}
	for _, h := range c.Hosts {
		ls, err := listen.Open(ctx, h, o)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, ls...)
	}
	return all, nil
}

// reload reads the configuration again. What can't change while the daemon runs
// keeps its value; a configuration with an error changes nothing.
func (d *Daemon) reload(args []string) {
	_ = listen.Notify("RELOADING=1")
	defer func() { _ = listen.Notify("READY=1") }()
	fresh, _, err := config.Load(args)
	if err != nil {
		d.log.Error("the configuration was not reloaded", "err", err)
		return
	}
	next := reloaded(d.config.Load(), fresh)
	d.level.Set(levelOf(next.LogLevel))
	d.config.Store(next)
	d.log.Info("configuration reloaded")
	d.bus.Publish(wire.Event{Type: "daemon", Action: "reload", Actor: wire.EventActor{
		ID: next.Root, Attributes: map[string]string{
			"name": next.String(), "debug": fmt.Sprint(next.Debug), "labels": "[" + strings.Join(next.Labels, ",") + "]",
			"default-runtime": next.DefaultRuntime, "default-shm-size": fmt.Sprint(next.ShmSize), "shutdown-timeout": fmt.Sprint(next.ShutdownTimeout),
		},
	}})
}

// reloaded returns running with those settings of fresh that may change while
// the daemon runs.
func reloaded(running, fresh *config.Config) *config.Config {
	c := *running
	c.Debug, c.LogLevel, c.Labels = fresh.Debug, fresh.LogLevel, fresh.Labels
	c.ShutdownTimeout, c.StopTimeout = fresh.ShutdownTimeout, fresh.StopTimeout
	c.ShmSize, c.IPCMode, c.CgroupnsMode = fresh.ShmSize, fresh.IPCMode, fresh.CgroupnsMode
	c.Features, c.RegistryMirrors, c.InsecureRegistries = fresh.Features, fresh.RegistryMirrors, fresh.InsecureRegistries
	c.Runtimes, c.DefaultRuntime = fresh.Runtimes, fresh.DefaultRuntime
	c.Ulimits, c.LogOpts = fresh.Ulimits, fresh.LogOpts
	return &c
}
