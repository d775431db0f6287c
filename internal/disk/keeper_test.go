package disk

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/image"
	"gantry/internal/job"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// stored are images of 100 bytes each.
type stored struct {
	mu   sync.Mutex
	list []image.Holding
	gone []string
	busy string // an image that is used by the time it shall go
}

func (s *stored) Holdings(context.Context) ([]image.Holding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list), nil
}

func (s *stored) Occupied(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(100 * len(s.list)), nil
}

func (s *stored) Evict(_ context.Context, id string) ([]wire.ImageDeleted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == s.busy {
		for i := range s.list {
			s.list[i].Used = s.list[i].Used || s.list[i].ID == id
		}
		return nil, errs.New(errs.Conflict, "in use")
	}
	s.list = slices.DeleteFunc(s.list, func(h image.Holding) bool { return h.ID == id })
	s.gone = append(s.gone, id)
	return nil, nil
}

func (s *stored) Settle(context.Context) error { return nil }

func (s *stored) removed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gone)
}

func TestKeeper(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	bus := event.New()
	defer bus.Close()
	jobs := job.New(t.Context())
	defer jobs.Close()
	s := &stored{busy: "b"}
	for i, id := range []string{"a", "b", "c", "d", "e"} {
		s.list = append(s.list, image.Holding{ID: id, Pieces: map[string]int64{id: 100}, Added: time.Unix(int64(i), 0)})
	}
	o := KeeperOptions{
		Store: db, Jobs: jobs, Images: s, Logs: func(context.Context) int64 { return 7 }, Log: slog.New(slog.DiscardHandler),
		Budget: func() (Budget, error) { return Budget{High: 400, Low: 310}, nil },
	}
	d := New(Options{Events: bus})
	k, err := d.Keep(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	k.Touch("a") // so that b and c, then d, are the oldest
	for end := time.Now().Add(10 * time.Second); len(s.removed()) < 2 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if past, _ := bus.Subscribe(time.Unix(1, 0)); len(past) == 1 {
			bus.Publish(wire.Event{Type: "image", Action: "load"}) // b was used: it has to look again
		}
	}
	if got := s.removed(); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("removed %q", got)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := openUses(db)
	if err != nil || u.of("a").IsZero() || !u.of("b").IsZero() {
		t.Errorf("%+v %v", u.at, err)
	}
	if err := u.save(func(id string) bool { return id != "a" }); err != nil {
		t.Fatal(err)
	}
}

// A budget that can't be measured is no reason to remove anything.
func TestKeeperWithoutBudget(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	bus := event.New()
	defer bus.Close()
	jobs := job.New(t.Context())
	defer jobs.Close()
	for _, budget := range []func() (Budget, error){
		func() (Budget, error) { return Budget{}, nil },
		func() (Budget, error) { return Budget{}, errors.New("no disk") },
	} {
		s := &stored{list: []image.Holding{{ID: "a"}, {ID: "b"}}}
		k, err := New(Options{Events: bus}).Keep(t.Context(), KeeperOptions{
			Store: db, Jobs: jobs, Images: s, Logs: func(context.Context) int64 { return 1 << 40 }, Log: slog.New(slog.DiscardHandler), Budget: budget,
		})
		if err != nil {
			t.Fatal(err)
		}
		k.look(t.Context())
		if len(s.removed()) != 0 || k.State() != (wire.DiskBudget{}) {
			t.Errorf("%q %+v", s.removed(), k.State())
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
