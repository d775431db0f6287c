package server

import (
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
type events struct{ bus *event.Bus }

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
	defer sub.Close()

	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	flush(w)
	send := func(e wire.Event) error {
		if !eventMatches(e, f) || !until.IsZero() && e.TimeNano > until.UnixNano() {
			return nil
		}
		if mark != "" {
			if _, err := w.Write([]byte(mark)); err != nil {
				return err
			}
			flush(w)
		}
		err := encode(w, shape.Event(e, int(r.v)))
		flush(w)
		return err
	}
	for _, e := range past {
		if send(e) != nil {
			return nil
		}
	}
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case e, ok := <-sub.C:
			if !ok || send(e) != nil {
				return nil
			}
		case <-end:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
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
