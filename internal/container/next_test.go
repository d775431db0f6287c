package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var factNames = [...]string{
	"AskStart", "AskStop", "AskRestart", "AskKill", "AskPause", "AskUnpause", "AskRemove",
	"Launched", "LaunchFailed", "Adopted", "StopExpired", "HasExited", "TornDown", "RestartDue", "Froze", "Thawed", "RemoveDone", "RemoveFailed", "IsUnhealthy",
}

var effectNames = [...]string{
	"Launch", "Patiently", "Hurry", "CancelLaunch", "Watch", "Signal", "StopTimer", "CancelTimers", "RestartTimer", "Freeze", "Thaw", "ThawQuietly", "Teardown",
	"Remove", "Persist", "Save", "Event", "BeginHealth", "EndHealth", "NotifyExit", "NotifyRemoved", "Reply", "Wait", "Release", "Defer",
}

var lotNames = [...]string{"UntilUp", "UntilDown", "UntilGone"}

var refusalNames = [...]string{"", "IsRunning", "IsPaused", "AlreadyPaused", "NotRunning", "NotPaused", "NotStopped", "IsRemoving", "MarkedRemoval", "GoneAlready", "Interrupted"}

func (e Effect) String() string {
	var b strings.Builder
	b.WriteString(effectNames[e.Do])
	switch e.Do {
	case Signal:
		fmt.Fprintf(&b, "(%d)", e.Signal)
	case StopTimer, RestartTimer:
		fmt.Fprintf(&b, "(%v)", e.After)
	case Event:
		fmt.Fprintf(&b, "(%s)", e.Action)
	case Wait, Release:
		fmt.Fprintf(&b, "(%s)", lotNames[e.Lot])
	}
	if e.Refusal != NoRefusal {
		fmt.Fprintf(&b, "!%s", refusalNames[e.Refusal])
	}
	if e.Text != "" {
		fmt.Fprintf(&b, "!%q", e.Text)
	}
	return b.String()
}

// variants of each phase and fact that the table shows.
func phaseStates() []State {
	at := time.Unix(1000, 0)
	up := State{Ran: true, StartedAt: at, FinishedAt: at.Add(time.Second)}
	with := func(s State, p Phase, change ...func(*State)) State {
		s.Phase = p
		for _, c := range change {
			c(&s)
		}
		return s
	}
	return []State{
		{Phase: Created}, with(up, Exited), with(up, Exited, func(s *State) { s.StopAsked = true }), {Phase: Starting},
		with(up, Starting), {Phase: Starting, StopAsked: true}, with(up, Running), with(up, Paused, func(s *State) { s.Frozen = true }),
		with(up, Stopping, func(s *State) { s.StopAsked, s.Told = true, true }),
		with(up, Stopping, func(s *State) { s.Again, s.Told, s.Frozen = true, true, true }),
		with(up, Ending), with(up, Ending, func(s *State) { s.StopAsked, s.Told = true, true }), with(up, Ending, func(s *State) { s.Again, s.Told = true, true }),
		with(up, Stopping, func(s *State) { s.Sick = true }), with(up, Ending, func(s *State) { s.Sick = true }),
		with(up, Running, func(s *State) { s.Restarts = 2 }), {Phase: Starting, Halted: true}, with(up, Ending, func(s *State) { s.Told, s.Halted = true, true }),
		with(up, Ending, func(s *State) { s.Gone = true }), with(up, Restarting), {Phase: Removing}, {Phase: Removed}, {Phase: Dead},
	}
}

func factVariants() []Fact {
	at := time.Unix(1020, 0)
	return []Fact{
		{Kind: AskStart}, {Kind: AskStop, Signal: 15, Timeout: 10 * time.Second}, {Kind: AskStop, Signal: 9, Timeout: -1}, {Kind: AskRestart, Signal: 15},
		{Kind: AskKill, Signal: 9}, {Kind: AskKill, Signal: 15}, {Kind: AskKill, Signal: 28}, {Kind: AskPause}, {Kind: AskUnpause},
		{Kind: AskRemove}, {Kind: AskRemove, Force: true, Volumes: true}, {Kind: Launched, At: at}, {Kind: LaunchFailed, Code: 127, Text: "why"},
		{Kind: Adopted}, {Kind: Adopted, Frozen: true}, {Kind: StopExpired}, {Kind: HasExited, At: at, Code: 3}, {Kind: TornDown}, {Kind: RestartDue},
		{Kind: Froze}, {Kind: Froze, Text: "why"}, {Kind: Thawed}, {Kind: Thawed, Text: "why"}, {Kind: RemoveDone}, {Kind: RemoveFailed, Text: "why"},
		{Kind: AskStart, Boot: true}, {Kind: AskStop, Signal: 15, Timeout: 10 * time.Second, Boot: true}, {Kind: IsUnhealthy},
	}
}

