// Package remote is the client of image registries: it resolves names, pulls,
// pushes, checks credentials and searches, over mirrors and proxies, and goes on
// where a cut connection or a crash has ended a transfer.
//
// The daemon's API calls it. It writes blobs and layers into the stores of
// package content, and has package image record an image when all of it is on
// disk. It must not know containers, HTTP servers, or where credentials are
// kept: a caller brings those of one operation.
//
// # Whom it trusts
//
// Nobody: whatever a registry sends is bounded, and checked against the digest
// that was asked for, while it streams. Credentials go to the registry they were
// given for, and to the token server of the same site; see authorizer. Formats:
// OCI distribution-spec 1.1, Docker's token authentication, and Docker's
// registry API 1 for searches.
package remote

import (
	"context"
	"log/slog"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/keyed"
)

// Names are the images that pulls add to and pushes read.
type Names interface {
	// Receive records an image that is on disk; news if name meant another.
	Receive(ctx context.Context, name string, target ocispec.Descriptor) (news bool, err error)
	// Tags returns what the tags of a repository mean.
	Tags(ctx context.Context, repository string) (map[string]ocispec.Descriptor, error)
	// Moved tells of a pull or push.
	Moved(action, name string)
}

// Options is what a Client works with.
type Options struct {
	Content *content.Store
	Names   Names
	Config  func() Config // asked anew for each operation
	Agent   string        // the User-Agent header
	Log     *slog.Logger
}

// Config is how registries are reached. The zero value is Docker's default.
type Config struct {
	Mirrors    []string            // URLs of mirrors of the default registry
	Insecure   []string            // hosts, host:port or CIDR ranges where TLS is optional and not checked
	Registries map[string]Registry // by the beginning of an image's full name: "host" or "host/path"
	CertDirs   []string            // directories with one directory of certificates a host
	HTTPProxy  string              // for http:// registries; empty with the others: from the environment
	HTTPSProxy string
	NoProxy    string
	Downloads  int // connections that fetch blobs at once; default 3
	Uploads    int // blobs that a push sends at once; default 5
	Attempts   int // of each blob; default 5
	// Stall is how long a connection may bring nothing; default 30 s.
	Stall time.Duration
}

// A Registry is how images whose names begin alike are reached.
type Registry struct {
	Mirrors  []string          `json:"mirrors,omitempty"`  // URLs, tried in order before the registry itself
	Rewrite  map[string]string `json:"rewrite,omitempty"`  // regular expression → repository at the mirrors
	Insecure bool              `json:"insecure,omitempty"` // TLS is optional and not checked
	CA       string            `json:"ca,omitempty"`       // file of certificates to trust, PEM
	Cert     string            `json:"cert,omitempty"`     // file of the client's certificate, PEM
	Key      string            `json:"key,omitempty"`      // file of its key
	// AuthHosts may see the registry's credentials, besides its own site.
	AuthHosts []string `json:"auth-hosts,omitempty"`
}

// A Client talks to registries. It is safe for concurrent use.
type Client struct {
	Options
	intake  *content.Intake
	fetches keyed.Flight[string, struct{}]
	board   board   // how far each fetch is
	slots   limiter // of connections that fetch blobs
}

// New returns a client. There is nothing to close: what it does ends with the
// contexts of its callers.
func New(o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{Options: o, intake: content.NewIntake(o.Content)}
}

// config returns the configuration with its defaults.
func (c *Client) config() Config {
	cfg := Config{}
	if c.Options.Config != nil {
		cfg = c.Options.Config()
	}
	for _, d := range []struct {
		at *int
		n  int
	}{{&cfg.Downloads, 3}, {&cfg.Uploads, 5}, {&cfg.Attempts, 5}} {
		if *d.at <= 0 {
			*d.at = d.n
		}
	}
	if cfg.Stall <= 0 {
		cfg.Stall = stallWindow
	}
	c.slots.resize(cfg.Downloads)
	return cfg
}

// ParseName reads an image's name as users write it, with or without a tag or
// digest. tag, if it is not empty, is a tag or digest that replaces the name's
// tag. errs.Invalid with the texts of Docker.
func ParseName(name, tag string) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if tag == "" {
		return ref, nil
	}
	d, err := parseDigest(tag)
	if err == nil {
		return withDigest(ref, d)
	}
	t, err := reference.WithTag(reference.TrimNamed(ref), tag)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return t, nil
}
