package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"gantry/internal/config"
	"gantry/internal/daemon/handover"
	"gantry/internal/daemon/listen"
	"gantry/internal/daemon/telemetry"
	"gantry/internal/server"
)

// A door is a socket that the daemon serves something on.
type door struct {
	what  string // "API", "debug", "metrics"
	l     net.Listener
	serve func(net.Listener) error
	key   string       // tells the sockets apart that the next program takes over; empty: it opens its own
	kept  *listen.Kept // what it takes over
	// Of a scoped socket: who answers, and where its policy is.
	scoped *server.Scoped
	policy string
}

// doors are all of them.
type doors []door

func (ds doors) close() {
	for _, o := range ds {
		o.l.Close()
	}
}

// openDoors opens every socket of the configuration.
func (d *Daemon) openDoors(ctx context.Context, c *config.Config, inherited []net.Listener) (_ doors, err error) {
	defer func() {
		if err != nil {
			d.doors.close()
		}
	}()
	var conf *tls.Config
	if c.TLSVerify {
		if d.tls, err = listen.NewTLS(listen.TLSFiles{CA: c.TLSCA, Cert: c.TLSCert, Key: c.TLSKey}); err != nil {
			return nil, err
		}
		conf = d.tls.Config()
	}
	for _, h := range c.Hosts {
		o := listen.Options{Group: c.Group, Inherited: inherited, TLS: conf}
		if err := d.openAPI(ctx, h, o, door{what: "API", key: h, serve: func(l net.Listener) error { return d.server.Serve(l) }}); err != nil {
			return nil, err
		}
	}
	for _, a := range c.APISockets {
		if err := d.openScoped(ctx, c, a); err != nil {
			return nil, err
		}
	}
	if c.DebugSocket != "" {
		err = d.openPage(ctx, "debug", "unix://"+c.DebugSocket, telemetry.Handler(d.metrics, d.tracer))
	}
	if err == nil && c.MetricsAddr != "" {
		err = d.openPage(ctx, "metrics", "tcp://"+c.MetricsAddr, telemetry.Show(d.metrics))
	}
	return d.doors, err
}

// openAPI opens a socket of the API, or takes it over, as a door like like. A
// host can stand for several sockets.
func (d *Daemon) openAPI(ctx context.Context, host string, o listen.Options, like door) error {
	var kept []*listen.Kept
	o.Keep = func(k *listen.Kept) { kept = append(kept, k) }
	var all []net.Listener
	for n := 0; d.handed != nil; n++ {
		left, ok := d.handed.Doors[fmt.Sprintf("%s#%d", like.key, n)]
		if !ok {
			break
		}
		o.Handed, o.Conns = handover.File(left.Listener), nil
		for _, fd := range left.Conns {
			if f := handover.File(fd); f != nil {
				o.Conns = append(o.Conns, f)
			}
		}
		ls, err := listen.Open(ctx, host, o)
		if err != nil {
			return err
		}
		all = append(all, ls...)
	}
	if len(all) == 0 {
		var err error
		if all, err = listen.Open(ctx, host, o); err != nil {
			return err
		}
	}
	for i, l := range all {
		one := like
		one.l, one.kept, one.key = l, kept[i], fmt.Sprintf("%s#%d", like.key, i)
		d.doors = append(d.doors, one)
	}
	return nil
}

// openPage opens a socket, for root alone if it is a unix one, on which h
// answers.
func (d *Daemon) openPage(ctx context.Context, what, host string, h http.Handler) error {
	ls, err := listen.Open(ctx, host, listen.Options{Mode: 0o600})
	if err != nil {
		return fmt.Errorf("%s socket: %w", what, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute}
	d.doors = append(d.doors, door{what: what, l: ls[0], serve: func(l net.Listener) error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("%s socket: %w", what, err)
		}
		return nil
	}})
	d.later(what+" socket", func(context.Context) error { return srv.Close() })
	return nil
}

// watchdog tells systemd that the daemon is well as often as it wants to know
// (sd_watchdog_enabled(3)), as long as containers can be listed. The result
// ends it.
func (d *Daemon) watchdog(ctx context.Context) (stop func()) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.engine.Counts()
				_ = listen.Notify("WATCHDOG=1")
			}
		}
	}()
	return cancel
}
