package server

import (
	"net/http"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// unbuilt are the operations of the API that this version does not have. Each
// is routed, so that a client learns which operation is missing instead of
// taking the daemon for something else.
func unbuilt() []route {
	missing := func(method, pattern, what string) route {
		return route{method: method, pattern: pattern, serve: func(http.ResponseWriter, *request) error {
			return errs.New(errs.Unsupported, "%s: not supported by this version of Gantry", what)
		}}
	}
	list := []route{
		missing("GET", "/swarm/unlockkey", "swarm"),
		{method: "GET", pattern: "/plugins", serve: noPlugins},
		missing("GET", "/plugins/privileges", "plugin install"),
		{method: "GET", pattern: "/plugins/{name}/json", serve: noPlugin},
		{method: "DELETE", pattern: "/plugins/{name}", serve: noPlugin},
		missing("POST", "/plugins/pull", "plugins"),
		missing("POST", "/plugins/create", "plugins"),
	}
	for _, p := range []string{"enable", "disable", "upgrade", "push", "set"} {
		list = append(list, route{method: "POST", pattern: "/plugins/{name}/" + p, serve: noPlugin})
	}
	for _, r := range cluster {
		list = append(list, route{method: r[0], pattern: r[1], serve: noCluster})
	}
	return list
}

// cluster are the operations that only a swarm manager has.
var cluster = [][2]string{
	{"GET", "/swarm"}, {"POST", "/swarm/init"}, {"POST", "/swarm/join"}, {"POST", "/swarm/leave"}, {"POST", "/swarm/update"}, {"POST", "/swarm/unlock"},
	{"GET", "/nodes"}, {"GET", "/nodes/{id}"}, {"DELETE", "/nodes/{id}"}, {"POST", "/nodes/{id}/update"},
	{"GET", "/services"}, {"POST", "/services/create"}, {"GET", "/services/{id}/logs"}, {"GET", "/services/{id}"}, {"DELETE", "/services/{id}"}, {"POST", "/services/{id}/update"},
	{"GET", "/tasks"}, {"GET", "/tasks/{id}/logs"}, {"GET", "/tasks/{id}"},
	{"GET", "/secrets"}, {"POST", "/secrets/create"}, {"GET", "/secrets/{id}"}, {"DELETE", "/secrets/{id}"}, {"POST", "/secrets/{id}/update"},
	{"GET", "/configs"}, {"POST", "/configs/create"}, {"GET", "/configs/{id}"}, {"DELETE", "/configs/{id}"}, {"POST", "/configs/{id}/update"},
}

// noCluster is what an engine that is no swarm manager answers; clients probe
// with it. To make or join a swarm is not built.
func noCluster(_ http.ResponseWriter, r *request) error {
	switch _, path := splitVersion(r.URL.Path); path {
	case "/swarm/init", "/swarm/join":
		return errs.New(errs.Unsupported, "swarm: not supported by this version of Gantry")
	case "/swarm/leave":
		return errs.New(errs.Unavailable, "This node is not part of a swarm")
	}
	return errs.New(errs.Unavailable, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
}

// noPlugins: there are none, and clients list them.
func noPlugins(w http.ResponseWriter, r *request) error {
	if _, err := r.filters(filter.Plugins); err != nil {
		return err
	}
	return ok(w, []wire.ErrorResponse{})
}

// noPlugin is the answer to whatever is asked of a plugin that was installed as an
// image: there are none.
func noPlugin(_ http.ResponseWriter, r *request) error {
	name := r.name
	switch {
	case strings.HasSuffix(r.URL.Path, "/enable"):
		if _, err := strconv.Atoi(r.query.Get("timeout")); err != nil {
			return errs.New(errs.Invalid, "%w", err)
		}
	case strings.HasSuffix(r.URL.Path, "/upgrade") && !strings.Contains(name, ":"):
		name += ":latest"
	}
	return errs.New(errs.NotFound, "plugin %q not found", name)
}
