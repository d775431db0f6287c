package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"gantry/internal/durable"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/storage"
	"gantry/internal/registry/storage/s3"
	"gantry/internal/registry/upstream"
)

// config is the configuration file, and what flags say. Flags win.
type config struct {
	file       string
	Listen     string            `yaml:"listen"`
	Data       string            `yaml:"data"`
	S3         *s3.Options       `yaml:"s3"`       // nil: everything is below Data
	S3Lease    time.Duration     `yaml:"s3-lease"` // how long a server that owns the bucket may be silent
	TLS        tlsFiles          `yaml:"tls"`
	Htpasswd   string            `yaml:"htpasswd"`
	Rights     string            `yaml:"rights"`
	Anonymous  bool              `yaml:"anonymous-pull"`
	Token      tokenConfig       `yaml:"token"`
	ReadOnly   bool              `yaml:"read-only"`
	NoDelete   bool              `yaml:"no-delete"`
	Sparse     bool              `yaml:"sparse-indexes"`
	MaxBlob    int64             `yaml:"max-blob"` // bytes
	Grace      time.Duration     `yaml:"gc-grace"`
	GCEvery    time.Duration     `yaml:"gc-interval"`
	Untagged   bool              `yaml:"gc-untagged"`
	UploadLife time.Duration     `yaml:"upload-life"`
	Stall      time.Duration     `yaml:"stall"`
	Upstreams  []upstream.Remote `yaml:"upstreams"`
	Quiet      bool              `yaml:"quiet"` // no access log
}

// tlsFiles are read again when they change.
type tlsFiles struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client-ca"` // clients must have a certificate of it
}

// tokenConfig is about bearer tokens.
type tokenConfig struct {
	Enable  bool          `yaml:"enable"`  // the server gives tokens itself
	Service string        `yaml:"service"` // the registry's name in tokens
	Issuer  string        `yaml:"issuer"`
	Life    time.Duration `yaml:"life"`
	// Realm is somebody else's token service, and Keys a file of the public keys
	// or certificates (PEM) that its tokens are signed with.
	Realm string `yaml:"realm"`
	Keys  string `yaml:"keys"`
}

// flags declares the flags.
func (c *config) flags(fs *flag.FlagSet) {
	*c = config{Listen: "127.0.0.1:5000", Data: "/var/lib/gantry-registry", Grace: time.Hour, GCEvery: 6 * time.Hour, UploadLife: 24 * time.Hour,
		Token: tokenConfig{Service: "gantry-registry", Issuer: "gantry-registry", Life: 5 * time.Minute}}
	fs.StringVar(&c.file, "config", "", "configuration file (YAML)")
	fs.StringVar(&c.Listen, "listen", c.Listen, "address to listen at")
	fs.StringVar(&c.Data, "data", c.Data, "directory of the data, or with S3 of uploads that are under way")
	fs.StringVar(&c.TLS.Cert, "tls-cert", "", "certificate (PEM)")
	fs.StringVar(&c.TLS.Key, "tls-key", "", "key of the certificate (PEM)")
	fs.StringVar(&c.TLS.ClientCA, "tls-client-ca", "", "clients need a certificate of these authorities (PEM)")
	fs.StringVar(&c.Htpasswd, "htpasswd", "", "file of users (bcrypt)")
	fs.StringVar(&c.Rights, "rights", "", "file of rights by repository (YAML)")
	fs.BoolVar(&c.Anonymous, "anonymous-pull", false, "everybody may pull")
	fs.BoolVar(&c.Token.Enable, "token", false, "give clients tokens instead of asking for the password each time")
	fs.BoolVar(&c.ReadOnly, "read-only", false, "refuse all changes")
	fs.BoolVar(&c.NoDelete, "no-delete", false, "refuse deletions")
	fs.BoolVar(&c.Sparse, "sparse-indexes", false, "take indexes of which not all manifests are here")
	fs.Int64Var(&c.MaxBlob, "max-blob", 0, "bytes that a blob may have; 0 for no bound")
	fs.DurationVar(&c.Grace, "gc-grace", c.Grace, "how long what nothing refers to is kept")
	fs.DurationVar(&c.GCEvery, "gc-interval", c.GCEvery, "time between collections of garbage; 0 for none")
	fs.BoolVar(&c.Untagged, "gc-untagged", false, "collect manifests too that no tag leads to")
	fs.BoolVar(&c.Quiet, "quiet", false, "write no access log")
}

