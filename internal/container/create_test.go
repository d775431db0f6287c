package container

import (
	"testing"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// TestCreateLooksUpNames: what a request names must be there, and is known by
// its ID from then on.
func TestCreateLooksUpNames(t *testing.T) {
	e := newMachine(t).open(t)
	other := create(t, e, "other")
	made := func(h wire.HostConfig) error {
		_, err := e.Create(t.Context(), CreateOptions{Request: wire.CreateRequest{Config: &wire.ContainerConfig{Image: "busybox"}, HostConfig: &h}})
		return err
	}
	for _, c := range []struct {
		host wire.HostConfig
		kind errs.Kind
		text string
	}{
		{wire.HostConfig{PidMode: "container:nosuch"}, errs.Invalid, "No such container: nosuch"},
		{wire.HostConfig{IpcMode: "container:nosuch"}, errs.Invalid, "No such container: nosuch"},
		{wire.HostConfig{Links: []string{"nosuch:alias"}}, errs.Invalid, "could not get container for nosuch: No such container: nosuch"},
		{wire.HostConfig{Mounts: []wire.Mount{{Type: "image", Source: "nosuch", Target: "/x"}}}, errs.Invalid, "mount /x: No such image: nosuch"},
	} {
		wants(t, made(c.host), c.kind, c.text)
	}
	if err := made(wire.HostConfig{NetworkMode: "container:later"}); err != nil {
		t.Errorf("a network is joined at start: %v", err)
	}
	create(t, e, "joins", func(r *wire.CreateRequest) {
		r.HostConfig.NetworkMode, r.HostConfig.PidMode = "container:other", "container:other"
	})
	a, err := e.Control.table.find("joins")
	if err != nil {
		t.Fatal(err)
	}
	p := a.view().rec.Plan
	if p.Namespaces.Network.Container != other || p.Namespaces.PID.Container != other || p.HostConfig.PidMode != "container:other" {
		t.Errorf("%+v, %s", p.Namespaces, p.HostConfig.PidMode)
	}
	wants(t, e.Start(t.Context(), "joins"), errs.Conflict, "cannot join network namespace of a non running container: container other is created")
}
