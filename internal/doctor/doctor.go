// Package doctor finds what exists on the machine and is owned by nothing:
// since every mount, namespace, link, rule, control group, directory and
// process carries the ID of its container, that is a set difference.
//
// The daemon's wiring names the sources and who owns; the API shows and mends
// what is found (`gantry doctor`, `gantry doctor --fix`), and every stateful
// test ends with it. The package removes only through its sources, and must not
// know what a thing is for.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Thing is something on the machine with the name of its owner in it.
type Thing struct {
	Name  string // a path, the name of a link, a process ID
	Owner string // container ID; empty if it can't be told
}

// A Need says which owners keep a thing of a source.
type Need uint8

// The needs.
const (
	// Known things belong to every container there is, such as its directory.
	Known Need = iota
	// Running things belong to containers that run, such as a namespace.
	Running
)

// A Source is one kind of thing.
type Source struct {
	Kind string // "mount", "namespace", "link", "rule", "cgroup", "directory", "process"
	Need Need
	List func(ctx context.Context) ([]Thing, error)
	// Remove removes a thing. Nil if it goes with another one.
	Remove func(ctx context.Context, t Thing) error
}

// Owners returns the containers that there are: ID → whether it runs, or is on
// its way to or from it.
type Owners func(ctx context.Context) (map[string]bool, error)

// A Finding is a thing without an owner.
type Finding struct {
	Kind  string
	Name  string
	Owner string `json:",omitempty"` // the container it was of
	Fixed bool   `json:",omitempty"`
	Error string `json:",omitempty"` // why it could not be removed
}

// A Report is what was found, sorted.
type Report struct {
	Findings []Finding
	// Errors are sources that could not be looked at.
	Errors []string `json:",omitempty"`
}

// A Doctor examines one daemon's things.
type Doctor struct {
	Sources []Source
	Owners  Owners
	// Settle is how long a finding must last: between two looks a container
	// may have come or gone.
	Settle time.Duration
}

type found struct {
	src   *Source
	thing Thing
}

// Examine returns what exists minus what is owned.
func (d *Doctor) Examine(ctx context.Context) (*Report, error) {
	r, _, err := d.examine(ctx)
	return r, err
}

// Mend is Examine, and then removes what was found.
func (d *Doctor) Mend(ctx context.Context) (*Report, error) {
	r, all, err := d.examine(ctx)
	if err != nil {
		return nil, err
	}
	for i, f := range all {
		if f.src.Remove == nil {
			continue
		}
		if err := f.src.Remove(ctx, f.thing); err != nil {
			r.Findings[i].Error = err.Error()
			continue
		}
		r.Findings[i].Fixed = true
	}
	return r, nil
}

func (d *Doctor) examine(ctx context.Context) (*Report, []found, error) {
	first, _, err := d.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(first) > 0 {
		select {
		case <-time.After(d.Settle):
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	again, errs, err := d.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	again = slices.DeleteFunc(again, func(f found) bool {
		return !slices.ContainsFunc(first, func(o found) bool { return o.src == f.src && o.thing == f.thing })
	})
	r := &Report{Findings: make([]Finding, 0, len(again)), Errors: errs}
	for _, f := range again {
		r.Findings = append(r.Findings, Finding{Kind: f.src.Kind, Name: f.thing.Name, Owner: f.thing.Owner})
	}
	return r, again, nil
}

// look lists everything, and only then asks who is there: what a new container
// has made since is not in the lists.
func (d *Doctor) look(ctx context.Context) (all []found, failed []string, err error) {
	for i := range d.Sources {
		src := &d.Sources[i]
		list, err := src.List(ctx)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", src.Kind, err))
			continue
		}
		for _, t := range list {
			all = append(all, found{src, t})
		}
	}
	owners, err := d.Owners(ctx)
	if err != nil {
		return nil, nil, errors.Join(errors.New("the containers can't be listed"), err)
	}
	all = slices.DeleteFunc(all, func(f found) bool {
		up, known := owners[f.thing.Owner]
		return known && (f.src.Need == Known || up)
	})
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.src.Kind, b.src.Kind), cmp.Compare(a.thing.Name, b.thing.Name))
	})
	return all, failed, nil
}
