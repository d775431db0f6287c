package container

import (
	"time"

	"gantry/internal/plan"
)

// Phase is where a container is in its life.
//
//	created ──start──▶ starting ──launched──▶ running ◀─pause/unpause─▶ paused
//	   ▲                │  ▲  ▲                  │ stop, restart, rm -f    │
//	   └─failed, new────┘  │  │                  ▼                         │
//	          failed, old ─┼──┼──────┐        stopping ◀───────────────────┘
//	                       │  │      │           │ exited (from any of the three)
//	        after a pause  │  │start ▼           ▼
//	      restarting ──────┘  └── exited ◀──── ending (network, mounts undone)
//	          ▲                      │           │  │
//	          └───── policy ─────────┼───────────┘  │ --rm, rm -f
//	                                 ▼              ▼
//	                              removing ◀────────┘ ──▶ removed, or dead
type Phase uint8

// The phases. Docker's words and booleans are made of them in inspect.
const (
	Created    Phase = iota
	Starting         // a child launches it
	Running          // its first process runs
	Paused           // it is frozen
	Stopping         // it runs, and has been asked to end
	Ending           // its process has ended; what it used is being undone
	Restarting       // it waits for its next start by policy
	Exited           // it is down
	Removing         // a child removes it
	Removed          // it is gone
	Dead             // removing it failed
)

var phaseNames = [...]string{"created", "starting", "running", "paused", "stopping", "ending", "restarting", "exited", "removing", "removed", "dead"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "unknown"
}

// Up reports whether the container counts as running to Docker's clients, which
// includes the pause before a restart by policy.
func (p Phase) Up() bool {
	switch p {
	case Running, Paused, Stopping, Ending, Restarting:
		return true
	}
	return false
}

// live reports whether the container has a process.
func (p Phase) live() bool { return p == Running || p == Paused || p == Stopping }

// State is what its goroutine knows of a container. It is a value: Next makes
// the next one.
type State struct {
	Phase Phase
	// Ran says that it has run before; a first start that fails leads back
	// to Created.
	Ran bool
	// Frozen says that its processes are frozen: Paused, or Stopping from there.
	Frozen bool
	// StopAsked says that the user wants it down: no restart by policy. It
	// is the one part that is stored durably as a decision.
	StopAsked bool
	// Dying says that it has been sent SIGKILL.
	Dying bool
	// Told says that it is ending because of stop or restart, not of itself.
	Told bool
	// Halted says that the daemon has stopped it since it ends itself: not
	// again by policy now, but with the next daemon.
	Halted bool
	// Sick says that it is ending because it was found unhealthy.
	Sick bool
	// Again says that it starts again once it is down: the user's restart.
	Again bool
	// Gone says that it is removed once it is down; GoneVolumes with its
	// anonymous volumes.
	Gone, GoneVolumes bool
	Restarts          int           // starts by policy since the user's last one
	Pause             time.Duration // before the last start by policy
	StartedAt         time.Time
	FinishedAt        time.Time
	ExitCode          int
	OOMKilled         bool
	Error             string // why the last start failed
}

// up is Phase.Up, and true while policy starts it again.
func (s State) up() bool { return s.Phase.Up() || s.Phase == Starting && s.Restarts > 0 }

// FactKind names what can happen to a container.
type FactKind uint8

// What users ask for, then what is observed.
const (
	AskStart   FactKind = iota
	AskStop             // Signal, Timeout
	AskRestart          // Signal, Timeout
	AskKill             // Signal
	AskPause
	AskUnpause
	AskRemove // Force, Volumes

	Launched     // the process runs
	LaunchFailed // Code, Text; everything has been undone
	Adopted      // a process of an earlier daemon was found; Frozen, StartedAt
	StopExpired  // the time to end by itself is over
	HasExited    // Code, At, OOM
	TornDown     // what the container used has been undone
	RestartDue   // the pause before a restart is over
	Froze        // Text if it failed
	Thawed       // Text if it failed
	RemoveDone
	RemoveFailed // Text
	IsUnhealthy  // a probe has left it unhealthy
	factKinds
)

