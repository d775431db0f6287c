package network

import (
	"os/exec"
	"strings"
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

// TestLegacyFilters: nf_tables does not show what iptables-legacy does. It is
// found, and mended by its own tool.
func TestLegacyFilters(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	programs := []string{"iptables-legacy", "ip6tables-legacy"}
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v %s", program, args, err, out)
		}
		return string(out)
	}
	for _, p := range programs {
		if out, err := exec.Command(p, "-P", "FORWARD", "ACCEPT").CombinedOutput(); err != nil {
			t.Skipf("no filters of %s on this machine: %v %s", p, err, out)
		}
		// They stay in the namespace as long as that lives, and drop nothing.
		defer func() {
			run(p, "-F", "FORWARD")
			run(p, "-P", "FORWARD", "ACCEPT")
		}()
	}
	c := b.attach(t, AttachRequest{Name: "web", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	serve(t, namespace(t, c), 80, "web")
	check := func(when, want string, warned, blocked int) {
		t.Helper()
		if got := knock(lan, "tcp4", "192.0.2.2:8080", want); got != want {
			t.Errorf("%s: %q answers, want %q", when, got, want)
		}
		w, err := b.Warnings(ctx)
		if n := strings.Count(strings.Join(w, "\n"), "tables-legacy drops"); err != nil || n != warned {
			t.Errorf("%s: warnings %q, %v", when, w, err)
		}
		l, err := Blocked(b.Networks)
		if n := strings.Count(strings.Join(l, "\n"), "tables-legacy filter/FORWARD drops"); err != nil || n != blocked || len(l) != n {
			t.Errorf("%s: blocked %q, %v", when, l, err)
		}
	}
	check("all accept", "web", 0, 0)
	for _, p := range programs {
		run(p, "-P", "FORWARD", "DROP")
	}
	check("both drop", "-", 2, 2)
	for range 2 { // once is enough
		if err := Unblock(b.Networks); err != nil {
			t.Fatal(err)
		}
		check("mended", "web", 2, 0)
	}
	if rules := run("iptables-legacy", "-S", "FORWARD"); strings.Count(rules, "-A FORWARD") != 2 {
		t.Errorf("rules:\n%s", rules)
	}
	b.detach(t, c.ID)
	b.clean(t)
}
