package server

import (
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"gantry/internal/errs"
)

// endless are the operations that last as long as the client, or a container,
// wants.
var endless = []string{
	"container.attach", "container.logs", "container.wait", "container.stats", "system.events", "exec.start", "service.logs", "task.logs", "build.session", "build.grpc",
	"system.debug",
}

// Endless says whether an operation lasts as long as the client, or a
// container, wants.
func Endless(operation string) bool { return slices.Contains(endless, operation) }

// begin counts a request that ends by itself; the result says that it has.
func (s *Server) begin(operation string) (end func()) {
	if Endless(operation) {
		return func() {}
	}
	for s.parent != nil {
		s = s.parent
	}
	s.short.Add(1)
	return func() { s.short.Add(-1) }
}

// Drain waits, as long as ctx allows, for the requests under way that end by
// themselves. Streams go on.
func (s *Server) Drain(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// What has been read of the connections is about to be counted.
	for quiet := 0; quiet < 5; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if quiet++; s.short.Load() > 0 {
			quiet = 0
		}
	}
}

// tellState tells a connection that can be handed to another program whether it
// is between two requests.
func tellState(c net.Conn, state http.ConnState) {
	k, ok := c.(interface {
		Idle()
		Busy()
	})
	switch {
	case !ok:
	case state == http.StateNew, state == http.StateIdle:
		k.Idle()
	default:
		k.Busy()
	}
}

// UpgradeState says which program serves, and how the last upgrade ended.
type UpgradeState struct {
	Version, Commit, Program string
	Attempt                  int    // how many times another program was to take over
	Error                    string `json:",omitempty"` // why the last one gave back
}

// Upgrades replaces the daemon's program.
type Upgrades interface {
	Upgrade(ctx context.Context, path string) (UpgradeState, error)
	State(ctx context.Context) UpgradeState
}

// upgradeRoutes answer for upgrades, which are beyond Docker.
func upgradeRoutes(u Upgrades) []route {
	return []route{
		{method: "GET", pattern: "/gantry/upgrade", serve: func(w http.ResponseWriter, r *request) error { return ok(w, u.State(r.Context())) }},
		{method: "POST", pattern: "/gantry/upgrade", serve: func(w http.ResponseWriter, r *request) error {
			if r.query.Has("path") && r.query.Get("path") == "" {
				return errs.New(errs.Invalid, "the path of the new program is empty")
			}
			now, err := u.Upgrade(act(r), r.query.Get("path"))
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusAccepted, now)
		}},
	}
}
