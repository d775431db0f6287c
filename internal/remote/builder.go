package remote

import (
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Hosts returns the endpoints of the registry with the domain of image names, as
// pulls use them, but without credentials: the caller brings them. Mirrors and
// settings that are for a part of the registry's repositories do not count.
func (c *Client) Hosts(domain string) ([]docker.RegistryHost, error) {
	name, err := reference.WithName(domain + "/any")
	if err != nil {
		return nil, err
	}
	cfg := c.config()
	list, err := endpoints(name, cfg)
	if err != nil {
		return nil, err
	}
	var hosts []docker.RegistryHost
	for _, e := range list {
		w, err := newWire(e, e.repo, cfg, c.Agent) // whatever repository is asked for
		if err != nil {
			return nil, err
		}
		h := docker.RegistryHost{
			Client: foreign(w), Host: e.host, Scheme: e.scheme, Path: e.path,
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}
		if !e.mirror {
			h.Capabilities |= docker.HostCapabilityPush
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// foreign returns an HTTP client over w for who does not say what it asks for:
// the answer to a request for a blob may be large, wherever it leads.
func foreign(w *wire) *http.Client {
	c := w.client()
	c.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
		for q := r; q != nil; {
			if strings.Contains(q.URL.Path, "/blobs/") {
				r = r.WithContext(asBlob(r.Context(), &blobRequest{}))
				break
			}
			if q.Response == nil {
				break
			}
			q = q.Response.Request // which led here
		}
		return w.RoundTrip(r)
	})
	return c
}
