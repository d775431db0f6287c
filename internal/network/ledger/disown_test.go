package ledger

import (
	"net/netip"
	"testing"
	"time"

	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
)

// TestDisown: the daemon was killed between a container's end and the removal
// of its record, when another one had its port already.
func TestDisown(t *testing.T) {
	port := func(n uint16) nat.Port { return nat.Port{HostIP: netip.IPv4Unspecified(), HostPort: n} }
	entry := func(ports ...nat.Port) *Entry { return &Entry{Links: []driver.Endpoint{{Ports: ports}}} }
	now := time.Now()
	entries := map[string]*Entry{"old": entry(port(80), port(81)), "new": entry(port(80)), "other": entry(port(82))}
	disown(entries, map[string]time.Time{"old": now.Add(-time.Second), "new": now, "other": now.Add(time.Second)})
	if p := entries["old"].Links[0].Ports; len(p) != 1 || p[0].HostPort != 81 {
		t.Errorf("the one before has %v", p)
	}
	if len(entries["new"].Links[0].Ports) != 1 || len(entries["other"].Links[0].Ports) != 1 {
		t.Errorf("%v %v", entries["new"].Links, entries["other"].Links)
	}
}
