package container

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"syscall"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/shim"
)

// signalWait bounds how long the shim may take to pass a signal on.
const signalWait = 10 * time.Second

// freezeWait bounds how long a container's processes may take to freeze.
const freezeWait = 10 * time.Second

// do executes one effect of a transition that letter l brought about.
func (a *actor) do(e Effect, l letter) {
	switch e.Do {
	case Launch, Patiently:
		a.now.lost.Unwritten = 0 // a new shim counts anew
		a.launch(e.Do)
	case Hurry:
		if a.hurry != nil {
			a.hurry()
		}
	case CancelLaunch:
		if a.cancel != nil {
			a.cancel()
		}
	case Watch:
		a.watch(a.running)
	case Signal:
		a.signal(e.Signal)
	case StopTimer:
		a.stop = postAfter(a, a.stop, e.After, StopExpired)
	case RestartTimer:
		a.again = postAfter(a, a.again, e.After, RestartDue)
	case CancelTimers:
		for _, t := range []*time.Timer{a.stop, a.again} {
			if t != nil {
				t.Stop()
			}
		}
		a.stop, a.again = nil, nil
	case Freeze, Thaw, ThawQuietly:
		a.freezer(e.Do, l)
	case Teardown:
		a.teardown()
	case Remove:
		a.remove()
	case Persist:
		a.persist()
	case Save:
		a.save()
	case Event:
		a.announce(e.Action)
	case BeginHealth:
		a.beginHealth()
	case EndHealth:
		a.endHealth()
	case NotifyExit:
		a.exit.exited(a.now.state.ExitCode)
	case NotifyRemoved:
		a.core.table.forget(a)
		a.exit.removed(a.now.state.ExitCode)
	default:
		a.answer(e, l)
	}
}

// answer executes the effects that are about those who asked.
func (a *actor) answer(e Effect, l letter) {
	switch e.Do {
	case Reply:
		l.answer(a.verdict(e, l))
	case Wait:
		if l.reply != nil {
			a.lots[e.Lot] = append(a.lots[e.Lot], l)
		}
	case Release:
		if e.Lot == UntilUp && (e.Text != "" || e.Refusal != NoRefusal) {
			a.late.fail()
		}
		for _, w := range a.lots[e.Lot] {
			w.answer(a.verdict(e, l))
		}
		a.lots[e.Lot] = nil
	case Defer:
		a.deferred = append(a.deferred, l)
	}
}

func (l letter) answer(err error) {
	if l.reply != nil {
		l.reply <- err
	}
}

// verdict is what an answer says: the error of the fact that came, of the last
// effect, of the refusal, or nothing.
func (a *actor) verdict(e Effect, l letter) error {
	switch {
	case e.Refusal != NoRefusal:
		return refuse(e.Refusal, a.view())
	case e.Text != "" && l.err != nil:
		return l.err
	case e.Text != "":
		return errors.New(e.Text)
	}
	return a.failed
}

// launch begins a start in a child; Patiently, after those that it is to come
// after.
func (a *actor) launch(how EffectKind) {
	ctx, cancel := context.WithCancel(a.core.ctx)
	a.cancel = cancel
	waits, hurry := context.WithCancel(ctx)
	a.hurry = hurry
	rec, from := a.now.rec, a.from
	a.from = nil
	a.core.tasks.Go(func() {
		defer cancel()
		if how == Patiently {
			order{a.core}.awaitOthers(waits, rec)
		}
		hurry()
		r, err := a.core.start(ctx, a, rec, from)
		at := time.Now()
		if err != nil {
			a.post(letter{fact: Fact{Kind: LaunchFailed, At: at, Code: startCode(err), Text: err.Error()}, err: err})
			return
		}
		a.post(letter{fact: Fact{Kind: Launched, At: at}, running: r})
		if r.Sandbox != nil {
			links{a.core}.follow(rec, r.Sandbox)
		}
	})
}

// startCode is the exit code that a failed start leaves, as Docker's.
func startCode(err error) int {
	var s *shim.StartError
	if errors.As(err, &s) && s.ExitCode != 0 {
		return s.ExitCode
	}
	return 128
}

