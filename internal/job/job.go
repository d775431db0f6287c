// Package job runs work in the background for clients that need not stay:
// each job has an id, tells its progress, can be cancelled, and its report is
// kept until somebody has read it.
//
// The disk starts jobs, the API shows them. Jobs live in this process: one that
// the daemon's end interrupts is over, and its work must be such that it can be
// begun anew; the next daemon knows of it by its Books, and says so. The package
// writes nothing else and must not know what a job does.
package job

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// Bounds of what is kept of jobs that have ended.
const (
	keepRead   = time.Minute // for a client that was cut off while reading
	keepUnread = 100         // jobs
)

// Work is what a job does. It ends when ctx does, and tells how far it is. What
// it returns is the report, also together with an error.
type Work func(ctx context.Context, tell func(wire.JobProgress)) (report any, err error)

// Jobs are the jobs of a daemon. It is safe for concurrent use.
type Jobs struct {
	ctx    context.Context
	cancel context.CancelFunc
	now    func() time.Time
	books  Books // nil: none

	mu   sync.Mutex
	jobs []*entry // oldest first
	all  sync.WaitGroup
}

// entry is one job.
type entry struct {
	job    wire.Job
	cancel context.CancelCauseFunc
	read   time.Time     // when the report was; zero if not
	more   chan struct{} // closed and replaced at each change
	ended  chan struct{}
}

var errCancelled = errs.New(errs.Conflict, "the job was cancelled")

// New returns no jobs yet. They end with ctx, or at Close.
func New(ctx context.Context) *Jobs {
	j := &Jobs{now: time.Now}
	j.ctx, j.cancel = context.WithCancel(ctx)
	return j
}

// Books are where it is written which jobs run, for the process after this one.
type Books interface {
	Begun(wire.Job) error
	// Gone strikes a job, which need not be there.
	Gone(id string) error
	// Left are the jobs that were begun and never struck, in any order.
	Left() ([]wire.Job, error)
}

// Open returns the jobs that the end of an earlier process has interrupted, as
// such, and keeps the books from then on. They end with ctx, or at Close.
func Open(ctx context.Context, books Books) (*Jobs, error) {
	left, err := books.Left()
	if err != nil {
		return nil, fmt.Errorf("jobs of an earlier daemon: %w", err)
	}
	j := New(ctx)
	j.books = books
	slices.SortFunc(left, func(a, b wire.Job) int { return a.Started.Compare(b.Started) })
	for _, w := range left {
		found := j.now()
		w.State, w.Ended, w.Error = wire.JobInterrupted, &found, "the daemon ended before the job; it can be begun anew"
		e := &entry{job: w, cancel: func(error) {}, more: make(chan struct{}), ended: make(chan struct{})}
		close(e.ended)
		j.jobs = append(j.jobs, e)
	}
	return j, nil
}

// strike takes a job off the books. One that stays there is said to have been
// interrupted by the next daemon, which is all that can be wrong.
func (j *Jobs) strike(id string) {
	if j.books != nil {
		_ = j.books.Gone(id)
	}
}

// Start begins a job and returns it as it is then. A job of the same kind that
// runs is errs.Conflict.
func (j *Jobs) Start(kind string, work Work) (wire.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ctx.Err() != nil {
		return wire.Job{}, errs.New(errs.Unavailable, "the daemon is ending")
	}
	for _, e := range j.jobs {
		if e.job.Kind == kind && e.job.State == wire.JobRunning {
			return e.job, errs.New(errs.Conflict, "a %s job is already running: %s", kind, id.Short(e.job.ID))
		}
	}
	j.tidy()
	ctx, cancel := context.WithCancelCause(j.ctx)
	e := &entry{
		job:    wire.Job{ID: id.New(), Kind: kind, State: wire.JobRunning, Started: j.now()},
		cancel: cancel, more: make(chan struct{}), ended: make(chan struct{}),
	}
	if j.books != nil {
		if err := j.books.Begun(e.job); err != nil {
			cancel(nil)
			return wire.Job{}, err
		}
	}
	j.jobs = append(j.jobs, e)
	j.all.Add(1)
	go func() {
		defer j.all.Done()
		defer cancel(nil)
		report, err := work(ctx, func(p wire.JobProgress) { j.change(e, func() { e.job.Progress = p }) })
		if err == nil || j.ctx.Err() == nil { // else the daemon's end has interrupted it
			j.strike(e.job.ID)
		}
		j.change(e, func() { e.end(j.now(), report, err, context.Cause(ctx)) })
		close(e.ended)
	}()
	return e.job, nil
}

