package container

import (
	"syscall"

	"gantry/internal/plan"
)

// Next is the only transition function of a container: from the state it is in
// and what happened to the state it is in then and what is to be done, in
// order. It is pure. A fact that means nothing in a phase changes nothing.
func Next(s State, f Fact, p Policy) (State, []Effect) {
	switch f.Kind {
	case AskStart:
		return nextStart(s, f)
	case AskStop:
		return nextStop(s, f)
	case AskRestart:
		return nextRestart(s, f)
	case AskKill:
		return nextKill(s, f, p)
	case AskPause, AskUnpause, Froze, Thawed:
		return nextFreezer(s, f)
	case AskRemove:
		return nextRemove(s, f)
	case Launched, Adopted:
		return nextLaunched(s, f)
	case LaunchFailed:
		return nextLaunchFailed(s, f, p)
	case StopExpired:
		if s.Phase == Stopping {
			return kill(s)
		}
	case HasExited:
		return nextExited(s, f)
	case TornDown:
		if s.Phase == Ending {
			return nextDown(s, p)
		}
	case RestartDue:
		if s.Phase == Restarting {
			s.Phase, s.Restarts = Starting, s.Restarts+1
			return s, []Effect{{Do: Patiently}}
		}
	case IsUnhealthy:
		return nextUnhealthy(s, p)
	case RemoveDone:
		if s.Phase == Removing {
			s.Phase = Removed
			return s, []Effect{{Do: Event, Action: "destroy"}, {Do: NotifyRemoved}, {Do: Release, Lot: UntilGone},
				{Do: Release, Lot: UntilDown}, {Do: Release, Lot: UntilUp, Refusal: MarkedRemoval}}
		}
	case RemoveFailed:
		if s.Phase == Removing {
			s.Phase, s.Gone = Dead, false
			return s, []Effect{{Do: Release, Lot: UntilGone, Text: f.Text}}
		}
	}
	return s, nil
}

func refused(r Refusal) []Effect { return []Effect{{Do: Reply, Refusal: r}} }

func nextStart(s State, f Fact) (State, []Effect) {
	switch s.Phase {
	case Created, Exited:
		s, effects := begin(s, Effect{Do: Wait, Lot: UntilUp})
		if f.Boot {
			effects[len(effects)-1].Do = Patiently
		}
		return s, effects
	case Starting:
		return s, []Effect{{Do: Hurry}, {Do: Defer}}
	case Ending:
		return s, []Effect{{Do: Defer}}
	case Paused:
		return s, refused(IsPaused)
	case Removing, Dead:
		return s, refused(MarkedRemoval)
	case Removed:
		return s, refused(GoneAlready)
	}
	return s, refused(IsRunning)
}

// begin is the user's start of one that is down.
func begin(s State, first Effect) (State, []Effect) {
	effects := []Effect{first}
	if s.StopAsked {
		s.StopAsked = false
		effects = append(effects, Effect{Do: Persist})
	}
	s.Phase, s.Restarts, s.Pause, s.Halted = Starting, 0, 0, false
	return s, append(effects, Effect{Do: Launch})
}

func nextStop(s State, f Fact) (State, []Effect) {
	switch s.Phase {
	case Starting:
		s, effects := stopping(s, f)
		return s, append(effects, Effect{Do: CancelLaunch}, Effect{Do: Wait, Lot: UntilDown})
	case Running, Paused, Stopping:
		s, effects := stopping(s, f)
		s.Again = false
		s, more := tell(s, f)
		return s, append(append(effects, more...), Effect{Do: Wait, Lot: UntilDown})
	case Ending:
		s, effects := stopping(s, f)
		s.Again = false
		return s, append(effects, Effect{Do: Wait, Lot: UntilDown})
	case Restarting:
		s, effects := stopping(s, f)
		s.Phase = Exited
		return s, append(effects, Effect{Do: CancelTimers}, Effect{Do: Event, Action: "stop"}, Effect{Do: Save}, Effect{Do: Reply})
	case Removed:
		return s, refused(GoneAlready)
	}
	return s, refused(NotRunning)
}

// stopping notes who wants the container down.
func stopping(s State, f Fact) (State, []Effect) {
	if f.Boot {
		s.Halted = true
		return s, nil
	}
	return askDown(s)
}

// askDown notes that the user wants the container down.
func askDown(s State) (State, []Effect) {
	if s.StopAsked {
		return s, nil
	}
	s.StopAsked = true
	return s, []Effect{{Do: Persist}}
}

// tell sends the stop signal and sets the time after which it is killed.
func tell(s State, f Fact) (State, []Effect) {
	s.Phase, s.Told = Stopping, true
	effects := []Effect{{Do: Signal, Signal: f.Signal}}
	if f.Signal == int(syscall.SIGKILL) && s.Frozen {
		s.Frozen = false
		effects = append(effects, Effect{Do: ThawQuietly})
	}
	if f.Timeout >= 0 {
		effects = append(effects, Effect{Do: StopTimer, After: f.Timeout})
	}
	return s, effects
}

