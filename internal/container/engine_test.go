package container

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// actions returns the actions of the container events so far.
func actions(bus *event.Bus) []string {
	past, sub := bus.Subscribe(time.Unix(1, 0))
	sub.Close()
	var out []string
	for _, e := range past {
		if e.Type == "container" {
			out = append(out, string(e.Action))
		}
	}
	return out
}

func TestStartStopRemove(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	id := create(t, e, "c1")
	wants(t, e.Stop(t.Context(), "c1", StopOptions{}), errs.NoChange, "")
	wants(t, e.Kill(t.Context(), "c1", ""), errs.Conflict, "cannot kill container: c1: container "+id+" is not running")
	wants(t, e.Pause(t.Context(), "c1"), errs.Conflict, "container "+id+" is not running")
	wants(t, e.Unpause(t.Context(), "c1"), errs.Unknown, "Container "+id+" is not paused")
	start(t, e, "c1")
	wants(t, e.Start(t.Context(), "c1"), errs.NoChange, "")
	wants(t, e.Remove(t.Context(), "c1", RemoveOptions{}), errs.Conflict,
		`cannot remove container "c1": container is running: stop the container before removing or force remove`)
	if s := status(t, e, "c1"); s.Status != "running" || !s.Running || s.Pid != 4242 || s.StartedAt == "0001-01-01T00:00:00Z" {
		t.Errorf("state %+v", s)
	}
	if err := e.Stop(t.Context(), id[:12], StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, e, "c1"); s.Status != "exited" || s.ExitCode != 143 || s.Pid != 0 {
		t.Errorf("state %+v", s)
	}
	wants(t, e.Stop(t.Context(), "c1", StopOptions{}), errs.NoChange, "")
	if err := e.Remove(t.Context(), "/c1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wants(t, e.Remove(t.Context(), "c1", RemoveOptions{Force: true}), errs.NotFound, "No such container: c1")
	if got, want := strings.Join(actions(m.bus), " "), "create start kill die stop destroy"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if len(m.images.pinned) != 0 {
		t.Errorf("pins stay: %v", m.images.pinned)
	}
}

func TestStopKillsAfterItsTime(t *testing.T) {
	m := newMachine(t)
	m.launcher.deaf = true
	e := m.open(t)
	id := create(t, e, "c1")
	start(t, e, "c1")
	f := m.launcher.shim(t, id)
	zero := 0
	wants(t, e.Stop(t.Context(), "c1", StopOptions{Signal: "BOGUS"}), errs.Unknown, "cannot stop container: c1: invalid signal: BOGUS")
	if err := e.Stop(t.Context(), "c1", StopOptions{Timeout: &zero, Signal: "SIGUSR1"}); err != nil {
		t.Fatal(err)
	}
	if len(f.sigs) != 2 || f.sigs[0] != 10 || f.sigs[1] != 9 {
		t.Errorf("signals %v, want 10 and 9", f.sigs)
	}
	if s := status(t, e, "c1"); s.ExitCode != 137 {
		t.Errorf("exit code %d", s.ExitCode)
	}
}

func TestKillTexts(t *testing.T) {
	e := newMachine(t).open(t)
	create(t, e, "c1")
	start(t, e, "c1")
	for sig, text := range map[string]string{
		"BOGUS": "cannot kill container: c1: invalid signal: BOGUS", "0": "cannot kill container: c1: invalid signal: 0",
		"999": "cannot kill container: c1: the linux daemon does not support signal 999",
	} {
		wants(t, e.Kill(t.Context(), "c1", sig), errs.Invalid, text)
	}
	wants(t, e.Kill(t.Context(), "nosuch", ""), errs.NotFound, "cannot kill container: nosuch: No such container: nosuch")
	for _, sig := range []string{"WINCH", "sigwinch", "SIGRTMIN+3"} {
		if err := e.Kill(t.Context(), "c1", sig); err != nil {
			t.Error(sig, err)
		}
	}
}

func TestRestartPolicyOnFailure(t *testing.T) {
	m := newMachine(t)
	m.launcher.run = func(f *fakeShim) { f.end(9) }
	e := m.open(t)
	create(t, e, "r1", func(r *wire.CreateRequest) {
		r.HostConfig.RestartPolicy = wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}
	})
	start(t, e, "r1")
	for deadline := time.Now().Add(20 * time.Second); status(t, e, "r1").Status != "exited"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to rest")
		}
	}
	if got, want := strings.Join(actions(m.bus), " "), "create start die start die start die"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	w, err := e.Inspect(t.Context(), "r1", InspectOptions{})
	if err != nil || w.RestartCount != 2 || w.State.ExitCode != 9 {
		t.Errorf("restart count %d, exit code %d, %v", w.RestartCount, w.State.ExitCode, err)
	}
}

