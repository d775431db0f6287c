package disk

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/image"
	"gantry/internal/job"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// When a keeper looks.
const (
	lookEvery = 30 * time.Second
	saveEvery = time.Minute
	settle    = 100 * time.Millisecond // after an image has come
)

// Stored is what a keeper needs of the images.
type Stored interface {
	Holdings(ctx context.Context) ([]image.Holding, error)
	Occupied(ctx context.Context) (int64, error) // bytes
	// Evict removes an image that nothing keeps; errs.Conflict else.
	Evict(ctx context.Context, imageID string) ([]wire.ImageDeleted, error)
	// Settle returns when the files of what was removed are deleted.
	Settle(ctx context.Context) error
}

// KeeperOptions is what a Keeper works with.
type KeeperOptions struct {
	Store  *store.DB
	Jobs   *job.Jobs
	Images Stored
	// Budget is asked at each look, so that a reloaded configuration holds.
	Budget func() (Budget, error)
	// Logs returns the bytes of all containers' logs.
	Logs func(ctx context.Context) int64
	Log  *slog.Logger
}

// A Keeper keeps the disk budget: it looks now and then, and when images come,
// and starts a job that makes room. Make one with Keep.
type Keeper struct {
	o    KeeperOptions
	disk *Disk
	uses *uses

	cancel context.CancelFunc
	all    sync.WaitGroup

	room  sync.Mutex   // of those who want some: one at a time
	made  atomic.Int64 // how often room was made
	mu    sync.Mutex
	state wire.DiskBudget
}

// Keep begins to keep the budget of d. It ends with ctx, or at Close.
func (d *Disk) Keep(ctx context.Context, o KeeperOptions) (*Keeper, error) {
	u, err := openUses(o.Store)
	if err != nil {
		return nil, fmt.Errorf("disk budget: %w", err)
	}
	k := &Keeper{o: o, disk: d, uses: u}
	ctx, k.cancel = context.WithCancel(ctx)
	_, sub := d.o.Events.Subscribe(time.Time{})
	k.all.Go(func() { k.run(ctx, sub.C) })
	k.all.Go(func() { <-ctx.Done(); sub.Close() })
	return k, nil
}

// Close ends the keeper and writes when images were used.
func (k *Keeper) Close() error {
	k.cancel()
	k.all.Wait()
	return k.uses.save(func(string) bool { return true })
}

// Touch notes that an image is being used.
func (k *Keeper) Touch(imageID string) { k.uses.touch(imageID, time.Now()) }

// State returns what was found at the last look, for people.
func (k *Keeper) State() wire.DiskBudget {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// run looks when it is time to.
func (k *Keeper) run(ctx context.Context, events <-chan wire.Event) {
	look, save := time.NewTimer(settle), time.NewTicker(saveEvery)
	defer look.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				events = nil // cut off: the timer goes on
			} else if comes(e) {
				look.Reset(settle)
			}
		case <-look.C:
			k.look(ctx)
			look.Reset(lookEvery)
		case <-save.C:
			k.save(ctx)
		}
	}
}

// comes reports whether an event says that something came that takes space, or
// that something may go that could not.
func comes(e wire.Event) bool {
	switch e.Type {
	case "image":
		return e.Action == "load" || e.Action == "pull" || e.Action == "import" || e.Action == "create"
	case "container":
		return e.Action == "destroy"
	}
	return e.Type == "daemon" && e.Action == "reload"
}

func (k *Keeper) save(ctx context.Context) {
	list, err := k.o.Images.Holdings(ctx)
	if err == nil {
		exist := map[string]bool{}
		for _, h := range list {
			exist[h.ID] = true
			if h.Used {
				k.Touch(h.ID)
			}
		}
		err = k.uses.save(func(id string) bool { return exist[id] })
	}
	if err != nil && ctx.Err() == nil {
		k.o.Log.Warn("when images were used is not written", "err", err)
	}
}

// look measures, and starts a job if there is too much that can go.
func (k *Keeper) look(ctx context.Context) {
	b, err := k.o.Budget()
	if err == nil && b.High <= 0 {
		k.note(wire.DiskBudget{})
		return
	}
	var s wire.DiskBudget
	var list []candidate
	if err == nil {
		s, list, err = k.measure(ctx, b)
	}
	if err != nil {
		if ctx.Err() == nil {
			k.o.Log.Warn("the disk budget can't be kept", "err", err)
		}
		return
	}
	remove, _ := planRemovals(s.Used, b, list)
	s.Over = s.Used > b.High
	if s.Over && len(remove) == 0 {
		s.Why = "all of it is in use, pinned or just used"
	}
	k.note(s)
	if len(remove) == 0 {
		return
	}
	if _, err := k.o.Jobs.Start("budget", k.work); err != nil && !errs.Is(err, errs.Conflict) && ctx.Err() == nil {
		k.o.Log.Warn("the disk budget can't be kept", "err", err)
	}
}

func (k *Keeper) note(s wire.DiskBudget) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
}