// parse reads the flags and the file that they name. What flags say wins.
func (c *config) parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments", fs.Name())
	}
	if c.file == "" {
		return nil
	}
	data, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	return fs.Parse(args)
}

// kept is the repositories, and what keeps other servers from them.
type kept struct {
	*repo.Store
	owned *storage.Owned // nil: the spool's lock is enough
	lock  *durable.Lock
}

// Close gives the repositories up.
func (k *kept) Close() error {
	err := k.Store.Close()
	if k.owned != nil {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		err = errors.Join(err, k.owned.Close(ctx))
	}
	return errors.Join(err, k.lock.Close())
}

// store opens the repositories, and repairs what a server that was killed has
// left. lost is called if another server takes the bucket away.
func (c *config) store(ctx context.Context, log *slog.Logger, lost func(error)) (_ *kept, err error) {
	lock, err := durable.LockDir(c.Data)
	if err != nil {
		return nil, err
	}
	k := &kept{lock: lock}
	defer func() {
		if err != nil {
			if k.owned != nil {
				err = errors.Join(err, k.owned.Close(ctx))
			}
			err = errors.Join(err, lock.Close())
		}
	}()
	var b storage.Backend
	if c.S3 == nil {
		b, err = storage.NewLocal(filepath.Join(c.Data, "objects"))
	} else {
		k.owned, err = c.bucket(ctx, lost)
		b = k.owned
	}
	if err != nil {
		return nil, err
	}
	k.Store, err = repo.Open(repo.Options{Backend: b, Spool: filepath.Join(c.Data, "spool"), Grace: c.Grace, MaxBlob: c.MaxBlob, Sparse: c.Sparse, Log: log})
	if err != nil {
		return nil, err
	}
	if err := k.Recover(ctx, c.UploadLife); err != nil {
		return nil, errors.Join(err, k.Store.Close())
	}
	return k, nil
}

// bucket makes this server the owner of its bucket.
func (c *config) bucket(ctx context.Context, lost func(error)) (*storage.Owned, error) {
	b, err := s3.New(*c.S3)
	if err != nil {
		return nil, err
	}
	// The data directory is the server: who has it may go on where it was killed.
	file := filepath.Join(c.Data, "server.id")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		data = []byte(rand.Text())
		err = durable.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return storage.Own(ctx, b, storage.Owner{ID: string(data), Name: fmt.Sprintf("%s (process %d)", host, os.Getpid()), Lease: c.S3Lease}, lost)
}

// collectOptions say what collections remove.
func (c *config) collectOptions(ctx context.Context, s *repo.Store) (repo.CollectOptions, error) {
	cache, err := upstream.NewCache(ctx, s, c.Upstreams)
	if err != nil {
		return repo.CollectOptions{}, err
	}
	return repo.CollectOptions{Untagged: c.Untagged, Uploads: c.UploadLife, Cache: cache.Has}, nil
}

// verifier reads the keys of somebody else's token service; nil if there is none.
func (c *config) verifier() (*auth.Verifier, error) {
	if c.Token.Realm == "" {
		return nil, nil
	}
	source, err := auth.OpenKeys(c.Token.Keys)
	if err != nil {
		return nil, fmt.Errorf("keys of the token service at %s: %w", c.Token.Realm, err)
	}
	return &auth.Verifier{Source: source, Issuer: c.Token.Issuer, Service: c.Token.Service}, nil
}
