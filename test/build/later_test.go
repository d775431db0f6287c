package build_test

import (
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestKilledAfterABuild: what was answered outlives the daemon, whatever became of
// the history, which can be read; the same build is the same image.
func TestKilledAfterABuild(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN echo built >/f\n"})
	c.ok("build", "-t", "kept", ".")
	if list, _ := c.ok("builder", "history", "ls", "--format", "{{.Ref}}"); len(strings.Fields(list)) != 1 {
		t.Errorf("the history has %q at once", list)
	}
	out, said := c.ok("builder", "history", "logs")
	c.has(out+said, "RUN echo built")
	id, _ := c.ok("image", "inspect", "-f", "{{.Id}}", "kept")
	d.Kill()
	d.Start(t)
	c.ok("run", "--rm", "kept", "test", "-s", "/f")
	_, said = c.ok("build", "--progress=plain", "-t", "kept", ".")
	c.has(said, "CACHED")
	if again, _ := c.ok("image", "inspect", "-f", "{{.Id}}", "kept"); again != id {
		t.Errorf("another image: %s, %s", id, again)
	}
	if list, _ := c.ok("builder", "history", "ls", "--format", "{{.Ref}}"); list == "" {
		t.Error("the history is empty")
	}
	d.Stop(t)
	d.Start(t)
	if list, _ := c.ok("builder", "history", "ls", "--format", "{{.Ref}}"); list == "" {
		t.Error("the history of a daemon that has ended is lost")
	}
}