// measure returns what is occupied and what could go.
func (k *Keeper) measure(ctx context.Context, b Budget) (wire.DiskBudget, []candidate, error) {
	s := wire.DiskBudget{High: b.High, Low: b.Low, Logs: k.o.Logs(ctx)}
	holdings, err := k.o.Images.Holdings(ctx)
	if err != nil {
		return s, nil, err
	}
	if s.Images, err = k.o.Images.Occupied(ctx); err != nil {
		return s, nil, err
	}
	var list []candidate
	for _, h := range holdings {
		c := candidate{kind: kindImage, id: h.ID, name: strings.Join(h.Names, ", "), pieces: h.Pieces, used: k.uses.of(h.ID)}
		if h.Added.After(c.used) {
			c.used = h.Added
		}
		switch {
		case h.Used:
			c.keep = "in use"
		case h.Pinned:
			c.keep = "pinned"
		}
		list = append(list, c)
	}
	if k.disk.o.Cache != nil {
		records, err := k.disk.o.Cache.Usage(ctx)
		if err != nil {
			return s, nil, err
		}
		for _, r := range records {
			list = append(list, cacheCandidate(r))
			if r.Shared {
				continue // counted with the images that have it
			}
			s.Cache += r.Size
			switch r.Type {
			case "regular", "internal", "frontend":
				s.Images -= r.Size // it is among the layers that were added up
			}
		}
	}
	s.Used = s.Images + s.Cache + s.Logs
	return s, list, nil
}

func cacheCandidate(r wire.CacheRecord) candidate {
	c := candidate{
		kind: kindCache, id: r.ID, name: r.Description, pieces: map[string]int64{"cache " + r.ID: r.Size}, used: r.CreatedAt,
		parents: r.Parents, layer: r.Type == "regular",
	}
	if r.LastUsedAt != nil {
		c.used = *r.LastUsedAt
	}
	if r.InUse || r.Shared {
		c.keep = "in use"
	}
	return c
}

// work makes room. Its report is a wire.BudgetReport.
func (k *Keeper) work(ctx context.Context, tell func(wire.JobProgress)) (any, error) {
	var r wire.BudgetReport
	b, err := k.o.Budget()
	if err != nil {
		return r, err
	}
	return k.reach(ctx, b, tell)
}

// MakeRoom removes what was used least recently, down to the low mark and by a
// tenth at least: the disk is full, whatever the budget allows. It reports whether
// something was removed since it was called, be it for another who asked at the
// same time; without a budget nothing is.
func (k *Keeper) MakeRoom(ctx context.Context) bool {
	made := k.made.Load()
	k.room.Lock()
	defer k.room.Unlock()
	if k.made.Load() != made {
		return true
	}
	b, err := k.o.Budget()
	if err != nil || b.High <= 0 {
		return false
	}
	s, _, err := k.measure(ctx, b)
	if err != nil {
		return false
	}
	b.High = min(b.High, s.Used-1)
	b.Low = min(b.Low, s.Used/10*9)
	r, err := k.reach(ctx, b, func(wire.JobProgress) {})
	if err != nil {
		k.o.Log.Warn("the disk is full, and no room can be made", "err", err)
	}
	if len(r.Removed) == 0 {
		return false
	}
	k.made.Add(1)
	return true
}

// reach keeps a budget.
func (k *Keeper) reach(ctx context.Context, b Budget, tell func(wire.JobProgress)) (r wire.BudgetReport, _ error) {
	s, list, err := k.measure(ctx, b)
	if err != nil {
		return r, err
	}
	r.Before, r.After = s.Used, s.Used
	remove, _ := planRemovals(s.Used, b, list)
	p := wire.JobProgress{Steps: len(remove)}
	for _, c := range remove {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		p.Step, p.Doing = p.Step+1, c.kind
		tell(p)
		done, err := k.evict(ctx, c)
		if err != nil {
			return r, err
		}
		if done {
			p.Removed, p.Last = p.Removed+1, c.name
			r.Removed = append(r.Removed, wire.BudgetRemoval{Kind: c.kind, ID: c.id, Name: c.name, LastUsed: c.used})
		}
	}
	if err := k.o.Images.Settle(ctx); err != nil {
		return r, err
	}
	if s, _, err = k.measure(ctx, b); err != nil {
		return r, err
	}
	r.After = s.Used
	p.SpaceReclaimed = uint64(max(r.Before-r.After, 0))
	tell(p)
	s.Over = s.Used > b.High
	k.note(s)
	k.disk.o.Events.Publish(wire.Event{Type: "image", Action: "prune", Actor: wire.EventActor{Attributes: map[string]string{
		"reason": "disk budget", "reclaimed": strconv.FormatUint(p.SpaceReclaimed, 10),
	}}})
	k.o.Log.Info("disk budget kept", "removed", len(r.Removed), "before", units.HumanSize(float64(r.Before)), "after", units.HumanSize(float64(r.After)))
	return r, nil
}

// evict removes one thing. False is one that is of use again.
func (k *Keeper) evict(ctx context.Context, c candidate) (bool, error) {
	var err error
	switch c.kind {
	case kindImage:
		_, err = k.o.Images.Evict(ctx, c.id)
	default:
		var gone wire.CachePruned
		gone, err = k.disk.o.Cache.Prune(ctx, CachePrune{All: true, Filters: filter.Args{}.With("id", c.id)})
		if err == nil && len(gone.CachesDeleted) == 0 {
			return false, nil // a build uses it now
		}
	}
	if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil, err
}
