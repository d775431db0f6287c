package job

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

func TestLife(t *testing.T) {
	j := New(t.Context())
	defer j.Close()
	now := time.Unix(1000, 0)
	j.now = func() time.Time { return now }
	step := make(chan int)
	made, err := j.Start("prune", func(ctx context.Context, tell func(wire.JobProgress)) (any, error) {
		for n := range step {
			tell(wire.JobProgress{Step: n})
		}
		return map[string]int{"n": 7}, nil
	})
	if err != nil || made.State != wire.JobRunning {
		t.Fatal(made, err)
	}
	if _, err := j.Start("prune", nil); !errs.Is(err, errs.Conflict) {
		t.Errorf("a second of the kind: %v", err)
	}
	var seen []wire.Job
	watched := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		watched <- j.Watch(t.Context(), made.ID[:8], func(w wire.Job) error {
			if seen = append(seen, w); len(seen) == 1 {
				close(first)
			}
			return nil
		})
	}()
	<-first
	step <- 1
	step <- 2
	close(step)
	if err := <-watched; err != nil {
		t.Fatal(err)
	}
	last := seen[len(seen)-1]
	if last.State != wire.JobDone || string(last.Report) != `{"n":7}` || last.Progress.Step != 2 || last.Ended == nil {
		t.Errorf("%+v", last)
	}
	if list := j.List(); len(list) != 1 || list[0].Report != nil {
		t.Errorf("%+v", list)
	}
	if again, err := j.Get(made.ID); err != nil || again.Report == nil {
		t.Errorf("read again: %+v %v", again, err)
	}
	now = now.Add(2 * keepRead)
	if list := j.List(); len(list) != 0 {
		t.Errorf("a job that was read stays: %+v", list)
	}
	if _, err := j.Get(made.ID); !errs.Is(err, errs.NotFound) || err.Error() != "No such job: "+made.ID {
		t.Error(err)
	}
}

func TestUnreadReportStays(t *testing.T) {
	j := New(t.Context())
	defer j.Close()
	made, _ := j.Start("a", func(context.Context, func(wire.JobProgress)) (any, error) { return 1, errors.New("bad") })
	<-j.jobs[0].ended
	j.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	if list := j.List(); len(list) != 1 || list[0].State != wire.JobFailed || list[0].Error != "bad" {
		t.Errorf("%+v", list)
	}
	if got, err := j.Get(made.ID); err != nil || string(got.Report) != "1" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestCancel(t *testing.T) {
	j := New(t.Context())
	defer j.Close()
	made, _ := j.Start("a", func(ctx context.Context, _ func(wire.JobProgress)) (any, error) {
		<-ctx.Done()
		return "half", context.Cause(ctx)
	})
	got, err := j.Cancel(t.Context(), made.ID)
	if err != nil || got.State != wire.JobCancelled || string(got.Report) != `"half"` || got.Error != "the job was cancelled" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := j.Cancel(t.Context(), made.ID); err != nil || len(j.List()) != 0 {
		t.Errorf("an ended job is not forgotten: %v %+v", err, j.List())
	}
}

// memory are books that outlive a process.
type memory struct {
	mu   sync.Mutex
	jobs map[string]wire.Job
}

func (m *memory) Begun(j wire.Job) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[j.ID] = j
	return nil
}

func (m *memory) Gone(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, id)
	return nil
}

func (m *memory) Left() ([]wire.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.jobs)), nil
}

// A job that the daemon's end interrupts is known to the next one, one that was
// over is not.
func TestInterrupted(t *testing.T) {
	books := &memory{jobs: map[string]wire.Job{}}
	j, err := Open(t.Context(), books)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Start("quick", func(context.Context, func(wire.JobProgress)) (any, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	failed, err := j.Start("failing", func(context.Context, func(wire.JobProgress)) (any, error) { return nil, errors.New("no") })
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Watch(t.Context(), failed.ID, func(wire.Job) error { return nil }); err != nil {
		t.Fatal(err)
	}
	long, err := j.Start("long", func(ctx context.Context, _ func(wire.JobProgress)) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if j, err = Open(t.Context(), books); err != nil {
		t.Fatal(err)
	}
	list := j.List()
	if len(list) != 1 || list[0].ID != long.ID || list[0].Kind != "long" || list[0].State != wire.JobInterrupted || list[0].Error == "" || list[0].Ended == nil {
		t.Errorf("%+v", list)
	}
	var seen int
	if err := j.Watch(t.Context(), long.ID, func(w wire.Job) error { seen++; return nil }); err != nil || seen != 1 {
		t.Errorf("watched %d times: %v", seen, err)
	}
	if _, err := j.Cancel(t.Context(), long.ID); err != nil || len(j.List()) != 0 || len(books.jobs) != 0 {
		t.Errorf("forgotten: %v %v %v", err, j.List(), books.jobs)
	}
	// Another of its kind may begin beside it.
	if err := books.Begun(long); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(t.Context(), books); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Start("long", func(context.Context, func(wire.JobProgress)) (any, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	now := time.Now()
	if _, err := j.Get(long.ID); err != nil {
		t.Error(err)
	}
	j.mu.Lock()
	j.now = func() time.Time { return now.Add(3 * keepRead) }
	j.mu.Unlock()
	if list := j.List(); len(list) != 1 || list[0].ID == long.ID {
		t.Errorf("read, and there still: %+v", list)
	}
	if left, err := books.Left(); err != nil || slices.ContainsFunc(left, func(w wire.Job) bool { return w.ID == long.ID }) {
		t.Errorf("it is on the books still: %+v %v", left, err)
	}
}
