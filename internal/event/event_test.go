package event_test

import (
	"fmt"
	"testing"
	"time"

	"gantry/internal/event"
	"gantry/internal/wire"
)

func TestSubscribeHasNoGap(t *testing.T) {
	b := event.New()
	defer b.Close()
	start := time.Now()
	b.Publish(wire.Event{Action: "create"})
	past, s := b.Subscribe(start)
	b.Publish(wire.Event{Action: "start"})
	if len(past) != 1 || past[0].Action != "create" {
		t.Errorf("past = %v", past)
	}
	e := <-s.C
	if e.Action != "start" || e.TimeNano == 0 || e.Scope != "local" {
		t.Errorf("live = %+v", e)
	}
}

func TestZeroSinceAsksForNoHistory(t *testing.T) {
	b := event.New()
	defer b.Close()
	b.Publish(wire.Event{Action: "create"})
	if past, _ := b.Subscribe(time.Time{}); len(past) != 0 {
		t.Errorf("past = %v", past)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	b := event.New()
	defer b.Close()
	for i := range event.History + 10 {
		b.Publish(wire.Event{Actor: wire.EventActor{ID: fmt.Sprint(i)}})
	}
	past, _ := b.Subscribe(time.Unix(1, 0))
	if len(past) != event.History || past[0].Actor.ID != "10" {
		t.Errorf("%d events, first %q", len(past), past[0].Actor.ID)
	}
}

func TestSlowListenerIsCutOff(t *testing.T) {
	b := event.New()
	defer b.Close()
	_, slow := b.Subscribe(time.Time{})
	for range 5000 {
		b.Publish(wire.Event{})
	}
	n := 0
	for range slow.C {
		n++
	}
	if n == 0 || n >= 5000 {
		t.Errorf("slow listener got %d events", n)
	}
	if b.Listeners() != 0 {
		t.Error("the slow listener is still subscribed")
	}
	slow.Close()
}
