package disk

import (
	"context"
	"errors"
	"testing"
	"time"

	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

type fake struct{ err error }

func (f fake) containers() []wire.ContainerSummary {
	return []wire.ContainerSummary{{State: "running", SizeRw: 10}, {State: "paused", SizeRw: 5}, {State: "exited", SizeRw: 7}, {State: "created"}}
}

type fakeContainers struct{ fake }

func (f fakeContainers) Usage(context.Context) ([]wire.ContainerSummary, error) {
	return f.containers(), f.err
}

type fakeImages struct{}

func (fakeImages) Usage(context.Context) (wire.ImageDiskUsage, error) {
	return wire.ImageDiskUsage{TotalCount: 2, TotalSize: 9}, nil
}

type fakeVolumes struct{}

func (fakeVolumes) Usage(context.Context) ([]wire.Volume, error) {
	return []wire.Volume{
		{Name: "used", UsageData: &wire.VolumeUsage{RefCount: 2, Size: 100}},
		{Name: "idle", UsageData: &wire.VolumeUsage{Size: 30}},
		{Name: "device", UsageData: &wire.VolumeUsage{RefCount: 1, Size: -1}},
	}, nil
}

func (f fakeContainers) Prune(ctx context.Context, a filter.Args) (wire.ContainersPruned, error) {
	return wire.ContainersPruned{ContainersDeleted: []string{"c"}, SpaceReclaimed: 1}, f.err
}

func (fakeImages) Prune(ctx context.Context, a filter.Args) (wire.ImagesPruned, error) {
	if a.Exact("dangling", "false") && a.Has("dangling") {
		return wire.ImagesPruned{ImagesDeleted: []wire.ImageDeleted{{Deleted: "named"}}, SpaceReclaimed: 20}, nil
	}
	return wire.ImagesPruned{ImagesDeleted: []wire.ImageDeleted{{Deleted: "i"}}, SpaceReclaimed: 10}, nil
}

func (fakeVolumes) Prune(ctx context.Context, a filter.Args) (wire.VolumesPruned, error) {
	if a.Has("all") {
		return wire.VolumesPruned{VolumesDeleted: []string{"named"}, SpaceReclaimed: 1000}, nil
	}
	return wire.VolumesPruned{VolumesDeleted: []string{"v"}, SpaceReclaimed: 100}, nil
}

type fakeNetworks struct{ bus *event.Bus }

func (f fakeNetworks) Prune(ctx context.Context, a filter.Args) (wire.NetworksPruned, error) {
	f.bus.Publish(wire.Event{Type: "network", Action: "destroy", Actor: wire.EventActor{ID: "n", Attributes: map[string]string{"name": "net"}}})
	f.bus.Publish(wire.Event{Type: "container", Action: "destroy"})
	return wire.NetworksPruned{NetworksDeleted: []string{"n"}}, nil
}

func TestPruneJob(t *testing.T) {
	bus := event.New()
	defer bus.Close()
	o := Options{Containers: fakeContainers{}, Images: fakeImages{}, Volumes: fakeVolumes{}, Networks: fakeNetworks{bus}, Events: bus}
	run := func(req wire.PruneRequest) (wire.PruneReport, []wire.JobProgress) {
		t.Helper()
		work, err := New(o).PruneJob(req)
		if err != nil {
			t.Fatal(err)
		}
		var told []wire.JobProgress
		r, err := work(t.Context(), func(p wire.JobProgress) { told = append(told, p) })
		if err != nil {
			t.Fatal(err)
		}
		return r.(wire.PruneReport), told
	}
	r, told := run(wire.PruneRequest{})
	last := told[len(told)-1]
	if len(r.VolumesDeleted) != 0 || len(r.ContainersDeleted) != 1 || r.SpaceReclaimed != 11 || last.Steps != 4 || last.Removed != 1 || last.Last != "net" || last.SpaceReclaimed != 11 {
		t.Errorf("%+v\n%+v", r, told)
	}
	r, _ = run(wire.PruneRequest{Kinds: []string{"volume", "image"}, All: true})
	if r.SpaceReclaimed != 120 || len(r.ContainersDeleted) != 0 {
		t.Errorf("%+v", r)
	}
	if r, _ = run(wire.PruneRequest{Kinds: []string{"volume"}, NamedVolumes: true}); r.SpaceReclaimed != 1000 {
		t.Errorf("%+v", r)
	}
	// Build cache has no labels, so that none of it is chosen by one.
	if _, told = run(wire.PruneRequest{Filters: filter.Args{}.With("label", "x")}); told[0].Steps != 3 {
		t.Errorf("%+v", told)
	}
	for want, req := range map[string]wire.PruneRequest{
		"unknown object type: x": {Kinds: []string{"x"}},
		"invalid filter 'until'": {Kinds: []string{"volume"}, Filters: filter.Args{}.With("until", "1h")},
		"invalid filter 'bogus'": {Filters: filter.Args{}.With("bogus", "1")},
	} {
		if _, err := New(o).PruneJob(req); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	// The report of one that fails says what was done before.
	o.Containers = fakeContainers{fake{errors.New("bad")}}
	work, _ := New(o).PruneJob(wire.PruneRequest{})
	if r, err := work(t.Context(), func(wire.JobProgress) {}); err == nil || len(r.(wire.PruneReport).ContainersDeleted) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

type fakeCache struct{}

func (fakeCache) Usage(context.Context) ([]wire.CacheRecord, error) {
	return []wire.CacheRecord{{Size: 4, InUse: true}, {Size: 8, Shared: true}, {Size: 16}}, nil
}

func (fakeCache) Prune(_ context.Context, o CachePrune) (wire.CachePruned, error) {
	return wire.CachePruned{CachesDeleted: []string{"x"}, SpaceReclaimed: uint64(o.MinFree)}, nil
}

func TestPruneCache(t *testing.T) {
	bus := event.New()
	defer bus.Close()
	d := New(Options{Cache: fakeCache{}, Events: bus})
	r, err := d.PruneCache(t.Context(), CachePrune{MinFree: 7, Filters: filter.Args{}.With("until", "24h")})
	told, _ := bus.Subscribe(time.Unix(1, 0))
	if err != nil || r.SpaceReclaimed != 7 || len(told) != 1 || told[0].Actor.Attributes["reclaimed"] != "7" || told[0].Type != "builder" {
		t.Errorf("%+v %v %+v", r, err, told)
	}
	for key, want := range map[string]string{
		"bogus": "failed to prune build cache: invalid filter 'bogus'",
		"until": `failed to prune build cache: "until" filter expects a duration (e.g., '24h') or a timestamp: failed to parse value as time or duration: invalid seconds "x": invalid syntax`,
	} {
		if _, err := d.PruneCache(t.Context(), CachePrune{Filters: filter.Args{}.With(key, "x")}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestUsage(t *testing.T) {
	d := New(Options{Containers: fakeContainers{}, Images: fakeImages{}, Volumes: fakeVolumes{}, Cache: fakeCache{}})
	u, err := d.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := u.ContainerUsage; c.TotalCount != 4 || c.ActiveCount != 2 || c.TotalSize != 22 || c.Reclaimable != 7 {
		t.Errorf("containers: %+v", c)
	}
	if i := u.ImageUsage; i.TotalCount != 2 || i.TotalSize != 9 {
		t.Errorf("images: %+v", i)
	}
	if v := u.VolumeUsage; v.TotalCount != 3 || v.ActiveCount != 2 || v.TotalSize != 130 || v.Reclaimable != 30 {
		t.Errorf("volumes: %+v", v)
	}
	if b := u.BuildCacheUsage; b.TotalCount != 3 || b.ActiveCount != 1 || b.TotalSize != 28 || b.Reclaimable != 16 {
		t.Errorf("cache: %+v", b)
	}
}

func TestUsageOfSomeKinds(t *testing.T) {
	bad := errors.New("bad")
	d := New(Options{Containers: fakeContainers{fake{bad}}, Images: fakeImages{}, Volumes: fakeVolumes{}})
	u, err := d.Usage(t.Context(), wire.DiskVolumes, wire.DiskVolumes, wire.DiskCache)
	if err != nil || u.ContainerUsage != nil || u.ImageUsage != nil || u.VolumeUsage == nil || u.BuildCacheUsage == nil || u.BuildCacheUsage.Items == nil {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := d.Usage(t.Context()); !errors.Is(err, bad) {
		t.Errorf("a failure is hidden: %v", err)
	}
}