var policies = []Policy{
	{Restart: "no", StopSignal: 15}, {Restart: "no", AutoRemove: true, StopSignal: 15},
	{Restart: "always", StopSignal: 15}, {Restart: "on-failure", MaxRestarts: 2, StopSignal: 15},
	{Restart: "on-unhealthy", MaxRestarts: 2, StopSignal: 15, StopTimeout: 10 * time.Second},
}

func describe(s State) string {
	out := s.Phase.String()
	for _, f := range []struct {
		on   bool
		name string
	}{{s.Ran, "ran"}, {s.Frozen, "frozen"}, {s.StopAsked, "stop-asked"}, {s.Told, "told"}, {s.Dying, "dying"}, {s.Sick, "sick"}, {s.Halted, "halted"}, {s.Again, "again"}, {s.Gone, "gone"}, {s.GoneVolumes, "gone-volumes"}} {
		if f.on {
			out += "+" + f.name
		}
	}
	return out
}

// TestNextTable holds every transition against a table that people have read.
// GANTRY_UPDATE=1 writes it anew.
func TestNextTable(t *testing.T) {
	if len(factNames) != int(factKinds) {
		t.Fatalf("%d names for %d facts", len(factNames), factKinds)
	}
	var b strings.Builder
	for _, p := range policies {
		fmt.Fprintf(&b, "# policy %+v\n", p)
		for _, s := range phaseStates() {
			for _, f := range factVariants() {
				n, effects := Next(s, f, p)
				if len(effects) == 0 && n == s {
					continue // nothing to see
				}
				fact := factNames[f.Kind]
				if f.Signal != 0 {
					fact += fmt.Sprintf("(%d)", f.Signal)
				}
				if f.Boot {
					fact += "(boot)"
				}
				if f.Force {
					fact += "(force)"
				}
				if f.Frozen {
					fact += "(frozen)"
				}
				if f.Text != "" {
					fact += "(failed)"
				}
				fmt.Fprintf(&b, "%-34s %-17s → %-34s %v\n", describe(s), fact, describe(n), effects)
			}
		}
	}
	golden := filepath.Join("testdata", "next.golden")
	if os.Getenv("GANTRY_UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		got, old := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
		for i := range min(len(got), len(old)) {
			if got[i] != old[i] {
				t.Fatalf("line %d:\n got %s\nwant %s", i+1, got[i], old[i])
			}
		}
		t.Fatalf("%d lines, want %d", len(got), len(old))
	}
}

// world plays the kernel's part for one container in a random walk.
type world struct {
	state     State
	policy    Policy
	launching bool
	cancelled bool
	process   bool
	tearing   bool
	removing  bool
	restart   bool // a restart timer is armed
	answered  []bool
	lots      [3][]int
	deferred  []int
	asks      []Fact
	log       []string
}

// take runs one fact and its effects; ask is the number of the request, or -1.
func (w *world) take(t *rapid.T, f Fact, ask int) {
	before := w.state.Phase
	var effects []Effect
	w.state, effects = Next(w.state, f, w.policy)
	w.log = append(w.log, fmt.Sprintf("%s %s → %s %v", before, factNames[f.Kind], describe(w.state), effects))
	var follow []Fact
	handled := ask < 0
	for _, e := range effects {
		switch e.Do {
		case Launch, Patiently:
			check(t, w, !w.launching && !w.process && !w.tearing && !w.removing, "launch of one that is not down")
			w.launching, w.cancelled = true, false
		case CancelLaunch:
			w.cancelled = true
		case Watch:
			check(t, w, w.process, "watch without a process")
		case Freeze:
			follow = append(follow, Fact{Kind: Froze})
			handled = true
		case Thaw:
			follow = append(follow, Fact{Kind: Thawed})
			handled = true
		case Teardown:
			check(t, w, !w.process && !w.tearing, "teardown of a process that lives")
			w.tearing = true
		case Remove:
			check(t, w, !w.launching && !w.process && !w.tearing && !w.removing, "removal of one that is not down")
			w.removing = true
		case RestartTimer:
			w.restart = true
		case CancelTimers:
			w.restart = false
		case Reply:
			if ask >= 0 {
				check(t, w, !w.answered[ask], "answered twice")
				w.answered[ask], handled = true, true
			}
		case Wait:
			check(t, w, ask >= 0, "nobody to wait")
			w.lots[e.Lot] = append(w.lots[e.Lot], ask)
			handled = true
		case Release:
			for _, a := range w.lots[e.Lot] {
				check(t, w, !w.answered[a], "answered twice")
				w.answered[a] = true
			}
			w.lots[e.Lot] = nil
		case Defer:
			w.deferred = append(w.deferred, ask)
			handled = true
		}
	}
	check(t, w, handled, "request has no answer and does not wait")
	for _, f := range follow {
		w.take(t, f, ask)
	}
	if p := w.state.Phase; p == Created || p == Exited {
		check(t, w, len(w.lots[UntilUp]) == 0 && len(w.lots[UntilDown]) == 0, "somebody waits for one that rests")
	}
	if w.state.Phase != before {
		again := w.deferred
		w.deferred = nil
		for _, a := range again {
			w.take(t, w.asks[a], a)
		}
	}
}

