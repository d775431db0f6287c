// Package plugin is the volume driver protocol, as plugins speak it: a volume
// whose content another program keeps.
//
// Package volume calls it with names and options as users gave them. It keeps
// nothing, bounds how long each call may take, and knows of neither records nor
// containers, whose ids it passes on as the callers of mounts.
//
// Source: docs.docker.com/engine/extend/plugins_volume.
package plugin

import (
	"context"
	"errors"
	"os"
	"time"

	"gantry/internal/errs"
)

// Implements is what a plugin says that it does if it keeps volumes.
const Implements = "VolumeDriver"

// Caller reaches plugins.
type Caller interface {
	// Offers returns nil if the plugin of that name implements what.
	Offers(ctx context.Context, name, what string) error
	// Offering returns the plugins that implement what, and waits no longer.
	Offering(ctx context.Context, what string, wait time.Duration) []string
	// Call calls a method with the JSON of in, and reads its answer into out.
	Call(ctx context.Context, name, method string, in, out any) error
	// Locate returns what a path that the plugin says is on the host. f, if it is
	// not nil, is what has to be used of it, and the caller's to close.
	Locate(name, path string) (place string, f *os.File, err error)
}

// How long calls may take.
const (
	Look = 10 * time.Second // what only looks
	Work = 2 * time.Minute  // what makes, mounts or removes
	Undo = 15 * time.Second // an unmount: a container that ends waits for it
)

// Driver is one plugin that keeps volumes.
type Driver struct {
	Name   string
	Caller Caller
}

// Place is the directory of a volume that is mounted.
type Place struct {
	Path string // on the host, for people where File is set
	// File is the directory itself (O_PATH) if the plugin could put another one
	// at the path; nil if the path can be trusted. Whoever got it closes it.
	File *os.File
}

// Close lets go of the directory.
func (p Place) Close() error {
	if p.File == nil {
		return nil
	}
	return p.File.Close()
}

// Volume is what a plugin says of one of its volumes.
type Volume struct {
	Name       string
	Mountpoint string         `json:",omitempty"` // directory on the host, while it is mounted
	CreatedAt  string         `json:",omitempty"` // RFC 3339
	Status     map[string]any `json:",omitempty"`
}

type request struct {
	Name string
	ID   string            `json:",omitempty"`
	Opts map[string]string `json:",omitempty"`
}

func (d Driver) call(ctx context.Context, within time.Duration, method string, in request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return d.Caller.Call(ctx, d.Name, Implements+"."+method, in, out)
}

// Create makes a volume; one that is there already is the plugin's to judge.
func (d Driver) Create(ctx context.Context, name string, opts map[string]string) error {
	return d.call(ctx, Work, "Create", request{Name: name, Opts: opts}, nil)
}

// Remove removes a volume and what it holds.
func (d Driver) Remove(ctx context.Context, name string) error {
	return d.call(ctx, Work, "Remove", request{Name: name}, nil)
}

// Mount makes a volume ready for a caller, and returns its directory on the host.
func (d Driver) Mount(ctx context.Context, name, caller string) (Place, error) {
	var out struct{ Mountpoint string }
	if err := d.call(ctx, Work, "Mount", request{Name: name, ID: caller}, &out); err != nil {
		return Place{}, err
	}
	if out.Mountpoint == "" {
		if err := d.call(ctx, Look, "Path", request{Name: name}, &out); err != nil {
			return Place{}, err
		}
	}
	if out.Mountpoint == "" {
		return Place{}, errs.New(errs.Unavailable, "volume driver %s names no directory for volume %s", d.Name, name)
	}
	at, f, err := d.Caller.Locate(d.Name, out.Mountpoint)
	if err != nil {
		return Place{}, errors.Join(err, d.Unmount(ctx, name, caller))
	}
	return Place{at, f}, nil
}

// Unmount says that a caller has done with a volume.
func (d Driver) Unmount(ctx context.Context, name, caller string) error {
	return d.call(ctx, Undo, "Unmount", request{Name: name, ID: caller}, nil)
}

// Get returns one volume.
func (d Driver) Get(ctx context.Context, name string) (Volume, error) {
	var out struct{ Volume *Volume }
	if err := d.call(ctx, Look, "Get", request{Name: name}, &out); err != nil {
		return Volume{}, err
	}
	if out.Volume == nil || out.Volume.Name == "" {
		return Volume{}, errs.New(errs.NotFound, "get %s: no such volume", name)
	}
	d.place(out.Volume)
	return *out.Volume, nil
}

// List returns all volumes of the plugin.
func (d Driver) List(ctx context.Context) ([]Volume, error) {
	var out struct{ Volumes []Volume }
	err := d.call(ctx, Look, "List", request{}, &out)
	for i := range out.Volumes {
		d.place(&out.Volumes[i])
	}
	return out.Volumes, err
}

// place turns the directory of a volume into that of the host; one that is not
// there is not mounted.
func (d Driver) place(v *Volume) {
	if v.Mountpoint == "" {
		return
	}
	at, f, err := d.Caller.Locate(d.Name, v.Mountpoint)
	if err != nil {
		at = ""
	}
	_ = Place{at, f}.Close() // it is shown only
	v.Mountpoint = at
}

// Scope says whether the plugin's volumes are of this machine ("local", also if
// the plugin does not say) or of all that use it ("global").
func (d Driver) Scope(ctx context.Context) string {
	var out struct{ Capabilities struct{ Scope string } }
	if err := d.call(ctx, Look, "Capabilities", request{}, &out); err != nil || out.Capabilities.Scope != "global" {
		return "local"
	}
	return "global"
}