// end notes how a job has ended.
func (e *entry) end(at time.Time, report any, err, why error) {
	e.job.Ended, e.job.State = &at, wire.JobDone
	if err != nil {
		e.job.State, e.job.Error = wire.JobFailed, err.Error()
		if why != nil {
			e.job.State = wire.JobCancelled
		}
	}
	if data, err := json.Marshal(report); err == nil && report != nil {
		e.job.Report = data
	}
}

// change changes an entry and wakes those who watch it.
func (j *Jobs) change(e *entry, fn func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fn()
	close(e.more)
	e.more = make(chan struct{})
}

// tidy forgets jobs whose report was read, and the oldest unread ones when
// there are too many. The lock is held.
func (j *Jobs) tidy() {
	over := 0
	for _, e := range j.jobs {
		if e.job.State != wire.JobRunning {
			over++
		}
	}
	j.jobs = slices.DeleteFunc(j.jobs, func(e *entry) bool {
		if e.job.State == wire.JobRunning {
			return false
		}
		if over > keepUnread || !e.read.IsZero() && j.now().Sub(e.read) > keepRead {
			over--
			if e.job.State == wire.JobInterrupted {
				j.strike(e.job.ID)
			}
			return true
		}
		return false
	})
}

// List returns all jobs without their reports, the oldest first.
func (j *Jobs) List() []wire.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tidy()
	list := []wire.Job{}
	for _, e := range j.jobs {
		job := e.job
		job.Report = nil
		list = append(list, job)
	}
	return list
}

// find returns the job with an id or the beginning of one. The lock is held.
func (j *Jobs) find(ref string) (*entry, error) {
	var found *entry
	for _, e := range j.jobs {
		if ref == "" || len(e.job.ID) < len(ref) || e.job.ID[:len(ref)] != ref {
			continue
		}
		if found != nil {
			return nil, errs.New(errs.Invalid, "more than one job has an id that begins with %q", ref)
		}
		found = e
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "No such job: %s", ref)
	}
	return found, nil
}

// Get returns a job by its id or the beginning of one. A report is read by it.
func (j *Jobs) Get(ref string) (wire.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, err := j.find(ref)
	if err != nil {
		return wire.Job{}, err
	}
	return j.read(e), nil
}

// read returns the job of an entry. The lock is held.
func (j *Jobs) read(e *entry) wire.Job {
	if e.job.State != wire.JobRunning && e.read.IsZero() {
		e.read = j.now()
	}
	return e.job
}

// Watch hands a job to fn now and after each change, until it has ended, fn
// fails or ctx ends. The last one has the report.
func (j *Jobs) Watch(ctx context.Context, ref string, fn func(wire.Job) error) error {
	j.mu.Lock()
	e, err := j.find(ref)
	j.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		j.mu.Lock()
		job, more := j.read(e), e.more
		j.mu.Unlock()
		if err := fn(job); err != nil || job.State != wire.JobRunning {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Cancel ends a job and returns it when it has ended; one that has ended
// already is forgotten.
func (j *Jobs) Cancel(ctx context.Context, ref string) (wire.Job, error) {
	j.mu.Lock()
	e, err := j.find(ref)
	if err != nil {
		j.mu.Unlock()
		return wire.Job{}, err
	}
	if e.job.State != wire.JobRunning {
		j.jobs = slices.DeleteFunc(j.jobs, func(o *entry) bool { return o == e })
		j.strike(e.job.ID)
	}
	j.mu.Unlock()
	e.cancel(errCancelled)
	select {
	case <-e.ended:
	case <-ctx.Done():
		return wire.Job{}, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.read(e), nil
}

// Close cancels all jobs and waits for their ends.
func (j *Jobs) Close() {
	j.mu.Lock()
	j.cancel()
	j.mu.Unlock()
	j.all.Wait()
}
