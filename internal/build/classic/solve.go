package classic

import (
	"context"
	"errors"
	"io"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/filesync"
	"google.golang.org/grpc"
)

// clientSession as a remote says that the client's session has the context.
const clientSession = "client-session"

// imageDigest is what exporters call the image's digest.
const imageDigest = "containerimage.digest"

// solve has the controller build, tells status (nil: tell the raw trace) of the
// progress, and returns what the exporter says.
func (j *job) solve(ctx context.Context, status func(*client.SolveStatus)) (map[string]string, error) {
	c, err := j.b.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sessionID := j.r.Session
	if j.r.Remote != clientSession {
		s, wait, err := j.session(ctx, c)
		if err != nil {
			return nil, err
		}
		defer wait()
		defer s.Close()
		if j.r.BuildKit && sessionID != "" {
			// Secrets and credentials are the client's to give, the context is here.
			j.attrs["local-sessionid:"+contextDir], j.attrs["local-sessionid:"+dockerfileDir] = s.ID(), s.ID()
		} else {
			sessionID = s.ID()
		}
	}
	req := j.request(sessionID)
	told := make(chan error, 1)
	go func() { told <- j.follow(ctx, c, req.Ref, status) }()
	res, err := c.ControlClient().Solve(ctx, req)
	if err != nil {
		cancel(err) // a solve that has not begun has no status to end
	}
	followed := <-told
	switch {
	case err != nil:
		return nil, err
	case followed != nil:
		return nil, followed
	case j.gone != nil:
		return nil, j.gone
	}
	return res.ExporterResponse, nil
}

// request is what the controller is asked.
func (j *job) request(sessionID string) *controlapi.SolveRequest {
	id := j.r.ID
	if id == "" {
		id = identity.NewID()
	}
	req := &controlapi.SolveRequest{Ref: id, Session: sessionID, Frontend: "dockerfile.v0", FrontendAttrs: j.attrs, Cache: &controlapi.CacheOptions{}}
	if j.attrs["force-network-mode"] == "host" {
		req.Entitlements = []string{"network.host"}
	}
	for _, o := range j.r.Outputs {
		req.Exporters = append(req.Exporters, &controlapi.Exporter{Type: o.Type, Attrs: o.Attrs})
	}
	if len(req.Exporters) == 0 {
		names := j.names
		if j.r.Squash {
			names = nil // they are for the image to come
		}
		req.Exporters = []*controlapi.Exporter{{Type: "moby", Attrs: map[string]string{"name": strings.Join(names, ",")}}}
	}
	req.ExporterDeprecated, req.ExporterAttrsDeprecated = req.Exporters[0].Type, req.Exporters[0].Attrs
	return req
}

// session runs a session that has the context and the client's credentials.
// wait returns when it has ended.
func (j *job) session(ctx context.Context, c *client.Client) (*session.Session, func(), error) {
	s, err := session.NewSession(ctx, j.b.keys.key(j.files))
	if err != nil {
		return nil, nil, err
	}
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{contextDir: j.files, dockerfileDir: j.files}))
	s.Allow(&credentials{auths: j.r.Auth})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, c.Dialer()) // without it the solve fails, and says why
	}()
	return s, func() { <-ended }, nil
}

// follow passes the progress of a solve on until it has ended.
func (j *job) follow(ctx context.Context, c *client.Client, ref string, status func(*client.SolveStatus)) error {
	stream, err := c.ControlClient().Status(ctx, &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if status != nil {
			status(client.NewSolveStatus(resp))
		} else if err := j.raw(resp); err != nil {
			return err
		}
	}
}

// credentials answers the controller's questions about registries from what the
// request carried.
type credentials struct {
	auth.UnimplementedAuthServer
	auths map[string]registryAuth
}

// Register makes it part of a session.
func (p *credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, p) }

// Credentials returns name and password for a registry, empty if there are none.
func (p *credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.Host
	if host == "registry-1.docker.io" {
		host = "https://index.docker.io/v1/"
	}
	a, ok := p.auths[host]
	if !ok {
		for k, v := range p.auths {
			if hostOf(k) == hostOf(host) {
				a = v
			}
		}
	}
	if a.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
}

// hostOf is the host of a key of a docker configuration, which may be an
// address of the registry's first API.
func hostOf(key string) string {
	if _, after, ok := strings.Cut(key, "://"); ok {
		key = after
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}
