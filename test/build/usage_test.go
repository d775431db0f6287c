package build_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	units "github.com/docker/go-units"

	"gantry/internal/testkit"
)

// TestCacheUsage: system df and builder du say the same of the build cache, and
// layers of a stage that no image has are nobody else's.
func TestCacheUsage(t *testing.T) {
	d := testkit.StartBusybox(t)
	c := newCLI(t, d, map[string]string{
		"Dockerfile": "FROM busybox AS tools\nRUN head -c 3000000 /dev/zero >/f\nRUN head -c 2000000 /dev/zero >/g\nFROM busybox\nCOPY --from=tools /g /g\n" +
			"RUN --mount=type=cache,target=/c head -c 100000 /dev/zero >/c/x; echo a >/b\n",
	})
	c.ok("build", "-t", "made", ".")
	du, _ := c.ok("builder", "du", "--format", "json")
	var total, private, count int64
	for line := range strings.Lines(du) {
		var r struct {
			Size        int64
			Shared      bool
			Description string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		total, count = total+r.Size, count+1
		if !r.Shared {
			private += r.Size
		}
		if strings.Contains(r.Description, "/dev/zero >/f") && r.Shared {
			t.Errorf("shared, though no image has it: %s", line)
		}
	}
	df, _ := c.ok("system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}|{{.Reclaimable}}")
	row := df[strings.Index(df, "Build Cache|"):]
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	if want := strings.Join([]string{"Build Cache", strconv.FormatInt(count, 10), size(total), size(private)}, "|"); strings.TrimSpace(row) != want {
		t.Errorf("system df says %q, builder du %q:\n%s", row, want, du)
	}
	if private < 5_000_000 {
		t.Errorf("%d bytes are the cache's own", private)
	}
	table, _ := c.ok("builder", "du")
	c.has(strings.Join(strings.Fields(table), " "), "Private: "+size(private), "Total: "+size(total))
}

// TestTheLayerJustBuiltStays: a budget that is far too small takes all of the build
// cache but the layer that was built last, and what lies below it.
func TestTheLayerJustBuiltStays(t *testing.T) {
	d := testkit.StartBusybox(t, "--disk-budget", "1mb")
	c := newCLI(t, d, map[string]string{
		"first":  "FROM busybox\nRUN head -c 3000000 /dev/zero >/first\n",
		"second": "FROM busybox\nRUN head -c 2000000 /dev/zero >/below\nRUN head -c 1000000 /dev/zero >/last\n",
	})
	c.ok("build", "-f", "first", "-o", "type=cacheonly", ".")
	c.ok("build", "-f", "second", "-o", "type=cacheonly", ".")
	c.ok("run", "--rm", "busybox", "true") // its removal makes the keeper look
	has := func(what string) bool {
		out, _ := c.ok("builder", "du", "--verbose")
		return strings.Contains(out, what)
	}
	testkit.Eventually(t, "the older layer goes", func() bool { return !has("/first") })
	_, progress := c.ok("build", "-f", "second", "-o", "type=cacheonly", "--progress", "plain", ".")
	if got := strings.Count(progress, " CACHED\n"); got < 2 || !has("/below") || !has("/last") {
		t.Errorf("%d steps were cached:\n%s", got, progress)
	}
}
