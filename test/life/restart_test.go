package life

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestPoliciesAfterAnEnd: where containers end with the daemon, restart policies say
// which the next one starts. A user's stop stands, but not against "always".
func TestPoliciesAfterAnEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	write(t, file, `{"live-restore":false,"shutdown-timeout":2}`)
	d := testkit.StartBusybox(t, "--config-file", file)
	run := func(name string, flags ...string) {
		args := append([]string{"run", "-d", "--name", name, "--network", "none", "--init"}, flags...)
		d.OK(t, append(args, "busybox", "sleep", "1000")...)
	}
	run("none")
	run("gone", "--rm")
	for _, p := range []string{"always", "unless-stopped", "on-failure"} {
		run(p, "--restart", p)
		run(p+"-stopped", "--restart", p)
		d.OK(t, "stop", "-t", "0", p+"-stopped")
	}
	d.OK(t, "create", "--name", "never-ran", "--restart", "always", "busybox", "sleep", "1000")
	want := "always running|always-stopped running|never-ran created|none exited|on-failure running|on-failure-stopped exited|unless-stopped running|unless-stopped-stopped exited"
	states := func() string {
		var out []string
		for line := range strings.Lines(d.OK(t, "ps", "-a", "--format", "{{.Names}} {{.State}}")) {
			out = append(out, strings.TrimSpace(line))
		}
		return sorted(out)
	}
	for _, how := range []string{"the first end", "a second end"} {
		d.Stop(t)
		d.Start(t)
		testkit.Eventually(t, "policies after "+how, func() bool { return states() == want })
		if got := states(); got != want {
			t.Fatalf("after %s: %s", how, got)
		}
		if got := d.OK(t, "inspect", "-f", "{{.RestartCount}}", "unless-stopped"); got != "0" {
			t.Errorf("after %s it counts %s restarts", how, got)
		}
	}
	// Who is started by hand is under its policy again.
	d.OK(t, "start", "unless-stopped-stopped")
	d.Stop(t)
	d.Start(t)
	want = strings.Replace(want, "unless-stopped-stopped exited", "unless-stopped-stopped running", 1)
	testkit.Eventually(t, "the policy of one that was started again", func() bool { return states() == want })
	d.OK(t, append([]string{"rm", "-f"}, strings.Fields(d.OK(t, "ps", "-aq"))...)...)
}

func sorted(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "|")
}
