package disk

import (
	"context"
	"errors"
	"testing"

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

type fakeCache struct{}

func (fakeCache) Usage(context.Context) ([]wire.CacheRecord, error) {
	return []wire.CacheRecord{{Size: 4, InUse: true}, {Size: 8, Shared: true}, {Size: 16}}, nil
}

func (fakeCache) Prune(_ context.Context, o CachePrune) (wire.CachePruned, error) {
	return wire.CachePruned{CachesDeleted: []string{"x"}, SpaceReclaimed: uint64(o.MinFree)}, nil
}

type fakeEvents struct{ list []wire.Event }

func (f *fakeEvents) Publish(e wire.Event) { f.list = append(f.list, e) }

func TestPruneCache(t *testing.T) {
	told := &fakeEvents{}
	d := New(Options{Cache: fakeCache{}, Events: told})
	r, err := d.PruneCache(t.Context(), CachePrune{MinFree: 7, Filters: filter.Args{}.With("until", "24h")})
	if err != nil || r.SpaceReclaimed != 7 || len(told.list) != 1 || told.list[0].Actor.Attributes["reclaimed"] != "7" || told.list[0].Type != "builder" {
		t.Errorf("%+v %v %+v", r, err, told.list)
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
