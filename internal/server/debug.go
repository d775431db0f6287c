package server

import "net/http"

// debugging serves Go's profiler as Docker's daemon does with -D; without it
// there is no such page.
func debugging(profiler func() http.Handler) []route {
	serve := func(w http.ResponseWriter, r *request) error {
		var h http.Handler
		if profiler != nil {
			h = profiler()
		}
		if h == nil {
			clear(w.Header())
			notFound(w)
			return nil
		}
		_, path := splitVersion(r.URL.Path)
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = path, ""
		h.ServeHTTP(w, inner)
		return nil
	}
	var list []route
	for _, p := range []string{"vars", "pprof/", "pprof/cmdline", "pprof/profile", "pprof/symbol", "pprof/trace", "pprof/{name}"} {
		list = append(list, route{method: "GET", pattern: "/debug/" + p, serve: serve})
	}
	return list
}
