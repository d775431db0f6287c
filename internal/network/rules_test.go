package network

import (
	"os/exec"
	"testing"
	"time"

	"gantry/internal/errs"
)

// asserted waits until the rules are there again.
func (b *bench) asserted(t *testing.T) {
	t.Helper()
	begin := time.Now()
	for {
		if _, err := b.stage.bridge.Published(); err == nil {
			return
		} else if !errs.Is(err, errs.NotFound) {
			t.Fatal(err)
		}
		if time.Since(begin) > 5*time.Second {
			t.Fatal("the rules do not come back")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestKept: whatever others take out of the table comes back, at once the first
// time and not in a hot loop.
func TestKept(t *testing.T) {
	b := open(t, nil)
	s := b.attach(t, AttachRequest{Name: "c", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	serve(t, namespace(t, s), 80, "c")
	nft := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v %s", args, err, out)
		}
	}
	for _, how := range [][]string{
		{"flush", "ruleset"},
		{"delete", "table", "inet", b.opts.table()},
		{"flush", "chain", "inet", b.opts.table(), "forward"},
		{"delete", "element", "inet", b.opts.table(), "published", "{ tcp . 8080 }"},
	} {
		nft(how...)
		begin, limit := time.Now(), 10*time.Second
		for ask(nil, "tcp4", "127.0.0.1:8080") != "c 172.20.0.1" || !b.whole() {
			if time.Since(begin) > limit {
				t.Fatalf("%v: not back after %v", how, limit)
			}
			time.Sleep(2 * time.Millisecond)
		}
		t.Logf("%v: back after %v", how, time.Since(begin))
	}
	// Two programs that undo each other's work.
	before := b.generations(t)
	end := time.Now().Add(time.Second)
	for time.Now().Before(end) {
		exec.Command("nft", "flush", "chain", "inet", b.opts.table(), "forward").Run()
		time.Sleep(5 * time.Millisecond)
	}
	if n := b.generations(t) - before; n > 10 {
		t.Errorf("redrawn %d times in a second", n)
	}
	b.detach(t, s.ID)
}

// whole reports whether the forward chain has its rules.
func (b *bench) whole() bool {
	return exec.Command("sh", "-c", "nft list chain inet "+b.opts.table()+" forward | grep -q inward").Run() == nil
}

// generations returns how often the rules have been redrawn.
func (b *bench) generations(t *testing.T) int64 {
	t.Helper()
	return b.stage.bridge.Redrawn()
}
