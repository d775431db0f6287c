package server

import (
	"context"
	"net/http"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// Disk knows what the daemon's data occupies.
type Disk interface {
	// Usage tells of the kinds, of all if none is named.
	Usage(ctx context.Context, kinds ...wire.DiskObject) (wire.DiskUsage, error)
}

// disk answers for /system/df.
type disk struct{ disk Disk }

func (s *disk) routes() []route {
	return []route{{method: "GET", pattern: "/system/df", serve: s.usage}}
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
