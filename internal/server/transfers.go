package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"gantry/internal/wire"
)

// Transfers carries what volumes hold in and out. Beyond Docker.
type Transfers interface {
	// Export writes a tar to what begin returns; before it is called nothing
	// has been written.
	Export(ctx context.Context, name string, begin func() io.Writer) error
	Import(ctx context.Context, name string, r io.Reader) (wire.VolumeCopied, error)
	// Clone tells the bytes of each file that it has copied.
	Clone(ctx context.Context, c wire.VolumeClone, told func(bytes int64)) (wire.VolumeCopied, error)
}

// transfers answers for /gantry/volumes.
type transfers struct{ transfers Transfers }

func (s *transfers) routes() []route {
	return []route{
		{method: "GET", pattern: "/gantry/volumes/{name}/export", serve: s.export},
		{method: "POST", pattern: "/gantry/volumes/{name}/import", serve: s.load},
		{method: "POST", pattern: "/gantry/volumes/{name}/clone", serve: s.clone},
	}
}

func (s *transfers) export(w http.ResponseWriter, r *request) error {
	err := s.transfers.Export(act(r), r.name, func() io.Writer {
		w.Header().Set("Content-Type", "application/x-tar")
		return w
	})
	return cut(w, err)
}

func (s *transfers) load(w http.ResponseWriter, r *request) error {
	got, err := s.transfers.Import(act(r), r.name, r.Body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, got)
}

// progressPause is how often the copying of a volume is told of.
const progressPause = 250 * time.Millisecond

// clone answers with lines of JSON (wire.VolumeProgress) if it takes long.
func (s *transfers) clone(w http.ResponseWriter, r *request) error {
	var c wire.VolumeClone
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	c.From = r.name
	var bytes int64
	began, last := false, time.Now()
	line := func(p wire.VolumeProgress) {
		if !began {
			w.Header().Set("Content-Type", "application/jsonl")
			w.WriteHeader(http.StatusCreated)
			began = true
		}
		_ = encode(w, p) // a client that has gone ends the request
		flush(w)
	}
	got, err := s.transfers.Clone(act(r), c, func(n int64) {
		if bytes += n; time.Since(last) > progressPause {
			last = time.Now()
			line(wire.VolumeProgress{Bytes: bytes})
		}
	})
	switch {
	case err == nil:
		line(wire.VolumeProgress{Bytes: got.Bytes, Done: &got})
	case began:
		line(wire.VolumeProgress{Bytes: bytes, Error: err.Error()})
	default:
		return err
	}
	return nil
}

// guardedTransfers carries only what the policy allows to be used.
type guardedTransfers struct {
	Transfers
	w world
}

// allowed decides about a volume, which may be missing still.
func (g guardedTransfers) allowed(ctx context.Context, operation, name string) error {
	driver, options, _ := g.w.Volume(ctx, name)
	return g.w.policy.Load().Volume(operation, name, driver, options)
}

// Export writes a volume that the policy allows to be used.
func (g guardedTransfers) Export(ctx context.Context, name string, begin func() io.Writer) error {
	if err := g.allowed(ctx, "volume.export", name); err != nil {
		return err
	}
	return g.Transfers.Export(ctx, name, begin)
}

// Import fills a volume that the policy allows to be used.
func (g guardedTransfers) Import(ctx context.Context, name string, r io.Reader) (wire.VolumeCopied, error) {
	if err := g.allowed(ctx, "volume.import", name); err != nil {
		return wire.VolumeCopied{}, err
	}
	return g.Transfers.Import(ctx, name, r)
}

// Clone copies a volume if the policy allows it and its copy to be used.
func (g guardedTransfers) Clone(ctx context.Context, c wire.VolumeClone, told func(int64)) (wire.VolumeCopied, error) {
	names := []string{c.From}
	if c.To != "" {
		names = append(names, c.To)
	}
	for _, name := range names {
		if err := g.allowed(ctx, "volume.clone", name); err != nil {
			return wire.VolumeCopied{}, err
		}
	}
	return g.Transfers.Clone(ctx, c, told)
}
