package build

import (
	"net"
	"testing"
	"time"

	"github.com/moby/buildkit/session"
)

func TestASessionEndsWhenItsClientHangsUp(t *testing.T) {
	m, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- handleSession(t.Context(), m, theirs, map[string][]string{"X-Docker-Expose-Session-Uuid": {"s"}})
	}()
	if c, err := m.Get(t.Context(), "s", false); err != nil || c == nil {
		t.Fatal(c, err)
	}
	ours.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second): // the manager's own way takes ten
		t.Error("it goes on")
	}
	if c, _ := m.Get(t.Context(), "s", true); c != nil {
		t.Error("it is there still")
	}
}
