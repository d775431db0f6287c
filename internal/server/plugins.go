package server

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/extension"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// Plugins knows the plugins that are installed as images.
type Plugins interface {
	PluginSwitches
	PluginMoves
	List(ctx context.Context, f filter.Args) ([]wire.Plugin, error)
	Inspect(ctx context.Context, ref string) (wire.Plugin, error)
}

// PluginSwitches changes plugins that are installed.
type PluginSwitches interface {
	// Enable returns when the plugin listens; within is 0 for the usual time.
	Enable(ctx context.Context, ref string, within time.Duration) error
	Disable(ctx context.Context, ref string, o extension.DisableOptions) error
	Remove(ctx context.Context, ref string, o extension.RemoveOptions) error
	Set(ctx context.Context, ref string, args []string) error
}

// PluginMoves brings plugins here and elsewhere. auth are the credentials of one
// request, verbatim.
type PluginMoves interface {
	Privileges(ctx context.Context, remote, auth string) ([]wire.PluginPrivilege, error)
	Pull(ctx context.Context, o extension.PullOptions) error
	Upgrade(ctx context.Context, ref string, o extension.PullOptions) error
	Create(ctx context.Context, name string, tar io.Reader) error
	Push(ctx context.Context, ref, auth string, tell func(wire.Progress)) error
}

// plugins answers for /plugins.
type plugins struct{ store Plugins }

func (s *plugins) routes() []route {
	return []route{
		{method: "GET", pattern: "/plugins", serve: s.list},
		{method: "GET", pattern: "/plugins/privileges", serve: s.privileges},
		{method: "GET", pattern: "/plugins/{name}/json", serve: s.inspect},
		{method: "DELETE", pattern: "/plugins/{name}", serve: s.remove},
		{method: "POST", pattern: "/plugins/pull", serve: s.pull},
		{method: "POST", pattern: "/plugins/create", serve: s.create},
		{method: "POST", pattern: "/plugins/{name}/enable", serve: s.enable},
		{method: "POST", pattern: "/plugins/{name}/disable", serve: s.disable},
		{method: "POST", pattern: "/plugins/{name}/upgrade", serve: s.upgrade},
		{method: "POST", pattern: "/plugins/{name}/push", serve: s.push},
		{method: "POST", pattern: "/plugins/{name}/set", serve: s.set},
	}
}

func (s *plugins) list(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.Plugins)
	if err != nil {
		return err
	}
	list, err := s.store.List(r.Context(), f)
	if err != nil {
		return err
	}
	return ok(w, list)
}

func (s *plugins) inspect(w http.ResponseWriter, r *request) error {
	p, err := s.store.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return ok(w, p)
}

func (s *plugins) privileges(w http.ResponseWriter, r *request) error {
	list, err := s.store.Privileges(r.Context(), r.query.Get("remote"), r.Header.Get(authHeader))
	if err != nil {
		return err
	}
	return ok(w, list)
}

func (s *plugins) remove(w http.ResponseWriter, r *request) error {
	if err := s.store.Remove(act(r), r.name, extension.RemoveOptions{Force: r.flag("force")}); err != nil {
		return err
	}
	return empty(w, http.StatusOK)
}

func (s *plugins) enable(w http.ResponseWriter, r *request) error {
	seconds, err := strconv.Atoi(r.query.Get("timeout"))
	if err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	if seconds < 0 || seconds > 24*60*60 {
		return errs.New(errs.Invalid, "timeout %d is not between 0 and a day", seconds)
	}
	if err := s.store.Enable(r.Context(), r.name, time.Duration(seconds)*time.Second); err != nil {
		return err
	}
	return empty(w, http.StatusOK)
}

func (s *plugins) disable(w http.ResponseWriter, r *request) error {
	if err := s.store.Disable(act(r), r.name, extension.DisableOptions{Force: r.flag("force")}); err != nil {
		return err
	}
	return empty(w, http.StatusOK)
}

func (s *plugins) set(w http.ResponseWriter, r *request) error {
	var args []string
	if err := r.decodeIfAny(w, &args); err != nil {
		return err
	}
	if err := s.store.Set(act(r), r.name, args); err != nil {
		return err
	}
	return noContent(w)
}

func (s *plugins) create(w http.ResponseWriter, r *request) error {
	if err := s.store.Create(r.Context(), r.query.Get("name"), r.Body); err != nil {
		return err
	}
	return noContent(w)
}

// told answers with the stream of what do tells; errors before its beginning are
// the answer, later ones are told in it.
func told(w http.ResponseWriter, do func(tell func(wire.Progress)) error) error {
	p := &progress{w: w}
	err := do(p.tell)
	if err != nil && p.began {
		p.fail(err)
		return nil
	}
	if err == nil {
		p.begin()
	}
	return err
}

func (s *plugins) pull(w http.ResponseWriter, r *request) error {
	var granted []wire.PluginPrivilege
	if err := r.decodeIfAny(w, &granted); err != nil {
		return err
	}
	return told(w, func(tell func(wire.Progress)) error {
		return s.store.Pull(r.Context(), extension.PullOptions{
			Remote: r.query.Get("remote"), Name: r.query.Get("name"), Auth: r.Header.Get(authHeader), Granted: granted, Tell: tell,
		})
	})
}

func (s *plugins) upgrade(w http.ResponseWriter, r *request) error {
	var granted []wire.PluginPrivilege
	if err := r.decodeIfAny(w, &granted); err != nil {
		return err
	}
	return told(w, func(tell func(wire.Progress)) error {
		return s.store.Upgrade(r.Context(), r.name, extension.PullOptions{
			Remote: r.query.Get("remote"), Auth: r.Header.Get(authHeader), Granted: granted, Tell: tell,
		})
	})
}

func (s *plugins) push(w http.ResponseWriter, r *request) error {
	return told(w, func(tell func(wire.Progress)) error {
		return s.store.Push(r.Context(), r.name, r.Header.Get(authHeader), tell)
	})
}
