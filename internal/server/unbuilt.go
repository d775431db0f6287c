package server

import (
	"net/http"

	"gantry/internal/errs"
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
