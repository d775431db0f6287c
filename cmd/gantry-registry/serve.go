package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
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
	// What requests allocate is short-lived: a small heap is worth the work.
	debug.SetMemoryLimit(64 << 20)
	log := slog.New(slog.NewJSONHandler(out, nil))
	store, err := c.store(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	o, err := c.options(ctx, store, log)
	if err != nil {
		return err
	}
	defer o.Cache.Close()
	s := registry.New(o)
	l, err := c.listen()
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	log.Info("serving", "address", l.Addr().String(), "tls", c.TLS.Cert != "", "data", c.Data, "version", version.Version)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { collectForever(ctx, c.GCEvery, store, o.Collect, s, log) })
	work.Go(func() {
		<-ctx.Done()
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	err = srv.Serve(l)
	cancel()
	work.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
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

// listen opens the address, with TLS if there is a certificate.
func (c *config) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil || c.TLS.Cert == "" {
		return l, err
	}
	certs := &certificate{files: c.TLS}
	if _, err := certs.get(nil); err != nil {
		l.Close()
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get, NextProtos: []string{"h2", "http/1.1"}}
	if c.TLS.ClientCA != "" {
		pem, err := os.ReadFile(c.TLS.ClientCA)
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			l.Close()
			return nil, fmt.Errorf("certificates of clients: %s: no certificates: %w", c.TLS.ClientCA, err)
		}
		conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return tls.NewListener(l, conf), nil
}

// certificate is read again when its file has changed; a wrong one is not taken.
type certificate struct {
	files tlsFiles
	mu    sync.Mutex
	stamp string
	last  *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := ""
	for _, f := range []string{c.files.Cert, c.files.Key} {
		if fi, err := os.Stat(f); err == nil {
			stamp += fmt.Sprint(fi.ModTime().UnixNano(), fi.Size(), " ")
		}
	}
	if c.last != nil && stamp == c.stamp {
		return c.last, nil
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		if c.last != nil { // half written: the next connection looks again
			return c.last, nil
		}
		return nil, err
	}
	c.last, c.stamp = &pair, stamp
	return c.last, nil
}
