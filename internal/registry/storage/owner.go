package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"

	"sync"
	"time"

	"gantry/internal/errs"
)

// ownerKey is where the owner of a backend is noted.
const ownerKey = "owner"

// Owner says who wants to own a backend that several machines can reach.
type Owner struct {
	ID   string // of the server, the same after a restart
	Name string // for people
	// Lease is for how long a server that is not heard of is believed to be
	// there; 0 for half a minute.
	Lease time.Duration
}

// ownerRecord is what is noted. It is replaced every third of a lease.
type ownerRecord struct {
	ID   string `json:"id"`
	Run  string `json:"run"` // of this process
	Name string `json:"name"`
	Seq  int64  `json:"seq"`
	Free bool   `json:"free,omitempty"` // the owner has ended
}

// Owned is a backend that one server owns at a time. Its changes fail with
// errs.Unavailable while it is not sure that the server still is the owner.
type Owned struct {
	Backend
	o    Owner
	rec  ownerRecord
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	until time.Time // changes are allowed before
	lost  error
}

// Own makes a server the owner of a backend. It waits for a lease if another
// server is noted, and is errs.Conflict if that one turns out to be there. A
// server that was killed gets back at once what it owned. lost is called, at most
// once, when another server has taken the backend all the same. Close gives it up.
func Own(ctx context.Context, b Backend, o Owner, lost func(error)) (*Owned, error) {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	var run [16]byte
	_, _ = rand.Read(run[:]) // does not fail
	w := &Owned{Backend: b, o: o, rec: ownerRecord{ID: o.ID, Run: hex.EncodeToString(run[:]), Name: o.Name}}
	if err := w.claim(ctx); err != nil {
		return nil, err
	}
	ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	w.done.Go(func() { w.renew(ctx, lost) })
	return w, nil
}

// read returns who is noted. What can't be read is somebody.
func (w *Owned) read(ctx context.Context) (ownerRecord, error) {
	var r ownerRecord
	data, err := Read(ctx, w.Backend, ownerKey, 64<<10)
	if errs.Is(err, errs.NotFound) {
		return ownerRecord{Free: true}, nil
	}
	if err == nil && json.Unmarshal(data, &r) != nil {
		r = ownerRecord{Name: "somebody"}
	}
	return r, err
}

func (w *Owned) claim(ctx context.Context) error {
	first, err := w.read(ctx)
	if err != nil {
		return err
	}
	mine := first.ID == w.o.ID && w.o.ID != ""
	if !mine && !first.Free {
		if err := w.wait(ctx, first); err != nil {
			return err
		}
	}
	w.rec.Seq = first.Seq
	if err := w.note(ctx); err != nil || mine {
		return err
	}
	// Whoever has claimed it at the same moment has written by now, or before:
	// the last one stays.
	if err := pause(ctx, w.o.Lease/15); err != nil {
		return err
	}
	last, err := w.read(ctx)
	if err == nil && last.Run != w.rec.Run {
		err = taken(last)
	}
	return err
}

func taken(r ownerRecord) error {
	return errs.New(errs.Conflict, "the registry server %s uses this storage: one server at a time may; give each a prefix of its own", r.Name)
}

// wait waits for a lease without a sign of life of an owner.
func (w *Owned) wait(ctx context.Context, first ownerRecord) error {
	for end := time.Now().Add(w.o.Lease); time.Now().Before(end); {
		if err := pause(ctx, w.o.Lease/10); err != nil {
			return err
		}
		now, err := w.read(ctx)
		if err != nil || now.Free {
			return err
		}
		if now != first {
			return taken(now)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note writes that this server owns the backend.
func (w *Owned) note(ctx context.Context) error {
	begin := time.Now()
	w.rec.Seq++
	data, err := json.Marshal(w.rec)
	if err == nil {
		err = w.Backend.Put(ctx, ownerKey, data)
	}
	if err != nil {
		return err
	}
	// Who waits for the end of the lease has read the record after this.
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = begin.Add(w.o.Lease * 5 / 6)
	return nil
}

// renew notes again and again that the server is there.
func (w *Owned) renew(ctx context.Context, lost func(error)) {
	for pause(ctx, w.o.Lease/3) == nil {
		now, err := w.read(ctx)
		if err != nil { // until the lease ends it may be that the storage comes back
			continue
		}
		if now.Run != w.rec.Run {
			w.mu.Lock()
			w.lost = taken(now)
			w.mu.Unlock()
			lost(w.lost)
			return
		}
		// An error here is the next turn's.
		_ = w.note(ctx)
	}
}

// sure is an error unless this server is the owner.
func (w *Owned) sure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost != nil {
		return errs.With(errs.Unavailable, w.lost)
	}
	if time.Now().After(w.until) {
		return errs.New(errs.Unavailable, "the storage does not answer: nobody may change it until it does")
	}
	return nil
}

// Put makes or replaces a small object.
func (w *Owned) Put(ctx context.Context, key string, data []byte) error {
	if err := w.sure(); err != nil {
		return err
	}
	return w.Backend.Put(ctx, key, data)
}

// Take makes an object of a file.
func (w *Owned) Take(ctx context.Context, key, file string) error {
	if err := w.sure(); err != nil {
		return err
	}
	return w.Backend.Take(ctx, key, file)
}

// Delete removes an object.
func (w *Owned) Delete(ctx context.Context, key string) error {
	if err := w.sure(); err != nil {
		return err
	}
	return w.Backend.Delete(ctx, key)
}

// Recover removes what a server that was killed has left half done.
func (w *Owned) Recover(ctx context.Context) error {
	if err := w.sure(); err != nil {
		return err
	}
	return Recover(ctx, w.Backend)
}

// Close gives the backend up, for others to take at once.
func (w *Owned) Close(ctx context.Context) error {
	w.stop()
	w.done.Wait()
	now, err := w.read(ctx)
	if err != nil || now.Run != w.rec.Run {
		return err
	}
	w.rec.Free = true
	err = w.note(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Time{}
	return err
}
