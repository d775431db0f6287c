package clients

import (
	"net"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// The daemon that follows one that was killed takes the idle bridge off the host
// when it ends. That no bridge and no table is left is what the clean-up of every
// daemon here checks.
func TestIdleBridgeGoesAfterACrash(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "--rm", "busybox", "true")
	bridge := d.OK(t, "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, "bridge")
	if _, err := net.InterfaceByName(bridge); err != nil {
		t.Fatalf("bridge %s: %v", bridge, err)
	}
	time.Sleep(500 * time.Millisecond) // until the container's record has gone, too
	d.Kill()
	d.Start(t)
	d.Stop(t)
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("bridge %s is left", bridge)
	}
}