// kill ends what runs at once, frozen or not.
func kill(s State) (State, []Effect) {
	s.Dying = true
	effects := []Effect{{Do: Signal, Signal: int(syscall.SIGKILL)}}
	if s.Frozen {
		s.Frozen = false
		effects = append(effects, Effect{Do: ThawQuietly})
	}
	return s, effects
}

func nextRestart(s State, f Fact) (State, []Effect) {
	switch s.Phase {
	case Created, Exited:
		s.Again = true // so that the event "restart" follows "start"
		return begin(s, Effect{Do: Wait, Lot: UntilUp})
	case Starting, Ending:
		return s, []Effect{{Do: Defer}}
	case Running, Paused, Stopping:
		s.Again = true
		s, effects := tell(s, f)
		return s, append(effects, Effect{Do: Wait, Lot: UntilUp})
	case Restarting:
		s.Again = true
		s, effects := begin(s, Effect{Do: Wait, Lot: UntilUp})
		return s, append([]Effect{{Do: CancelTimers}}, effects...)
	case Removed:
		return s, refused(GoneAlready)
	}
	return s, refused(MarkedRemoval)
}

// nextUnhealthy asks a container to end that its policy starts again when it does
// not work.
func nextUnhealthy(s State, p Policy) (State, []Effect) {
	if s.Phase != Running || p.Restart != plan.OnUnhealthy || s.StopAsked || !p.mayRestart(s) {
		return s, nil
	}
	s.Phase, s.Sick = Stopping, true
	effects := []Effect{{Do: Signal, Signal: p.StopSignal}}
	if p.StopTimeout >= 0 {
		effects = append(effects, Effect{Do: StopTimer, After: p.StopTimeout})
	}
	return s, effects
}

func nextKill(s State, f Fact, p Policy) (State, []Effect) {
	final := f.Signal == int(syscall.SIGKILL)
	var effects []Effect
	switch s.Phase {
	case Running, Paused, Stopping:
		// A signal that only pokes the process says nothing about restarts.
		if final || f.Signal == p.StopSignal {
			s, effects = askDown(s)
		}
		if !final {
			return s, append(effects, Effect{Do: Signal, Signal: f.Signal}, Effect{Do: Reply})
		}
		s.Again = false
		s, more := kill(s)
		if s.Phase == Paused {
			s.Phase = Running
		}
		return s, append(append(effects, more...), Effect{Do: Wait, Lot: UntilDown})
	case Restarting:
		if final || f.Signal == p.StopSignal {
			s, effects = askDown(s)
			s.Phase = Exited
			effects = append(effects, Effect{Do: CancelTimers}, Effect{Do: Save})
		}
		return s, append(effects, Effect{Do: Reply})
	case Starting:
		if final {
			s, effects = askDown(s)
			return s, append(effects, Effect{Do: CancelLaunch}, Effect{Do: Wait, Lot: UntilDown})
		}
	case Removed:
		return s, refused(GoneAlready)
	}
	return s, refused(NotRunning)
}

func nextFreezer(s State, f Fact) (State, []Effect) {
	switch f.Kind {
	case AskPause:
		switch s.Phase {
		case Running:
			if s.Dying { // frozen it could not die
				return s, refused(NotRunning)
			}
			return s, []Effect{{Do: Freeze}}
		case Paused:
			return s, refused(AlreadyPaused)
		case Starting:
			return s, []Effect{{Do: Defer}}
		}
		return s, refused(NotRunning)
	case AskUnpause:
		if s.Phase != Paused {
			return s, refused(NotPaused)
		}
		return s, []Effect{{Do: Thaw}}
	case Froze:
		if s.Phase == Running && f.Text == "" {
			s.Phase, s.Frozen = Paused, true
			return s, []Effect{{Do: Save}, {Do: EndHealth}, {Do: Event, Action: "pause"}, {Do: Reply}}
		}
		if s.Phase.live() && s.Phase != Paused { // what is half frozen, or on its way out, must not stay so
			return s, []Effect{{Do: Reply, Text: f.Text}, {Do: ThawQuietly}}
		}
	case Thawed:
		if s.Phase == Paused && f.Text == "" {
			s.Phase, s.Frozen = Running, false
			return s, []Effect{{Do: Save}, {Do: BeginHealth}, {Do: Event, Action: "unpause"}, {Do: Reply}}
		}
	}
	return s, []Effect{{Do: Reply, Text: f.Text}}
}