func check(t *rapid.T, w *world, ok bool, why string) {
	if !ok {
		t.Fatalf("%s\n%s", why, strings.Join(w.log, "\n"))
	}
}

// step lets the world do one thing that is possible; false if nothing is.
func (w *world) step(t *rapid.T) bool {
	var can []string
	for name, ok := range map[string]bool{
		"launched": w.launching, "failed": w.launching, "exit": w.process, "torn": w.tearing, "removed": w.removing, "restart": w.restart,
	} {
		if ok {
			can = append(can, name)
		}
	}
	if len(can) == 0 {
		return false
	}
	slices.Sort(can)
	at := time.Unix(int64(1000+len(w.log)), 0)
	switch rapid.SampledFrom(can).Draw(t, "world") {
	case "launched":
		w.launching, w.process = false, true
		w.take(t, Fact{Kind: Launched, At: at}, -1)
	case "failed":
		w.launching = false
		w.take(t, Fact{Kind: LaunchFailed, At: at, Code: 127, Text: "why"}, -1)
	case "exit":
		w.process = false
		w.take(t, Fact{Kind: HasExited, At: at, Code: rapid.SampledFrom([]int{0, 1}).Draw(t, "code")}, -1)
	case "torn":
		w.tearing = false
		w.take(t, Fact{Kind: TornDown, At: at}, -1)
	case "removed":
		w.removing = false
		w.take(t, Fact{Kind: RemoveDone, At: at}, -1)
	case "restart":
		w.restart = false
		w.take(t, Fact{Kind: RestartDue, At: at}, -1)
	}
	return true
}

// TestNextAnswersEverybody walks at random through the life of a container,
// whose world may do anything at any time, and then lets it come to rest: by
// then every request must have been answered, exactly once.
func TestNextAnswersEverybody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{policy: rapid.SampledFrom(policies).Draw(t, "policy")}
		kinds := []FactKind{AskStart, AskStop, AskRestart, AskKill, AskPause, AskUnpause, AskRemove}
		for range rapid.IntRange(1, 40).Draw(t, "length") {
			if rapid.Bool().Draw(t, "ask") {
				f := Fact{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Signal: 15, Timeout: time.Second, Force: rapid.Bool().Draw(t, "force")}
				if f.Kind == AskKill {
					f.Signal = rapid.SampledFrom([]int{9, 15, 28}).Draw(t, "signal")
				}
				w.asks, w.answered = append(w.asks, f), append(w.answered, false)
				w.take(t, f, len(w.asks)-1)
			} else {
				w.step(t)
			}
		}
		w.asks, w.answered = append(w.asks, Fact{Kind: AskRemove, Force: true}), append(w.answered, false)
		w.take(t, w.asks[len(w.asks)-1], len(w.asks)-1)
		for range 200 {
			if !w.step(t) {
				break
			}
		}
		check(t, w, w.state.Phase == Removed, "a forced removal leads to "+w.state.Phase.String())
		check(t, w, !slices.Contains(w.answered, false), fmt.Sprintf("somebody waits for ever: %v", w.answered))
	})
}

// TestKillIsNeverIgnored: SIGKILL on one that has a process always sends it.
func TestKillIsNeverIgnored(t *testing.T) {
	for _, s := range phaseStates() {
		if !s.Phase.live() {
			continue
		}
		n, effects := Next(s, Fact{Kind: AskKill, Signal: int(syscall.SIGKILL)}, policies[2])
		sent := slices.ContainsFunc(effects, func(e Effect) bool { return e.Do == Signal && e.Signal == int(syscall.SIGKILL) })
		thawed := slices.ContainsFunc(effects, func(e Effect) bool { return e.Do == ThawQuietly })
		if !sent || s.Frozen && !thawed || !n.StopAsked {
			t.Errorf("%s: %v → %s", describe(s), effects, describe(n))
		}
	}
}

func TestPauseBetweenRestarts(t *testing.T) {
	var got []time.Duration
	last := time.Duration(0)
	for range 12 {
		last = nextPause(last, time.Second)
		got = append(got, last)
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000} {
		if got[i] != want*time.Millisecond {
			t.Errorf("pause %d is %v, want %v", i+1, got[i], want*time.Millisecond)
		}
	}
	if p := nextPause(time.Minute, goodRun); p != firstPause {
		t.Errorf("after a good run the pause is %v, want %v", p, firstPause)
	}
}
