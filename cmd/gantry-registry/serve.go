package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"gantry/internal/registry"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/upstream"
	"gantry/internal/version"
)

// serveCommand serves a registry until it is told to end.
func serveCommand(ctx context.Context, fs *flag.FlagSet, args []string, out io.Writer) (err error) {
	var c config
	c.flags(fs)
	if err := c.parse(fs, args); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	// What requests allocate is short-lived: a small heap is worth the work.
	debug.SetMemoryLimit(64 << 20)
	log := slog.New(slog.NewJSONHandler(out, nil))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	store, err := c.store(ctx, log, cancel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	o, err := c.options(ctx, store.Store, log)
	if err != nil {
		return err
	}
	defer o.Cache.Close()
	s := registry.New(o)
	l, certs, err := c.listen()
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	log.Info("serving", "address", l.Addr().String(), "tls", c.TLS.Cert != "", "data", c.Data, "version", version.Version)
	var work sync.WaitGroup
	work.Go(func() { collectForever(ctx, c.GCEvery, store.Store, o.Collect, s, log) })
	work.Go(func() { reloadForever(ctx, hup, certs, o.Policy, log) })
	work.Go(func() {
		<-ctx.Done()
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	err = srv.Serve(l)
	why := context.Cause(ctx)
	cancel(nil)
	work.Wait()
	switch {
	case why != nil && !errors.Is(why, context.Canceled): // the bucket is another server's now
		return why
	case errors.Is(err, http.ErrServerClosed):
		return nil
	}
	return err
}

// reloadForever reads the files again when a SIGHUP comes, and logs what is wrong
// with them. They are read when they have changed without it too.
func reloadForever(ctx context.Context, hup <-chan os.Signal, certs *certificates, policy *auth.Policy, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		err := policy.Reload()
		if certs != nil {
			err = errors.Join(err, certs.reload())
		}
		if err != nil {
			log.Error("files could not be read again", "error", err)
			continue
		}
		log.Info("files have been read again")
	}
}

// options makes of a configuration what the server needs.
func (c *config) options(ctx context.Context, store *repo.Store, log *slog.Logger) (registry.Options, error) {
	var o registry.Options
	policy, err := auth.Open(auth.Options{Htpasswd: c.Htpasswd, Rights: c.Rights, Anonymous: c.Anonymous})
	if err != nil {
		return o, err
	}
	cache, err := upstream.NewCache(ctx, store, c.Upstreams)
	if err != nil {
		return o, err
	}
	foreign, err := c.verifier()
	if err != nil {
		return o, err
	}
	o = registry.Options{Store: store, Cache: cache, Policy: policy, Foreign: foreign, Realm: c.Token.Realm, ReadOnly: c.ReadOnly, NoDelete: c.NoDelete,
		Collect: repo.CollectOptions{Untagged: c.Untagged, Uploads: c.UploadLife, Cache: cache.Has}, Stall: c.Stall, Log: log, Version: version.Version}
	if c.Quiet {
		o.Log = slog.New(&loud{log.Handler()})
	}
	if c.Token.Enable {
		if policy.Free() {
			return o, errors.New("tokens need users: --htpasswd")
		}
		signer, err := auth.OpenSigner(filepath.Join(c.Data, "token.key"))
		if err != nil {
			return o, err
		}
		o.Tokens = &auth.Service{Policy: policy, Signer: signer, Issuer: c.Token.Issuer, Name: c.Token.Service, Life: c.Token.Life}
	}
	return o, nil
}

// loud lets only warnings and errors through.
type loud struct{ slog.Handler }

func (l *loud) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// collectForever collects garbage from time to time.
func collectForever(ctx context.Context, every time.Duration, store *repo.Store, o repo.CollectOptions, s *registry.Server, log *slog.Logger) {
	if every <= 0 {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		got, err := store.Collect(ctx, o)
		if err != nil && ctx.Err() == nil {
			log.Error("collection of garbage failed", "error", err)
			continue
		}
		s.Collected(got)
		log.Info("garbage collected", "blobs", got.Blobs, "bytes", got.Bytes, "manifests", got.Manifests, "uploads", got.Uploads)
	}
}