func nextRemove(s State, f Fact) (State, []Effect) {
	gone := Effect{Do: Wait, Lot: UntilGone}
	switch s.Phase {
	case Removing:
		return s, refused(IsRemoving)
	case Removed:
		return s, refused(GoneAlready)
	case Created, Exited, Dead:
		s.Phase, s.GoneVolumes = Removing, f.Volumes
		return s, []Effect{gone, {Do: Remove}}
	case Ending:
		s.Gone, s.GoneVolumes = true, s.GoneVolumes || f.Volumes
		return s, []Effect{gone}
	}
	if !f.Force {
		return s, refused(NotStopped)
	}
	s.Gone, s.GoneVolumes, s.Again, s.StopAsked = true, f.Volumes, false, true
	switch s.Phase {
	case Starting:
		return s, []Effect{gone, {Do: CancelLaunch}}
	case Restarting:
		s.Phase = Removing
		return s, []Effect{gone, {Do: CancelTimers}, {Do: Remove}}
	}
	s, effects := kill(s)
	s.Phase = Stopping
	return s, append([]Effect{gone}, effects...)
}

func nextLaunched(s State, f Fact) (State, []Effect) {
	if f.Kind == Adopted {
		s.Phase, s.Ran, s.Frozen = Running, true, f.Frozen
		if f.Frozen {
			s.Phase = Paused
			return s, []Effect{{Do: Watch}}
		}
		// A daemon that was killed while it paused the container has left it
		// frozen, and not even SIGKILL would end it (v1 groups).
		return s, []Effect{{Do: Watch}, {Do: ThawQuietly}, {Do: BeginHealth}}
	}
	if s.Phase != Starting {
		return s, nil
	}
	again := s.Again
	s.Phase, s.Ran, s.Again, s.Told, s.Sick, s.Dying = Running, true, false, false, false, false
	s.StartedAt = f.At
	s.ExitCode, s.OOMKilled, s.Error = 0, false, ""
	effects := []Effect{{Do: Save}, {Do: Event, Action: "start"}, {Do: Watch}}
	if s.Gone || s.StopAsked || s.Halted {
		// The interruption came too late to keep it from starting.
		s.Phase, s.Told = Stopping, !s.Gone
		return s, append(effects, Effect{Do: Signal, Signal: int(syscall.SIGKILL)},
			Effect{Do: Release, Lot: UntilUp, Refusal: Interrupted})
	}
	effects = append(effects, Effect{Do: BeginHealth})
	if again {
		effects = append(effects, Effect{Do: Event, Action: "restart"})
	}
	return s, append(effects, Effect{Do: Release, Lot: UntilUp})
}

func nextLaunchFailed(s State, f Fact, p Policy) (State, []Effect) {
	if s.Phase != Starting {
		return s, nil
	}
	s.Phase, s.Again = Created, false
	if s.Ran {
		s.Phase = Exited
	}
	effects := []Effect{}
	if s.StopAsked || s.Halted {
		effects = append(effects, Effect{Do: Release, Lot: UntilUp, Refusal: Interrupted})
	} else {
		s.ExitCode, s.Error = f.Code, f.Text
		effects = append(effects, Effect{Do: Release, Lot: UntilUp, Text: f.Text})
	}
	effects = append(effects, Effect{Do: Save}, Effect{Do: Release, Lot: UntilDown})
	if s.Gone || p.AutoRemove {
		s.Phase, s.GoneVolumes = Removing, s.GoneVolumes || p.AutoRemove
		effects = append(effects, Effect{Do: Remove})
	}
	return s, effects
}

func nextExited(s State, f Fact) (State, []Effect) {
	if !s.Phase.live() {
		return s, nil
	}
	s.Phase, s.Frozen, s.Dying = Ending, false, false
	s.FinishedAt, s.ExitCode, s.OOMKilled = f.At, f.Code, f.OOM
	return s, []Effect{{Do: CancelTimers}, {Do: EndHealth}, {Do: Teardown}}
}

// nextDown decides what becomes of a container that has ended.
func nextDown(s State, p Policy) (State, []Effect) {
	effects := []Effect{{Do: Event, Action: "die"}}
	if s.Told {
		effects = append(effects, Effect{Do: Event, Action: "stop"})
	}
	s.Told = false
	down := []Effect{{Do: Save}, {Do: NotifyExit}, {Do: Release, Lot: UntilDown}}
	if s.Again && !s.Gone {
		if s.StopAsked {
			s.StopAsked = false
			down = append(down, Effect{Do: Persist})
		}
		s.Phase, s.Restarts, s.Pause = Starting, 0, 0
		return s, append(append(effects, down...), Effect{Do: Launch})
	}
	// A restart that a later stop has overruled.
	down = append(down, Effect{Do: Release, Lot: UntilUp, Refusal: Interrupted})
	switch {
	case s.Gone, p.AutoRemove:
		s.Phase, s.GoneVolumes = Removing, s.GoneVolumes || p.AutoRemove
		if p.AutoRemove {
			down = down[1:] // not saved: whatever is remembered, it goes
		}
		return s, append(append(effects, down...), Effect{Do: Remove})
	case p.wantsRestart(s):
		s.Phase, s.Pause = Restarting, nextPause(s.Pause, s.FinishedAt.Sub(s.StartedAt))
		return s, append(append(effects, down...), Effect{Do: RestartTimer, After: s.Pause})
	}
	s.Phase = Exited
	return s, append(effects, down...)
}
