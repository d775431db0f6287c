package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// A session is one operation on one repository: its endpoints, with the
// connections to them and the credentials.
type session struct {
	c     *Client
	cfg   Config
	name  reference.Named
	wires []*wire // in the order to try; the registry itself is the last
	hosts []docker.RegistryHost
}

// open makes a session. It talks to nobody yet. close must be called.
func (c *Client) open(name reference.Named, a apiwire.RegistryAuth) (*session, error) {
	s := &session{c: c, cfg: c.config(), name: name}
	list, err := endpoints(name, s.cfg)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		w, err := newWire(e, reference.Path(name), s.cfg, c.Agent)
		if err != nil {
			return nil, err
		}
		s.wires = append(s.wires, w)
		h := docker.RegistryHost{
			Client: w.client(), Host: e.host, Scheme: e.scheme, Path: e.path,
			Authorizer:   newAuthorizer(w, whole(a), reference.Domain(name)),
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}
		if !e.mirror {
			h.Capabilities |= docker.HostCapabilityPush
		}
		s.hosts = append(s.hosts, h)
	}
	return s, nil
}

func (s *session) close() {
	for _, w := range s.wires {
		w.base.CloseIdleConnections()
		w.strict.CloseIdleConnections()
	}
}

// registry is the endpoint that is no mirror.
func (s *session) registry() (*wire, docker.RegistryHost) {
	return s.wires[len(s.wires)-1], s.hosts[len(s.hosts)-1]
}

// resolver returns a resolver over some of the endpoints.
func resolver(hosts []docker.RegistryHost, tracker docker.StatusTracker) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return hosts, nil },
		Tracker: tracker,
	})
}

// resolve finds what the name means at the first endpoint that knows it.
func (s *session) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ref := s.name
	d, digested := ref.(reference.Digested)
	if digested {
		// What the tag means besides is of no interest.
		var err error
		if ref, err = withDigest(reference.TrimNamed(ref), d.Digest()); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	_, desc, err := resolver(s.hosts, nil).Resolve(ctx, ref.String())
	if err != nil {
		return desc, pullError(s.name, err)
	}
	if err := checkTarget(s.name, desc); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, nil
}

// schema1 is the media type, signed or not, of manifests that went out of use.
const schema1 = "application/vnd.docker.distribution.manifest.v1+"

// checkTarget refuses what is no image.
func checkTarget(name reference.Named, d ocispec.Descriptor) error {
	switch {
	case image.IsManifest(d.MediaType), image.IsIndex(d.MediaType):
	case len(d.MediaType) > len(schema1) && d.MediaType[:len(schema1)] == schema1:
		return errs.New(errs.Invalid, "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed: the author of %s must upgrade the image to the OCI Format or Docker Image manifest v2, schema 2", name.String())
	default:
		return errs.New(errs.Invalid, "%s is no image: the registry calls it %.100q", name.String(), d.MediaType)
	}
	if d.Size > image.MaxManifest {
		return errs.New(errs.Invalid, "manifest of %s has %d bytes, more than %d", name.String(), d.Size, image.MaxManifest)
	}
	return nil
}

// text fetches a manifest or configuration of at most limit bytes from the first
// endpoint that has it, and checks its digest.
func (s *session) text(ctx context.Context, d ocispec.Descriptor, limit int64) (data []byte, err error) {
	if d.Size > limit {
		return nil, errs.New(errs.Invalid, "%s has %d bytes, more than %d", d.Digest, d.Size, limit)
	}
	ctx, cancel := context.WithTimeout(ctx, maxTextWindow)
	defer cancel()
	for i := range s.hosts {
		data, err = s.textFrom(ctx, i, d, limit)
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return data, err
}

func (s *session) textFrom(ctx context.Context, host int, d ocispec.Descriptor, limit int64) ([]byte, error) {
	r, err := s.fetch(ctx, host, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit || int64(len(data)) != d.Size {
		return nil, errs.New(errs.Invalid, "%s has %d bytes, not %d", d.Digest, len(data), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return nil, errs.New(errs.Invalid, "registry sent %s for %s", got, d.Digest)
	}
	return data, nil
}

// fetch opens a blob or manifest at an endpoint. Addresses that its descriptor
// names are never followed: only the digest counts.
func (s *session) fetch(ctx context.Context, host int, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := resolver(s.hosts[host:host+1], nil).Fetcher(ctx, s.name.String())
	if err != nil {
		return nil, err
	}
	return f.Fetch(ctx, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
}

// get asks the registry itself for something that the resolver does not know;
// path is below the API's. The answer is at most a manifest's size.
func (s *session) get(ctx context.Context, path string) (*http.Response, []byte, error) {
	w, h := s.registry()
	ctx, cancel := context.WithTimeout(ctx, maxTextWindow)
	defer cancel()
	var seen []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+path, nil)
		if err != nil {
			return nil, nil, errs.With(errs.Invalid, err)
		}
		if err := h.Authorizer.Authorize(ctx, req); err != nil {
			return nil, nil, fmt.Errorf("failed to authorize: %w", err)
		}
		resp, err := w.client().Do(req)
		if err != nil {
			return nil, nil, err
		}
		data, err := readText(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, nil, err
		}
		seen = append(seen, resp)
		if resp.StatusCode == http.StatusUnauthorized && len(seen) < 4 {
			err := h.Authorizer.AddResponses(ctx, seen)
			if err == nil {
				continue
			}
			return resp, data, err
		}
		return resp, data, nil
	}
}

// validDigest refuses digests of algorithms that are not compiled in.
func validDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return errs.New(errs.Invalid, "digest %.200q: %w", d, err)
	}
	return nil
}
