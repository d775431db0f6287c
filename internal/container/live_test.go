package container

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/store"
	"gantry/internal/wire"
)

func update(t *testing.T, e *Engine, ref string, x wire.UpdateExtra) error {
	t.Helper()
	_, err := e.Update(t.Context(), ref, wire.UpdateRequest{Gantry: &x})
	return err
}

func tmpfsAt(target string) wire.Mount { return wire.Mount{Type: "tmpfs", Target: target} }

func volumeAt(name, target string) wire.Mount {
	return wire.Mount{Type: "volume", Source: name, Target: target}
}

func publish(t *testing.T, hostPort string) *wire.PortMap {
	t.Helper()
	p, err := wire.ParsePort("80")
	if err != nil {
		t.Fatal(err)
	}
	return &wire.PortMap{p: {{HostIP: netip.IPv4Unspecified(), HostPort: hostPort}}}
}

// targets are the places of a container's mounts, as its record has them.
func targets(t *testing.T, e *Engine, ref string) string {
	t.Helper()
	a, err := e.core.table.find(ref)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range a.view().rec.Plan.Mounts {
		out = append(out, m.Target)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// realMounts are the places of the mounts that the process has.
func realMounts(t *testing.T, m *machine, id string) string {
	t.Helper()
	f := m.launcher.shim(t, id)
	m.launcher.mu.Lock()
	defer m.launcher.mu.Unlock()
	var out []string
	for at := range f.mounts {
		out = append(out, at)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func claims(t *testing.T, m *machine, name string) bool {
	t.Helper()
	vols, err := m.volumes.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vols {
		if v.Name == name {
			return v.UsageData.RefCount > 0
		}
	}
	return false
}

// stored reads what is stored of a container.
func stored(t *testing.T, m *machine, id string) Record {
	t.Helper()
	var r Record
	err := m.db.View(func(tx *store.Tx) (err error) { r, err = records.Get(tx, id); return err })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEditIsAllOrNothing(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	id := create(t, e, "box", func(r *wire.CreateRequest) { r.HostConfig.Binds = []string{"old:/old"} })
	start(t, e, "box")
	m.launcher.badMount = "/bad"
	err := update(t, e, "box", wire.UpdateExtra{
		RemoveMounts: []string{"/old"}, AddMounts: []wire.Mount{volumeAt("fresh", "/a"), tmpfsAt("/bad")},
		PublishedPorts: publish(t, "8080"), Labels: map[string]string{"k": "v"},
	})
	wants(t, err, errs.Unknown, "Cannot update container "+id+": mount /bad: attach: no such device")
	if got := targets(t, e, "box") + "; " + realMounts(t, m, id); got != "/old; /old" {
		t.Errorf("mounts after a failure: %s", got)
	}
	if last := m.launcher.published[len(m.launcher.published)-1]; len(last) != 0 {
		t.Errorf("ports after a failure: %v", last)
	}
	r := stored(t, m, id)
	if r.Before != nil || r.Plan.Labels["k"] != "" || claims(t, m, "fresh") || !claims(t, m, "old") {
		t.Errorf("after a failure: %+v", r)
	}
	if err := update(t, e, "box", wire.UpdateExtra{RemoveMounts: []string{"/old"}, AddMounts: []wire.Mount{volumeAt("fresh", "/a"), {Type: "volume", Target: "/anon"}}}); err != nil {
		t.Fatal(err)
	}
	if got := targets(t, e, "box") + "; " + realMounts(t, m, id); got != "/a /anon; /a /anon" {
		t.Errorf("mounts: %s", got)
	}
	if !claims(t, m, "fresh") || claims(t, m, "old") {
		t.Error("the claims have not followed")
	}
	if r := stored(t, m, id); r.Before != nil || len(r.Plan.Mounts) != 2 || len(r.Plan.Mounts[1].Name) != 64 {
		t.Errorf("record: %+v", r.Plan.Mounts)
	}
	if err := e.Remove(t.Context(), "box", RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if list, _ := m.volumes.List(t.Context(), nil); len(list.Volumes) != 2 {
		t.Errorf("volumes: %v", list.Volumes)
	}
}

func TestEditOfOneThatIsDown(t *testing.T) {
	m := newMachine(t)
	e := m.open(t)
	id := create(t, e, "box")
	if err := update(t, e, "box", wire.UpdateExtra{AddMounts: []wire.Mount{volumeAt("data", "/data")}, PublishedPorts: publish(t, "666")}); err != nil {
		t.Fatal(err)
	}
	if got := targets(t, e, "box"); got != "/data" || !claims(t, m, "data") || len(m.launcher.published) != 0 {
		t.Errorf("mounts %s, published %v", got, m.launcher.published)
	}
	start(t, e, "box")
	if got := realMounts(t, m, id); got != "/data" {
		t.Errorf("mounts of the process: %s", got)
	}
	wants(t, update(t, e, "nobody", wire.UpdateExtra{}), errs.NotFound, "No such container: nobody")
}

// TestEditResumed ends the daemon in the middle of an edit: whoever comes next
// finds the intent and carries it out, or takes it back if that can't be done.
func TestEditResumed(t *testing.T) {
	for _, c := range []struct {
		name, port, bad, want string
		dies                  bool // the container ends with the daemon
	}{
		{"forwards", "8080", "", "/new", false},
		{"back", "8080", "/new", "/old", false},
		{"down", "8080", "", "/new", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.launcher.stuck = make(chan struct{})
			e := m.open(t)
			id := create(t, e, "box", func(r *wire.CreateRequest) { r.HostConfig.Binds = []string{"old:/old"} })
			start(t, e, "box")
			failed := make(chan error, 1)
			go func() {
				failed <- update(t, e, "box", wire.UpdateExtra{
					RemoveMounts: []string{"/old"}, AddMounts: []wire.Mount{volumeAt("new", "/new")}, PublishedPorts: publish(t, c.port),
				})
			}()
			for deadline := time.Now().Add(20 * time.Second); len(m.publishes()) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing is published")
				}
			}
			closed := make(chan struct{})
			go func() { e.Close(); close(closed) }()
			if err := receive(t, failed); err == nil {
				t.Error("the edit has succeeded without a daemon")
			}
			if r := stored(t, m, id); r.Before == nil {
				t.Fatal("no intent is stored")
			}
			before := m.snapshot(t)
			close(m.launcher.stuck)
			<-closed
			m.restore(t, before, id)

			m.launcher.stuck, m.launcher.badMount = nil, c.bad
			if c.dies {
				m.launcher.shim(t, id).end(3)
				m.launcher.mu.Lock()
				delete(m.launcher.shims, id)
				m.launcher.mu.Unlock()
			}
			e = m.open(t)
			if got := targets(t, e, "box"); got != c.want {
				t.Errorf("mounts on record: %s", got)
			}
			if !c.dies && realMounts(t, m, id) != c.want {
				t.Errorf("mounts of the process: %s", realMounts(t, m, id))
			}
			if claims(t, m, "old") != (c.want == "/old") || claims(t, m, "new") != (c.want == "/new") {
				t.Error("the claims have not followed")
			}
			if r := stored(t, m, id); r.Before != nil {
				t.Error("the intent stays")
			}
		})
	}
}

func (m *machine) publishes() []wire.PortMap {
	m.launcher.mu.Lock()
	defer m.launcher.mu.Unlock()
	return slices.Clone(m.launcher.published)
}

// snapshot is the record of every container as it is on the disk now, and
// restore puts it back: what a daemon that was killed could not write any more.
func (m *machine) snapshot(t *testing.T) map[string]Record {
	t.Helper()
	all := map[string]Record{}
	err := m.db.View(func(tx *store.Tx) error {
		for _, k := range records.Keys(tx) {
			r, err := records.Get(tx, k)
			if err != nil {
				return err
			}
			all[k] = r
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (m *machine) restore(t *testing.T, all map[string]Record, id string) {
	t.Helper()
	err := m.db.Update(func(tx *store.Tx) error { return records.Put(tx, id, all[id]) })
	if err != nil {
		t.Fatal(err)
	}
	m.launcher.mu.Lock()
	defer m.launcher.mu.Unlock()
	m.launcher.shims[id].mounts = map[string]string{"/old": ""}
}

// TestEditWaitsForTheStart: an edit that comes while a start is under way is
// neither lost nor applied twice.
func TestEditWaitsForTheStart(t *testing.T) {
	m := newMachine(t)
	m.launcher.slow = make(chan struct{})
	e := m.open(t)
	id := create(t, e, "box")
	started := make(chan error, 1)
	go func() { started <- e.Start(t.Context(), "box") }()
	for status(t, e, "box").Status != "created" || phase(t, e, "box") != Starting {
		time.Sleep(time.Millisecond)
	}
	edited := make(chan error, 1)
	go func() { edited <- update(t, e, "box", wire.UpdateExtra{AddMounts: []wire.Mount{tmpfsAt("/t")}}) }()
	select {
	case err := <-edited:
		t.Fatalf("the edit has not waited: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(m.launcher.slow)
	if err := receive(t, started); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, edited); err != nil {
		t.Fatal(err)
	}
	if got := realMounts(t, m, id); got != "/t" {
		t.Errorf("mounts: %s", got)
	}
}

func phase(t *testing.T, e *Engine, ref string) Phase {
	t.Helper()
	a, err := e.core.table.find(ref)
	if err != nil {
		t.Fatal(err)
	}
	return a.view().state.Phase
}