// watch tells the actor of the end of its process, and of what happens until then.
func (a *actor) watch(r *launch.Running) {
	ctx := a.core.ctx
	shipping{a.core}.begin(a)
	a.core.tasks.Go(func() {
		for fact := range facts(ctx, r.Client) {
			if fact == "oom" {
				a.post(letter{run: func() { a.announce("oom") }})
			} else {
				a.post(letter{run: func() { logFact(a, fact) }})
			}
		}
	})
	a.core.tasks.Go(func() {
		exit, err := r.Client.Wait(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// Neither the process nor a record of its end: it is lost.
			exit = shim.Exit{Code: 128 + int(syscall.SIGKILL), At: time.Now()}
		}
		a.post(letter{fact: Fact{Kind: HasExited, At: exit.At, Code: exit.Code, OOM: exit.OOMKilled}})
	})
}

// facts yields what a shim reports until its connection or ctx ends.
func facts(ctx context.Context, c shim.Client) func(func(string) bool) {
	return func(yield func(string) bool) {
		ch := c.Facts()
		for {
			select {
			case f, ok := <-ch:
				if !ok || !yield(f) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (a *actor) signal(sig int) {
	if a.running == nil {
		return
	}
	ctx, cancel := context.WithTimeout(a.core.ctx, signalWait)
	defer cancel()
	err := a.running.Client.Signal(ctx, sig)
	if err == nil {
		a.announce("kill", "signal", strconv.Itoa(sig))
		return
	}
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Unavailable) {
		err = refuse(NotRunning, a.view())
	}
	a.failed = err
}

// postAfter arms a timer that posts a fact, in place of old.
func postAfter(a *actor, old *time.Timer, d time.Duration, kind FactKind) *time.Timer {
	if old != nil {
		old.Stop()
	}
	return time.AfterFunc(d, func() { a.post(letter{fact: Fact{Kind: kind, At: time.Now()}}) })
}

func (a *actor) freezer(what EffectKind, l letter) {
	ctx, cancel := context.WithTimeout(a.core.ctx, freezeWait)
	defer cancel()
	group := a.core.o.Launcher.Cgroup(a.id, a.now.rec.Plan)
	next := Fact{Kind: Froze, At: time.Now()}
	var err error
	if what == Freeze {
		err = group.Freeze(ctx)
	} else {
		err = group.Thaw(ctx)
		next.Kind = Thawed
	}
	if what == ThawQuietly {
		return
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		err = refuse(NotRunning, a.view()) // it has ended, and nobody has said so yet
	}
	if err != nil {
		next.Text = err.Error()
	}
	// Before all that waits: it was decided on the state that this follows from.
	a.follow = slices.Insert(a.follow, 0, letter{fact: next, reply: l.reply, err: err})
}

// teardown undoes in a child what the container used.
func (a *actor) teardown() {
	r := a.running
	a.running = nil
	a.late.end()
	shipping{a.core}.ended(a.now.rec)
	a.files.ended(errs.New(errs.Conflict, "container %s has stopped while files were copied into it", a.id))
	a.core.tasks.Go(func() {
		ctx := context.WithoutCancel(a.core.ctx)
		if r != nil {
			// A shim that does not answer is ended by Teardown.
			_ = r.Client.Shutdown(ctx)
			_ = r.Client.Close()
		}
		err := a.core.o.Launcher.Teardown(ctx, a.id)
		if err != nil {
			a.core.log.Warn("container has left something behind", "id", a.id, "error", err)
		}
		a.core.execs.ended(a.id)
		a.post(letter{fact: Fact{Kind: TornDown, At: time.Now()}, err: err})
	})
}

// remove removes the container in a child.
func (a *actor) remove() {
	rec, volumes := a.now.rec, a.now.state.GoneVolumes
	a.files.ended(errs.New(errs.Conflict, "container %s is being removed", a.id))
	a.core.tasks.Go(func() {
		wait, cancel := context.WithTimeout(a.core.ctx, writerWait)
		if unlock, err := a.files.claim(wait); err == nil {
			defer unlock()
		}
		cancel()
		err := a.core.removeAll(context.WithoutCancel(a.core.ctx), rec, volumes)
		if err != nil {
			err = errs.New(errs.KindOf(err), "cannot remove container %q: %w", rec.Name, err)
			a.post(letter{fact: Fact{Kind: RemoveFailed, At: time.Now(), Text: err.Error()}, err: err})
			return
		}
		a.core.execs.removed(a.id)
		a.post(letter{fact: Fact{Kind: RemoveDone, At: time.Now()}})
	})
}

// persist writes durably that the user wants the container down, or no more.
func (a *actor) persist() {
	rec := *a.now.rec
	rec.StopAsked = a.now.state.StopAsked
	if err := a.core.putRecord(&rec); err != nil {
		a.core.log.Error("can't store a decision", "id", a.id, "error", err)
		return
	}
	a.now.rec = &rec
	a.publish()
}
