package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// jsonlSince is the first version whose events are declared as JSON lines.
const jsonlSince version = 1052

// events answers for /events.
type events struct {
	bus     *event.Bus
	visible func(wire.Event) bool // nil: every event is
}

func (s *events) routes() []route {
	return []route{{method: "GET", pattern: "/events", serve: s.watch}}
}

// watch streams what happens, and what happened if since is given, until the
// client goes, until passes or the daemon ends.
func (s *events) watch(w http.ResponseWriter, r *request) error {
	since, until, err := span(r.query.Get("since"), r.query.Get("until"))
	if err != nil {
		return err
	}
	f, err := filter.Parse(r.query.Get("filters"))
	if err != nil {
		return err
	}
	kind, mark := eventType(r.Header.Get("Accept"), r.v)
	past, sub := s.bus.Subscribe(since)
	defer func() { sub.Close() }()
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	flush(w)
	out := &eventWriter{w: w, f: f, visible: s.visible, until: until, mark: mark, v: int(r.v), last: since.UnixNano()}
	if since.IsZero() {
		out.last = time.Now().UnixNano()
	}
	for {
		if !out.follow(r.Context(), past, sub) {
			return nil
		}
		// The client was slow. It goes on where it is, unless what it
		// misses is forgotten: then it must not take this for all.
		var whole bool
		if past, sub, whole = s.bus.Resume(out.last); !whole {
			panic(http.ErrAbortHandler)
		}
	}
}

// An eventWriter sends the events that a client asked for.
type eventWriter struct {
	w     http.ResponseWriter
	f     filter.Args
	until time.Time
	mark  string
	v     int
	last  int64 // TimeNano of the last event seen
	// visible says which events the client may see; nil: all.
	visible func(wire.Event) bool
}

// follow sends past and what sub brings. It returns true if the subscription
// was cut off, and false at the end.
func (o *eventWriter) follow(ctx context.Context, past []wire.Event, sub *event.Subscription) (behind bool) {
	for _, e := range past {
		if o.send(e) != nil {
			return false
		}
	}
	var end <-chan time.Time
	if !o.until.IsZero() {
		timer := time.NewTimer(time.Until(o.until))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case e, ok := <-sub.C:
			if !ok {
				return sub.Behind()
			}
			if o.send(e) != nil {
				return false
			}
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (o *eventWriter) send(e wire.Event) error {
	o.last = e.TimeNano
	if o.visible != nil && !o.visible(e) {
		return nil
	}
	if !eventMatches(e, o.f) || !o.until.IsZero() && e.TimeNano > o.until.UnixNano() {
		return nil
	}
	if o.mark != "" {
		if _, err := o.w.Write([]byte(o.mark)); err != nil {
			return err
		}
		flush(o.w)
	}
	err := encode(o.w, shape.Event(e, o.v))
	flush(o.w)
	return err
}

// span reads since and until.
func span(from, to string) (since, until time.Time, err error) {
	if since, err = parseTime(from); err != nil {
		return since, until, errs.New(errs.Invalid, "invalid value for 'since': %w", err)
	}
	if until, err = parseTime(to); err != nil {
		return since, until, errs.New(errs.Invalid, "invalid value for 'until': %w", err)
	}
	if !since.IsZero() && !until.IsZero() && since.After(until) {
		return since, until, errs.New(errs.Invalid, "`since` time (%s) cannot be after `until` time (%s)", from, to)
	}
	return since, until, nil
}

// eventType chooses the media type, and what precedes each event (RFC 7464).
func eventType(accept string, v version) (kind, mark string) {
	for _, a := range strings.Split(accept, ",") {
		a, _, _ = strings.Cut(a, ";")
		switch a = strings.TrimSpace(a); a {
		case "application/json-seq":
			return a, "\x1e"
		case "application/jsonl", "application/x-ndjson":
			return a, ""
		}
	}
	if v < jsonlSince {
		return "application/json", ""
	}
	return "application/jsonl", ""
}

// eventMatches holds the filter rules of events.
func eventMatches(e wire.Event, f filter.Args) bool {
	kind, action := string(e.Type), string(e.Action)
	for _, object := range objects {
		// IDs and names match from their beginning.
		if f.Has(object) && !f.Prefix(object, e.Actor.ID) && !f.Prefix(object, e.Actor.Attributes["name"]) {
			return false
		}
	}
	return eventAction(action, f) && f.Exact("type", kind) && f.Exact("scope", e.Scope) && f.Labels(e.Actor.Attributes) && eventImage(e, f)
}

// objects are the filter keys that name the object of an event.
var objects = [...]string{"config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"}

// eventAction matches the event key. "exec_create: sh -c x" is also known by
// what precedes the colon; so are exec_start and health_status.
func eventAction(action string, f filter.Args) bool {
	if f.Exact("event", action) {
		return true
	}
	before, _, ok := strings.Cut(action, ":")
	switch before {
	case "exec_create", "exec_start", "health_status":
		return ok && f.Exact("event", before)
	}
	return false
}

// eventImage matches the image key, with and without a tag.
func eventImage(e wire.Event, f filter.Args) bool {
	if !f.Has("image") {
		return true
	}
	name := e.Actor.Attributes["image"]
	if e.Type == "image" {
		name = e.Actor.Attributes["name"]
	}
	for _, s := range []string{e.Actor.ID, name} {
		if s == "" {
			continue
		}
		bare := s
		if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
			bare = s[:i]
		}
		if f.Exact("image", s) || f.Exact("image", bare) {
			return true
		}
	}
	return false
}