func TestStopEndsRestarting(t *testing.T) {
	m := newMachine(t)
	m.launcher.run = func(f *fakeShim) { f.end(1) }
	e := m.open(t)
	create(t, e, "r1", func(r *wire.CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	start(t, e, "r1")
	waitFor(t, e, "r1", "next-exit")
	for status(t, e, "r1").Status != "restarting" {
		time.Sleep(time.Millisecond)
	}
	if err := e.Stop(t.Context(), "r1", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, e, "r1"); s.Status != "exited" || s.Restarting {
		t.Errorf("state %+v", s)
	}
}

func TestAutoRemoveAnswersWait(t *testing.T) {
	m := newMachine(t)
	m.launcher.run = func(f *fakeShim) { f.end(6) }
	e := m.open(t)
	create(t, e, "rm", func(r *wire.CreateRequest) { r.HostConfig.AutoRemove = true })
	gone, err := e.Wait(t.Context(), "rm", "removed")
	if err != nil {
		t.Fatal(err)
	}
	next, err := e.Wait(t.Context(), "rm", "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, "rm")
	if r := receive(t, next); r.StatusCode != 6 || r.Error != nil {
		t.Errorf("next-exit: %+v", r)
	}
	if r := receive(t, gone); r.StatusCode != 6 || r.Error != nil {
		t.Errorf("removed: %+v", r)
	}
	_, err = e.Inspect(t.Context(), "rm", InspectOptions{})
	wants(t, err, errs.NotFound, "No such container: rm")
}

func TestFailedStartLeavesCreated(t *testing.T) {
	m := newMachine(t)
	m.launcher.startErr = &shim.StartError{ExitCode: 127, Text: `exec: "nosuch": executable file not found in $PATH`}
	e := m.open(t)
	create(t, e, "c1")
	next, err := e.Wait(t.Context(), "c1", "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	at, err := e.Attach(t.Context(), "c1", AttachOptions{Stream: true, Streams: shim.Streams{Stdout: true}})
	if err != nil {
		t.Fatal(err)
	}
	var failure *shim.StartError
	if err := e.Start(t.Context(), "c1"); !errors.As(err, &failure) {
		t.Fatalf("start: %v", err)
	}
	if data, err := io.ReadAll(at); len(data) != 0 || err != nil {
		t.Errorf("attached before: %q, %v", data, err)
	}
	if s := status(t, e, "c1"); s.Status != "created" || s.ExitCode != 127 || s.Error == "" || s.StartedAt != "0001-01-01T00:00:00Z" {
		t.Errorf("state %+v", s)
	}
	if r := waitFor(t, e, "c1", ""); r.StatusCode != 127 || r.Error == nil {
		t.Errorf("wait: %+v", r)
	}
	select {
	case r := <-next:
		t.Errorf("a failed start woke next-exit: %+v", r)
	case <-time.After(50 * time.Millisecond):
	}
	if list, err := e.List(t.Context(), ListOptions{All: true}); err != nil || list[0].Status != "Created" {
		t.Errorf("list: %v %v", list, err)
	}
}

func TestRemoveInterruptsSlowStart(t *testing.T) {
	m := newMachine(t)
	m.launcher.slow = make(chan struct{})
	e := m.open(t)
	create(t, e, "c1")
	started := make(chan error, 1)
	go func() { started <- e.Start(t.Context(), "c1") }()
	for e.core.table.all()[0].view().state.Phase != Starting {
		time.Sleep(time.Millisecond)
	}
	if err := e.Remove(t.Context(), "c1", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, started); err == nil {
		t.Error("a start that was interrupted says that it succeeded")
	}
	if n := e.Counts().Total; n != 0 {
		t.Errorf("%d containers left", n)
	}
}

func TestAttachBeforeStartMissesNothing(t *testing.T) {
	m := newMachine(t)
	m.launcher.run = func(f *fakeShim) { f.print("out\n"); f.end(3) }
	e := m.open(t)
	create(t, e, "c1")
	at, err := e.Attach(t.Context(), "c1", AttachOptions{Stream: true, Streams: shim.Streams{Stdout: true}})
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, "c1")
	data, err := io.ReadAll(at)
	if string(data) != "out\n" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if r := waitFor(t, e, "c1", "not-running"); r.StatusCode != 3 {
		t.Errorf("wait %+v", r)
	}
}

func TestAttachErrors(t *testing.T) {
	e := newMachine(t).open(t)
	create(t, e, "c1")
	_, err := e.Attach(t.Context(), "nosuch", AttachOptions{Stream: true})
	wants(t, err, errs.NotFound, "No such container: nosuch")
	_, err = e.Attach(t.Context(), "c1", AttachOptions{Stream: true, DetachKeys: "bogus-key"})
	wants(t, err, errs.Invalid, "Invalid detach keys (bogus-key) provided")
	at, err := e.Attach(t.Context(), "c1", AttachOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(at); len(data) != 0 || err != nil {
		t.Errorf("no stream was asked for: %q, %v", data, err)
	}
}

// No name here could be the beginning of an ID.
func TestRename(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	create(t, e, "web")
	id2 := create(t, e, "other")
	for name, want := range map[string]string{
		"web": "Renaming a container with the same name as its current name", "/web": "Renaming a container with the same name as its current name",
		"": "Neither old nor new names may be empty", "a b": "Error when allocating new name: Invalid container name (/a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
		"x": "Error when allocating new name: Invalid container name (/x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
	} {
		wants(t, e.Rename(t.Context(), "web", name), errs.Invalid, want)
	}
	wants(t, e.Rename(t.Context(), "web", "other"), errs.Conflict, `Error when allocating new name: Conflict. The container name "/other" is already in use by container "`+id2+`". You have to remove (or rename) that container to be able to reuse that name.`)
	if err := e.Rename(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	_, err := e.Inspect(t.Context(), "web", InspectOptions{})
	wants(t, err, errs.NotFound, "")
	create(t, e, "web") // the old name is free
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err := m.open(t).Inspect(t.Context(), "shop", InspectOptions{}); err != nil || w.Name != "/shop" {
		t.Errorf("after a restart: %q, %v", w.Name, err)
	}
}

func TestNames(t *testing.T) {
	e := newMachine(t).open(t)
	id := create(t, e, "c1")
	for _, name := range []string{"c1", "/c1"} {
		_, err := e.Create(t.Context(), CreateOptions{Name: name, Request: wire.CreateRequest{Config: &wire.ContainerConfig{Image: "busybox"}}})
		wants(t, err, errs.Conflict, `Conflict. The container name "/c1" is already in use by container "`+id+`". You have to remove (or rename) that container to be able to reuse that name.`)
	}
	for _, name := range []string{"a", "-a", ".a", "a b", "a/b", "éab"} {
		_, err := e.Create(t.Context(), CreateOptions{Name: name, Request: wire.CreateRequest{Config: &wire.ContainerConfig{Image: "busybox"}}})
		wants(t, err, errs.Invalid, "Invalid container name ("+name+"), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
	}
	_, err := e.Create(t.Context(), CreateOptions{Request: wire.CreateRequest{Config: &wire.ContainerConfig{Image: "nosuch"}}})
	wants(t, err, errs.NotFound, "No such image: nosuch")
	var wg sync.WaitGroup
	made := make(chan error, 16)
	for range 16 { // one wins
		wg.Go(func() {
			_, err := e.Create(t.Context(), CreateOptions{Name: "race", Request: wire.CreateRequest{Config: &wire.ContainerConfig{Image: "busybox"}}})
			made <- err
		})
	}
	wg.Wait()
	won := 0
	for range 16 {
		if err := <-made; err == nil {
			won++
		} else if !errs.Is(err, errs.Conflict) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d containers have the name race", won)
	}
	create(t, e, "")
	if n := len(e.core.table.byName); n != 3 {
		t.Errorf("%d names", n)
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	e := newMachine(t).open(t)
	ids := map[byte]int{}
	for range 17 { // two of them begin alike
		ids[create(t, e, "")[0]]++
	}
	for c, n := range ids {
		_, err := e.Inspect(t.Context(), string(c), InspectOptions{})
		if n > 1 {
			wants(t, err, errs.Invalid, "multiple IDs found with provided prefix: "+string(c))
		} else if err != nil {
			t.Error(err)
		}
	}
}

func TestUserRestart(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	create(t, e, "c1")
	if err := e.Restart(t.Context(), "c1", StopOptions{}); err != nil { // created: starts it
		t.Fatal(err)
	}
	if err := e.Restart(t.Context(), "c1", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, e, "c1"); !s.Running {
		t.Errorf("state %+v", s)
	}
	wants(t, e.Restart(t.Context(), "c1", StopOptions{Signal: "BOGUS"}), errs.Unknown, "Cannot restart container c1: invalid signal: BOGUS")
	if got, want := strings.Join(actions(m.bus), " "), "create start restart kill die stop start restart"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestExec(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	id := create(t, e, "c1")
	_, err := e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"true"}})
	wants(t, err, errs.Conflict, "container "+id+" is not running")
	start(t, e, "c1")
	_, err = e.ExecCreate(t.Context(), "c1", wire.ExecCreate{})
	wants(t, err, errs.Invalid, "No exec command specified")
	_, err = e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"true"}, DetachKeys: "bogus-k"})
	wants(t, err, errs.Unknown, "Invalid escape keys (bogus-k) provided")
	_, err = e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"true"}, User: "nosuch"})
	wants(t, err, errs.Invalid, "unable to find user nosuch: no matching entries in passwd file")
	_, err = e.ExecInspect(t.Context(), "nosuch")
	wants(t, err, errs.NotFound, "No such exec instance: nosuch")

	x, err := e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"nosuch"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	const text = `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`
	_, err = e.ExecStart(t.Context(), x, ExecStartOptions{})
	var in *StreamError
	if !errors.As(err, &in) || err.Error() != text {
		t.Errorf("missing program: %v", err)
	}
	_, err = e.ExecStart(t.Context(), x, ExecStartOptions{Detach: true})
	wants(t, err, errs.Conflict, "exec command "+x+" has already run")
	if w, err := e.ExecInspect(t.Context(), x); err != nil || w.Running || w.ExitCode == nil || *w.ExitCode != 127 || w.Pid != 0 {
		t.Errorf("inspect %+v, %v", w, err)
	}

	m.launcher.exec = func() (int, string) { return 7, "out\n" }
	x, err = e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"sh", "-c", "exit 7"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	at, err := e.ExecStart(t.Context(), x, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(at); string(data) != "out\n" || err != nil {
		t.Errorf("%q %v", data, err)
	}
	for {
		w, err := e.ExecInspect(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		if !w.Running {
			if *w.ExitCode != 7 || w.ProcessConfig.Entrypoint != "sh" || len(w.ProcessConfig.Arguments) != 2 {
				t.Errorf("inspect %+v", w)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	waiting, err := e.ExecCreate(t.Context(), "c1", wire.ExecCreate{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Kill(t.Context(), "c1", ""); err != nil {
		t.Fatal(err)
	}
	_, err = e.ExecStart(t.Context(), waiting, ExecStartOptions{})
	wants(t, err, errs.NotFound, "No such exec instance: "+waiting)
	if _, err := e.ExecInspect(t.Context(), x); err != nil {
		t.Errorf("one that ran, after the container's end: %v", err)
	}
	if err := e.Remove(t.Context(), "c1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = e.ExecInspect(t.Context(), x)
	wants(t, err, errs.NotFound, "No such exec instance: "+x)
}

func TestHealth(t *testing.T) {
	m := newMachine(t)
	var mu sync.Mutex
	code := 0
	m.launcher.exec = func() (int, string) { mu.Lock(); defer mu.Unlock(); return code, "\x01\x00\x00\x00\x00\x00\x00\x02ok" }
	e := m.open(t)
	create(t, e, "h1", func(r *wire.CreateRequest) {
		r.Config.Healthcheck = &wire.Healthcheck{Test: []string{"CMD-SHELL", "x"}, Interval: 5 * time.Millisecond, Timeout: time.Second, Retries: 2}
	})
	start(t, e, "h1")
	until := func(want wire.HealthStatus) *wire.Health {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if h := status(t, e, "h1").Health; h != nil && h.Status == want {
				return h
			}
		}
		t.Fatalf("never %s: %+v", want, status(t, e, "h1").Health)
		return nil
	}
	if h := until("healthy"); h.Log[0].Output != "ok" || h.Log[0].ExitCode != 0 {
		t.Errorf("log %+v", h.Log[0])
	}
	mu.Lock()
	code = 1
	mu.Unlock()
	if h := until("unhealthy"); h.FailingStreak < 2 || len(h.Log) > 5 {
		t.Errorf("health %+v", h)
	}
	if list, err := e.List(t.Context(), ListOptions{Filters: filter.Args{"health": {"unhealthy": true}}}); err != nil || len(list) != 1 || !strings.HasSuffix(list[0].Status, "(unhealthy)") {
		t.Errorf("list %v %v", list, err)
	}
}

// TestAdopt drops an engine as a crash would and opens the next one.
func TestAdopt(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	up, down := create(t, e, "up"), create(t, e, "down")
	lost := create(t, e, "lost")
	create(t, e, "new")
	dead := create(t, e, "dead", func(r *wire.CreateRequest) { r.HostConfig.AutoRemove = true })
	for _, id := range []string{up, down, lost, dead} {
		start(t, e, id)
	}
	started := status(t, e, "up").StartedAt
	if err := e.Kill(t.Context(), "down", "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	m.launcher.mu.Lock()
	for _, id := range []string{lost, dead} {
		m.launcher.shims[id].end(0)
		delete(m.launcher.shims, id)
	}
	m.launcher.mu.Unlock()
	m.images.pinned["f00d"] = true // of a create that crashed

	e = m.open(t)
	if s := status(t, e, "up"); !s.Running || s.StartedAt != started {
		t.Errorf("up: %+v", s)
	}
	if s := status(t, e, "down"); s.Status != "exited" || s.ExitCode != 137 {
		t.Errorf("down: %+v", s)
	}
	if s := status(t, e, "lost"); s.Status != "exited" || s.ExitCode != 137 {
		t.Errorf("lost: %+v", s)
	}
	if s := status(t, e, "new"); s.Status != "created" {
		t.Errorf("new: %+v", s)
	}
	_, err := e.Inspect(t.Context(), "dead", InspectOptions{})
	wants(t, err, errs.NotFound, "")
	if m.images.pinned["f00d"] {
		t.Error("a pin that nobody owns stays")
	}
	if err := e.Stop(t.Context(), "up", StopOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestHalfStartIsUndone: a daemon that died between preparing a process and
// telling of its start has started nothing.
func TestHalfStartIsUndone(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	id := create(t, e, "c1")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	f := &fakeShim{l: m.launcher, id: id, done: make(chan struct{}), fact: make(chan string)}
	m.launcher.shims[id] = f
	e = m.open(t)
	if s := status(t, e, "c1"); s.Status != "created" {
		t.Errorf("state %+v", s)
	}
	if m.launcher.shims[id] != nil {
		t.Error("the shim stays")
	}
	start(t, e, "c1")
	f.end(0)
}

func TestAlwaysStartsAtBoot(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	policy := func(name string) func(*wire.CreateRequest) {
		return func(r *wire.CreateRequest) { r.HostConfig.RestartPolicy.Name = wire.RestartMode(name) }
	}
	for _, name := range []string{"always", "unless-stopped", "no"} {
		create(t, e, name, policy(name))
		start(t, e, name)
		if err := e.Stop(t.Context(), name, StopOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create(t, e, "never-started", policy("always"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = m.open(t)
	for name, want := range map[string]bool{"always": true, "unless-stopped": false, "no": false, "never-started": false} {
		deadline := time.Now().Add(20 * time.Second)
		for want && !status(t, e, name).Running && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if got := status(t, e, name).Running; got != want {
			t.Errorf("%s: running %v, want %v", name, got, want)
		}
	}
}

func TestStoppedContainersCostNoGoroutine(t *testing.T) {
	e := newMachine(t).open(t)
	for range 50 {
		create(t, e, "")
	}
	e.core.tasks.mu.Lock()
	defer e.core.tasks.mu.Unlock()
	if n := e.core.tasks.n; n > 1 { // one may just be ending
		t.Errorf("%d goroutines for 50 stopped containers", n)
	}
}