// A Fact is one thing that happened.
type Fact struct {
	Kind    FactKind
	At      time.Time
	Signal  int
	Timeout time.Duration // negative: for ever
	Force   bool
	Volumes bool
	Boot    bool // a start or stop by the daemon as it begins or ends, not by the user
	Code    int
	OOM     bool
	Frozen  bool
	Text    string
}

// Policy is what the container's configuration says about its life.
type Policy struct {
	Restart     string // "no", "always", "unless-stopped", "on-failure", "on-unhealthy"
	MaxRestarts int    // for on-failure and on-unhealthy; 0 for no limit
	AutoRemove  bool
	StopSignal  int
	StopTimeout time.Duration // negative: for ever
}

// Pauses before a restart by policy, and how long a run must last to count as
// a success, as Docker has them.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	goodRun      = 10 * time.Second
)

// wantsRestart reports whether policy p starts a container in state s again
// after it ended by itself.
func (p Policy) wantsRestart(s State) bool {
	if s.StopAsked || s.Halted {
		return false
	}
	switch p.Restart {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return s.ExitCode != 0 && p.mayRestart(s)
	case plan.OnUnhealthy:
		return (s.ExitCode != 0 || s.Sick) && p.mayRestart(s)
	}
	return false
}

// mayRestart reports whether the number of restarts has a limit that is reached.
func (p Policy) mayRestart(s State) bool { return p.MaxRestarts == 0 || s.Restarts < p.MaxRestarts }

// wantsBoot reports whether a container that is down is to be started when the
// daemon opens: the user's "always" holds even for one that was stopped.
func (p Policy) wantsBoot(s State) bool {
	return s.Ran && (p.Restart == "always" || p.wantsRestart(s) && s.Error == "")
}

// nextPause returns how long to wait before a start by policy, after a run of
// the given length and a pause of last before it.
func nextPause(last, run time.Duration) time.Duration {
	if last == 0 || run >= goodRun {
		return firstPause
	}
	return min(2*last, longestPause)
}

// Lot names a set of callers that wait for one thing.
type Lot uint8

// The lots: until it is up (or failed to), until it is down, until it is gone.
const (
	UntilUp Lot = iota
	UntilDown
	UntilGone
)

// Refusal is why a request can't be granted in a phase.
type Refusal uint8

// The refusals; refuse gives each its text and kind.
const (
	NoRefusal Refusal = iota
	IsRunning
	IsPaused
	AlreadyPaused
	NotRunning
	NotPaused
	NotStopped    // remove without force: Phase says how it is up
	IsRemoving    // removal is in progress
	MarkedRemoval // start of one that is being removed
	GoneAlready   // it has been removed meanwhile
	Interrupted   // the start was interrupted by stop, kill or remove
)

// EffectKind names something to do.
type EffectKind uint8

// The effects, in the words of what the executor does.
const (
	Launch       EffectKind = iota // begin launching; Launched or LaunchFailed follows
	Patiently                      // the same, when what it is to come after is up
	Hurry                          // wait no longer for that
	CancelLaunch                   // interrupt it
	Watch                          // wait for the process's end; HasExited follows
	Signal                         // send it (Effect.Signal)
	StopTimer                      // StopExpired follows after Effect.After
	CancelTimers
	RestartTimer  // RestartDue follows after Effect.After
	Freeze        // Froze follows at once
	Thaw          // Thawed follows at once
	ThawQuietly   // so that a frozen process can die
	Teardown      // TornDown follows
	Remove        // RemoveDone or RemoveFailed follows
	Persist       // write StopAsked durably
	Save          // write the observations that no shim can tell again
	Event         // publish Effect.Action
	BeginHealth   // begin probing
	EndHealth     // end it
	NotifyExit    // tell those who wait for an exit
	NotifyRemoved // tell those who wait for the removal, after forgetting it
	Reply         // answer the request with Refusal, or success
	Wait          // the request waits in Lot
	Release       // answer everybody in Lot, with Refusal or Effect.Text or success
	Defer         // the request is looked at again when the phase has changed
)

// An Effect is one thing to do, as data.
type Effect struct {
	Do      EffectKind
	Signal  int
	After   time.Duration
	Action  string
	Refusal Refusal
	Lot     Lot
	Text    string
}
