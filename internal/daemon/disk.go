package daemon

import (
	"context"

	"gantry/internal/content"
	"gantry/internal/disk"
	"gantry/internal/doctor"
	"gantry/internal/server"
	"gantry/internal/wire"
)

// layerSource are directories of image layers that the image stores do not have
// in their books.
func layerSource(s *content.Store) doctor.Source {
	return doctor.Source{Kind: "layer", List: func(ctx context.Context) ([]doctor.Thing, error) {
		strays, err := s.Strays(ctx)
		var list []doctor.Thing
		for _, dir := range strays {
			list = append(list, doctor.Thing{Name: dir, Owner: "?"})
		}
		return list, err
	}, Remove: func(ctx context.Context, _ doctor.Thing) error { return s.Sweep(ctx) }}
}

// diskAPI is the disk as the API wants it.
type diskAPI struct{ *disk.Disk }

// PruneCache removes build cache.
func (d diskAPI) PruneCache(ctx context.Context, o server.CachePrune) (wire.CachePruned, error) {
	return d.Disk.PruneCache(ctx, disk.CachePrune(o))
}
