package formatter

import (
	"fmt"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/system"

	"gantry/internal/wire"
)

// UsageContext is a row of system df.
type UsageContext struct {
	kind                             string
	total, active, size, reclaimable int64
	percent                          bool
}

// Usage makes the rows of system df.
func Usage(u *system.DiskUsage) []*UsageContext {
	rows := []*UsageContext{
		{kind: "Images", percent: true}, {kind: "Containers", percent: true}, {kind: "Local Volumes", percent: true}, {kind: "Build Cache"},
	}
	set := func(i int, total, active, size, reclaimable int64) {
		rows[i].total, rows[i].active, rows[i].size, rows[i].reclaimable = total, active, size, reclaimable
	}
	if i := u.ImageUsage; i != nil {
		set(0, i.TotalCount, i.ActiveCount, i.TotalSize, i.Reclaimable)
	}
	if c := u.ContainerUsage; c != nil {
		set(1, c.TotalCount, c.ActiveCount, c.TotalSize, c.Reclaimable)
	}
	if v := u.VolumeUsage; v != nil {
		set(2, v.TotalCount, v.ActiveCount, v.TotalSize, v.Reclaimable)
	}
	if b := u.BuildCacheUsage; b != nil {
		set(3, b.TotalCount, b.ActiveCount, b.TotalSize, b.Reclaimable)
	}
	return rows
}

// UsageTable describes system df.
func UsageTable() Table[*UsageContext] {
	return Table[*UsageContext]{
		Columns: []Column[*UsageContext]{
			{"TYPE", (*UsageContext).Type}, {"TOTAL", (*UsageContext).TotalCount}, {"ACTIVE", (*UsageContext).Active}, {"SIZE", (*UsageContext).Size}, {"RECLAIMABLE", (*UsageContext).Reclaimable},
		},
		Headers: map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
	}
}

// Type of the objects.
func (u *UsageContext) Type() string { return u.kind }

// TotalCount of objects.
func (u *UsageContext) TotalCount() string { return strconv.FormatInt(u.total, 10) }

// Active objects: used by a container, or running.
func (u *UsageContext) Active() string { return strconv.FormatInt(u.active, 10) }

// Size of all of them.
func (u *UsageContext) Size() string { return units.HumanSize(float64(u.size)) }

// Reclaimable is what prune could free.
func (u *UsageContext) Reclaimable() string {
	s := units.HumanSize(float64(u.reclaimable))
	if u.percent && u.size > 0 {
		s += fmt.Sprintf(" (%v%%)", u.reclaimable*100/u.size)
	}
	return s
}

// UsageContainerTable describes the containers of system df -v.
func UsageContainerTable() Table[*ContainerContext] {
	t := ContainerTable(TableOptions{})
	t.Columns = []Column[*ContainerContext]{
		{"CONTAINER ID", (*ContainerContext).ID}, {"IMAGE", (*ContainerContext).Image}, {"COMMAND", (*ContainerContext).Command},
		{"LOCAL VOLUMES", (*ContainerContext).LocalVolumes},
		{"SIZE", func(c *ContainerContext) string { return units.HumanSizeWithPrecision(float64(c.c.SizeRw), 3) }},
		{"CREATED", (*ContainerContext).RunningFor}, {"STATUS", (*ContainerContext).Status}, {"NAMES", (*ContainerContext).Names},
	}
	return t
}

// UsageVolumes makes rows of list.
func UsageVolumes(list []wire.Volume) []*VolumeContext {
	out := make([]*VolumeContext, len(list))
	for i := range list {
		out[i] = &VolumeContext{v: &list[i]}
	}
	return out
}

// UsageVolumeTable describes the volumes of system df -v.
func UsageVolumeTable() Table[*VolumeContext] {
	t := VolumeTable()
	t.Columns = []Column[*VolumeContext]{{"VOLUME NAME", (*VolumeContext).Name}, {"LINKS", (*VolumeContext).Links}, {"SIZE", (*VolumeContext).Size}}
	return t
}

// CacheContext is a row of the build cache.
type CacheContext struct {
	c   *build.CacheRecord
	now time.Time
}

// Caches makes rows of list.
func Caches(list []build.CacheRecord, now time.Time) []*CacheContext {
	out := make([]*CacheContext, len(list))
	for i := range list {
		out[i] = &CacheContext{c: &list[i], now: now}
	}
	return out
}

// CacheTable describes the build cache of system df -v.
func CacheTable() Table[*CacheContext] {
	return Table[*CacheContext]{
		Columns: []Column[*CacheContext]{
			{"CACHE ID", (*CacheContext).ID}, {"CACHE TYPE", (*CacheContext).CacheType}, {"SIZE", (*CacheContext).Size}, {"CREATED", (*CacheContext).CreatedSince},
			{"LAST USED", (*CacheContext).LastUsedSince}, {"USAGE", (*CacheContext).UsageCount}, {"SHARED", (*CacheContext).Shared},
		},
		Headers: map[string]string{"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED"},
	}
}

// ID of the record; a star marks one in use.
func (c *CacheContext) ID() string {
	id := ShortID(c.c.ID)
	if c.c.InUse {
		id += "*"
	}
	return id
}

// CacheType of the record.
func (c *CacheContext) CacheType() string { return c.c.Type }

// Size on disk.
func (c *CacheContext) Size() string { return units.HumanSizeWithPrecision(float64(c.c.Size), 3) }

// CreatedSince is the record's age.
func (c *CacheContext) CreatedSince() string { return ago(c.now, c.c.CreatedAt) }

// LastUsedSince is how long it was not used.
func (c *CacheContext) LastUsedSince() string {
	if c.c.LastUsedAt == nil {
		return ""
	}
	return ago(c.now, *c.c.LastUsedAt)
}

// UsageCount counts its uses.
func (c *CacheContext) UsageCount() string { return strconv.Itoa(c.c.UsageCount) }

// Shared says whether images share it.
func (c *CacheContext) Shared() string { return strconv.FormatBool(c.c.Shared) }
