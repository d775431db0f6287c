package server

import (
	"context"
	"net/http"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// Disk knows what the daemon's data occupies.
type Disk interface {
	// Usage tells of the kinds, of all if none is named.
	Usage(ctx context.Context, kinds ...wire.DiskObject) (wire.DiskUsage, error)
	PruneCache(ctx context.Context, o CachePrune) (wire.CachePruned, error)
	// Budget tells how the disk budget stands.
	Budget() wire.DiskBudget
}

// CachePrune says what of the build cache to remove.
type CachePrune struct {
	All                        bool
	Filters                    filter.Args
	Reserved, MaxUsed, MinFree int64 // bytes
}

// disk answers for /system/df.
type disk struct {
	disk Disk
	pins Pins
}

func (s *disk) routes() []route {
	return []route{
		{method: "GET", pattern: "/system/df", serve: s.usage},
		{method: "POST", pattern: "/build/prune", serve: s.pruneCache},
		// Beyond Docker.
		{method: "GET", pattern: "/gantry/disk", serve: func(w http.ResponseWriter, _ *request) error { return ok(w, s.disk.Budget()) }},
		{method: "POST", pattern: "/gantry/images/{name}/pin", serve: s.pin},
		{method: "DELETE", pattern: "/gantry/images/{name}/pin", serve: s.pin},
	}
}

func (s *disk) pruneCache(w http.ResponseWriter, r *request) error {
	o := CachePrune{All: r.flag("all")}
	for key, to := range map[string]*int64{"reserved-space": &o.Reserved, "keep-storage": &o.Reserved, "max-used-space": &o.MaxUsed, "min-free-space": &o.MinFree} {
		n, given, err := r.number(key)
		if err != nil {
			return errs.New(errs.Invalid, "%s is in bytes and expects an integer, got %s: %w", key, r.query.Get(key), err)
		}
		if given {
			*to = int64(n)
		}
	}
	var err error
	if o.Filters, err = filter.Parse(r.query.Get("filters")); err != nil {
		return err
	}
	out, err := s.disk.PruneCache(act(r), o)
	if err != nil {
		return err
	}
	return ok(w, out)
}

func (s *disk) usage(w http.ResponseWriter, r *request) error {
	var kinds []wire.DiskObject
	if r.v >= 1042 { // before, the key was not known
		for _, t := range r.query["type"] {
			switch k := wire.DiskObject(strings.TrimSpace(t)); k {
			case wire.DiskContainers, wire.DiskImages, wire.DiskVolumes, wire.DiskCache:
				kinds = append(kinds, k)
			default:
				return errs.New(errs.Invalid, "unknown object type: %s", t)
			}
		}
	}
	u, err := s.disk.Usage(r.Context(), kinds...)
	if err != nil {
		return err
	}
	return ok(w, shape.DiskUsage(u, int(r.v), shape.Verbose(r.flag("verbose"))))
}

// pin keeps what the name of an image means from prunes and the disk budget, or
// ends that.
func (s *disk) pin(w http.ResponseWriter, r *request) error {
	do := s.pins.PinName
	if r.Method == http.MethodDelete {
		do = s.pins.UnpinName
	}
	if err := do(act(r), r.name); err != nil {
		return err
	}
	return noContent(w)
}
