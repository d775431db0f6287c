package remote

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"

	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// Login asks a registry whether credentials are good. The answer may hold an
// identity token, to be kept instead of the password. errs.Unauthenticated if
// they are refused.
func (c *Client) Login(ctx context.Context, a apiwire.RegistryAuth) (apiwire.RegistryAuthReply, error) {
	host := hostOf(a.ServerAddress)
	if host == "" || host == "index."+defaultDomain() {
		host = defaultDomain()
	}
	name, err := reference.ParseNormalizedNamed(host + "/login")
	if err != nil || reference.Domain(name) != host {
		return apiwire.RegistryAuthReply{}, errs.New(errs.Invalid, "invalid registry address %.200q", a.ServerAddress)
	}
	a.ServerAddress = host
	s, err := c.open(name, a)
	if err != nil {
		return apiwire.RegistryAuthReply{}, err
	}
	defer s.close()
	_, h := s.registry()
	az, _ := h.Authorizer.(*authorizer)
	az.offline = true
	resp, err := s.ping(ctx)
	if err != nil {
		return apiwire.RegistryAuthReply{}, err
	}
	if resp.StatusCode != http.StatusOK {
		kind := kindOfStatus(resp.StatusCode)
		return apiwire.RegistryAuthReply{}, errs.New(kind, "login attempt to %s failed with status: %s", resp.Request.URL, resp.Status)
	}
	return apiwire.RegistryAuthReply{Status: "Login Succeeded", IdentityToken: az.identity}, nil
}

// hostOf returns the host of a server address with or without scheme and path.
func hostOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	return s
}

// ping asks the registry itself whether it is one, with the credentials if it
// wants them. Where plain HTTP is allowed, it finds out which the registry
// speaks.
func (s *session) ping(ctx context.Context) (*http.Response, error) {
	w, h := s.registry()
	resp, body, err := s.get(ctx, w.path+"/")
	if err != nil && w.insecure && statusOf(err) == 0 && isDial(err) {
		w.plain.Store(true)
		s.hosts[len(s.hosts)-1].Scheme = "http"
		resp, body, err = s.get(ctx, w.path+"/")
	}
	switch {
	case err == nil:
		return resp, nil
	case resp == nil && statusOf(err) == 0:
		return nil, translate(err)
	}
	at := h.Scheme + "://" + h.Host + w.path + "/"
	if w.plain.Load() {
		at = "http" + strings.TrimPrefix(at, h.Scheme)
	}
	if resp != nil {
		at = resp.Request.URL.String()
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) && resp != nil {
		text := registryText(body)
		if strings.Contains(err.Error(), "no basic auth credentials") {
			return nil, errs.New(errs.Unauthenticated, "Get %q: no basic auth credentials", at)
		}
		if text == "" {
			return nil, errs.New(errs.Unauthenticated, "login attempt to %s failed with status: %s", at, resp.Status)
		}
		return nil, errs.New(errs.Unauthenticated, "Get %q: %s", at, text)
	}
	t := translate(err)
	return nil, errs.New(errs.KindOf(t), "Get %q: %w", at, t)
}

// isDial reports whether nobody could be reached.
func isDial(err error) bool {
	return strings.Contains(err.Error(), "dial tcp") || isTimeout(err)
}

// Lookup finds out what a name means at its registry, and for which platforms.
func (c *Client) Lookup(ctx context.Context, name reference.Named, a apiwire.RegistryAuth) (apiwire.DistributionInspect, error) {
	var out apiwire.DistributionInspect
	name = reference.TagNameOnly(name)
	s, err := c.open(name, a)
	if err != nil {
		return out, err
	}
	defer s.close()
	if len(s.wires) == 1 {
		// Where nobody is, Docker's own words say so.
		if _, err := s.ping(ctx); err != nil && !errs.Is(err, errs.Unauthenticated) {
			return out, err
		}
	}
	if out.Descriptor, err = s.resolve(ctx); err != nil {
		return out, err
	}
	data, err := s.text(ctx, out.Descriptor, image.MaxManifest)
	if err != nil {
		return out, translate(err)
	}
	body, err := image.ReadContents(data, out.Descriptor.MediaType)
	if err != nil {
		return out, err
	}
	for _, m := range body.Manifests {
		if m.Platform != nil {
			out.Platforms = append(out.Platforms, *m.Platform)
		}
	}
	if body.Config != nil && image.IsImageConfig(body.Config.MediaType) {
		data, err := s.text(ctx, *body.Config, image.MaxConfig)
		if err != nil {
			return out, translate(err)
		}
		_, p, err := image.ReadConfig(data, len(body.Layers))
		if err != nil {
			return out, err
		}
		out.Platforms = append(out.Platforms, p)
	}
	return out, nil
}
