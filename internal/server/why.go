package server

import (
	"context"
	"net/http"
	"net/netip"

	"gantry/internal/errs"
)

// Explainer says which packet rule lets packets for a container's port pass, or
// stops them. The value is written as JSON.
type Explainer interface {
	Why(ctx context.Context, container, port string, from netip.Addr) (any, error)
}

// whyRoutes are beyond Docker.
func whyRoutes(e Explainer) []route {
	return []route{{method: "GET", pattern: "/gantry/containers/{name}/why", serve: func(w http.ResponseWriter, r *request) error {
		var from netip.Addr
		if s := r.query.Get("from"); s != "" {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return errs.New(errs.Invalid, "invalid address %q", s)
			}
			from = a
		}
		v, err := e.Why(r.Context(), r.name, r.query.Get("port"), from)
		if err != nil {
			return err
		}
		return ok(w, v)
	}}}
}
