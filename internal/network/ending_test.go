package network

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

// nothingLeft checks that no link and no table of ours is in the test's host.
func nothingLeft(t *testing.T) {
	t.Helper()
	if l, err := kernelLinks(); err != nil || l != "lo" {
		t.Errorf("links left: %s %v", l, err)
	}
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil || strings.Contains(string(out), "gantry") {
		t.Errorf("tables left: %s %v", out, err)
	}
}

// shut is the end of a daemon that was asked to end.
func (b *bench) shut(t *testing.T) {
	t.Helper()
	if err := b.Close(context.Background(), CloseOptions{Remove: true}); err != nil {
		t.Error(err)
	}
	b.Networks = nil
}

func TestIdleBridgesOfAKilledDaemonGoWithTheNext(t *testing.T) {
	b := open(t, nil)
	made, err := b.Create(context.Background(), wire.NetworkCreate{Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"", "n1"} {
		s := b.attach(t, AttachRequest{Mode: mode})
		b.detach(t, s.ID)
	}
	b.Settle()
	b.reopen(t)
	if l, _ := kernelLinks(); !strings.Contains(l, "gantry0") || !strings.Contains(l, ledger.BridgePrefix+made.ID[:12]) {
		t.Fatalf("the test does not test what it should: links are %s", l)
	}
	b.shut(t)
	nothingLeft(t)
}

func TestTableWithoutBridgeGoes(t *testing.T) {
	b := open(t, nil)
	s := b.attach(t, AttachRequest{})
	b.detach(t, s.ID)
	b.Settle()
	ip(t, "link", "del", "gantry0") // killed between the link and the table
	b.reopen(t)
	nothingLeft(t)
	b.shut(t)
}

func TestNothingIsRaisedAfterTheEnd(t *testing.T) {
	b := open(t, nil)
	s := b.attach(t, AttachRequest{})
	b.detach(t, s.ID)
	w, err := b.book.Find(ledger.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	b.stage.up.end()
	b.Settle()
	if err := b.stage.lower(context.Background(), w); err != nil {
		t.Fatal(err)
	}
	_, err = b.Attach(context.Background(), AttachRequest{ID: strings.Repeat("a", 64)})
	if !errs.Is(err, errs.Unavailable) {
		t.Errorf("an attach after the end: %v", err)
	}
	// The monitor is told of the table's end, and must not draw it again.
	if err := b.stage.bridge.Reassert(); err != nil {
		t.Error(err)
	}
	b.shut(t)
	nothingLeft(t)
}

func TestEndWhileOthersTakeTheRulesOut(t *testing.T) {
	for range 5 {
		b := open(t, nil)
		s := b.attach(t, AttachRequest{})
		b.detach(t, s.ID)
		flushed := make(chan error, 1)
		go func() {
			var all []error
			for range 10 {
				all = append(all, exec.Command("nft", "flush", "ruleset").Run())
			}
			flushed <- errors.Join(all...)
		}()
		b.shut(t)
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		nothingLeft(t)
	}
}

func TestARemovalThatFailsKeepsTheNetwork(t *testing.T) {
	b := open(t, nil)
	if _, err := b.Create(context.Background(), wire.NetworkCreate{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	stuck := errors.New("stuck")
	if _, err := b.book.Delete("n1", func(w ledger.Record) error {
		if _, err := b.book.Find("n1"); !errs.Is(err, errs.NotFound) {
			t.Errorf("a network on its way out is found: %v", err)
		}
		if _, err := b.book.Delete("n1", nil); !errs.Is(err, errs.NotFound) {
			t.Errorf("it is removed twice: %v", err)
		}
		return stuck
	}); !errors.Is(err, stuck) {
		t.Errorf("Delete: %v", err)
	}
	b.reopen(t)
	if err := b.Remove(context.Background(), "n1"); err != nil {
		t.Error(err)
	}
}
