package job

import (
	"context"
	"errors"
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
