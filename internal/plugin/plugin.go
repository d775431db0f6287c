// Package plugin finds programs that extend the engine by Docker's plugin
// protocol, and calls them: JSON over HTTP on a unix or TCP socket.
//
// The drivers of volumes and networks call it through interfaces of their own
// with plain types; package extension runs plugins that are installed as images
// and adds their sockets here. It writes nothing, reads the discovery directories,
// and knows neither volumes nor networks. A plugin that hangs holds up its callers
// until their context ends, and nobody else.
//
// Source: docs.docker.com/engine/extend/plugin_api.
package plugin

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/keyed"
)

// Options say where plugins are looked for.
type Options struct {
	// Sockets are directories of NAME.sock, Specs of NAME.spec and NAME.json;
	// the first that has a name wins, and sockets win over specs.
	Sockets, Specs []string
}

// SystemSockets and SystemSpecs are the directories that hosts have.
func SystemSockets() []string { return []string{"/run/gantry/plugins", "/run/docker/plugins"} }

// SystemSpecs are the directories of files that name addresses.
func SystemSpecs() []string {
	return []string{"/etc/gantry/plugins", "/usr/lib/gantry/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"}
}

// Plugins are the plugins that can be reached. It is safe for concurrent use.
type Plugins struct {
	o          Options
	activating keyed.Flight[string, *active]

	mu      sync.Mutex
	active  map[string]*active
	managed map[string]Endpoint
	off     map[string]bool
}

// active is a plugin that has said what it implements.
type active struct {
	client     *client
	endpoint   Endpoint
	implements []string
}

// New returns the plugins of the directories. Nothing is read before it is asked.
func New(o Options) *Plugins {
	return &Plugins{o: o, active: map[string]*active{}, managed: map[string]Endpoint{}, off: map[string]bool{}}
}

// Add makes a plugin known that no directory names; it wins over one that a
// directory names.
func (p *Plugins) Add(name string, e Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.managed[name] = e
	delete(p.active, name)
	delete(p.off, name)
}

// Drop takes back what Add did.
func (p *Plugins) Drop(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.managed, name)
	delete(p.active, name)
	delete(p.off, name)
}

// Off is Drop for a plugin that is there and was disabled.
func (p *Plugins) Off(name string) {
	p.Drop(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off[name] = true
}

// canonical returns the name that Add or Off was told: with the tag "latest" if
// nobody said one.
func (p *Plugins) canonical(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.managed[name]; ok || p.off[name] {
		return name
	}
	tagged := name + ":latest"
	if _, ok := p.managed[tagged]; ok || p.off[tagged] {
		return tagged
	}
	return name
}

// activateTime bounds how long a plugin may take to say what it is.
const activateTime = 10 * time.Second

// Offers reports whether the plugin called name exists and implements what
// (such as "VolumeDriver"). Errors: errs.NotFound if there is no such plugin or
// it does something else, errs.Unavailable if it does not answer.
func (p *Plugins) Offers(ctx context.Context, name, what string) error {
	a, err := p.activate(ctx, name)
	if err != nil {
		return err
	}
	if !slices.Contains(a.implements, what) {
		return errs.New(errs.NotFound, "plugin %q does not implement the requested interface %s", name, what)
	}
	return nil
}

// Offering returns the plugins that implement what, in order of their names. One
// that does not answer is left out; wait bounds how long all of them get.
func (p *Plugins) Offering(ctx context.Context, what string, wait time.Duration) []string {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	names := p.names()
	offers := make([]bool, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() { offers[i] = p.Offers(ctx, n, what) == nil })
	}
	wg.Wait()
	var out []string
	for i, n := range names {
		if offers[i] {
			out = append(out, n)
		}
	}
	return out
}

// Known returns the plugins that have said that they implement what, without
// asking any.
func (p *Plugins) Known(what string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for name, a := range p.active {
		if slices.Contains(a.implements, what) {
			out = append(out, name)
		}
	}
	for name, e := range p.managed {
		if slices.Contains(strings.Split(e.Implements, ","), what) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Call calls a method ("VolumeDriver.Create") of the plugin called name with the
// JSON of in, and reads the answer into out; either may be nil. A plugin that can't
// be connected to is tried again until retryTime has passed: what it was not told
// can be told again, what was sent is not. Errors: errs.NotFound if there is no
// such plugin, errs.Unavailable if it can't be reached or does not answer before
// ctx ends; *Refused if it answers with an error.
func (p *Plugins) Call(ctx context.Context, name, method string, in, out any) error {
	wait := time.Now().Add(retryTime)
	for pause := 100 * time.Millisecond; ; pause *= 2 {
		a, err := p.activate(ctx, name)
		if err == nil {
			err = a.client.call(ctx, method, in, out)
		}
		if err == nil || !errors.Is(err, errUnreached) {
			return err
		}
		p.forget(p.canonical(name), a)
		if time.Now().Add(pause).After(wait) {
			return errs.New(errs.Unavailable, "plugin %q: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "plugin %q: %w", name, errors.Join(err, ctx.Err()))
		case <-time.After(pause):
		}
	}
}

// retryTime is how long a plugin that is being restarted may be away.
const retryTime = 5 * time.Second

func (p *Plugins) forget(name string, a *active) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a != nil && p.active[name] == a {
		delete(p.active, name)
		a.client.close()
	}
}

// activate returns a plugin that is ready, asking it what it is if its socket
// is not the one that was asked before.
func (p *Plugins) activate(ctx context.Context, name string) (*active, error) {
	name = p.canonical(name)
	p.mu.Lock()
	e, ok := p.managed[name]
	off := p.off[name]
	p.mu.Unlock()
	if off {
		return nil, errs.New(errs.Conflict, "plugin %s found but disabled", name)
	}
	if !ok {
		var err error
		if e, err = p.find(name); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	a := p.active[name]
	p.mu.Unlock()
	if a != nil && a.endpoint == e {
		return a, nil
	}
	return p.activating.Do(ctx, name, func(ctx context.Context) (*active, error) {
		ctx, cancel := context.WithTimeout(ctx, activateTime)
		defer cancel()
		c, err := dial(e)
		if err != nil {
			return nil, errs.New(errs.Invalid, "plugin %q: %w", name, err)
		}
		said := struct{ Implements []string }{strings.Split(e.Implements, ",")}
		if e.Implements != "" {
			// its configuration says it
		} else if err := c.call(ctx, "Plugin.Activate", nil, &said); err != nil {
			c.close()
			return nil, errs.New(errs.Unavailable, "plugin %q: %w", name, err)
		}
		a := &active{client: c, endpoint: e, implements: said.Implements}
		p.mu.Lock()
		defer p.mu.Unlock()
		if old := p.active[name]; old != nil {
			old.client.close()
		}
		p.active[name] = a
		return a, nil
	})
}

func notFound(name string) error { return errs.New(errs.NotFound, "plugin %q not found", name) }

// Directories returns the options for a daemon with a run directory: its own
// plugins, and those of the host.
func Directories(run string) Options {
	return Options{Sockets: append([]string{filepath.Join(run, "plugins")}, SystemSockets()...), Specs: SystemSpecs()}
}
