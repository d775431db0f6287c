package event_test

import (
	"bytes"
	"fmt"
	"os"
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

func TestResume(t *testing.T) {
	b := event.New()
	defer b.Close()
	_, s := b.Subscribe(time.Time{})
	for i := range 1500 { // the reader's buffer takes 1024 of them
		b.Publish(wire.Event{Actor: wire.EventActor{ID: fmt.Sprint(i)}})
	}
	var last wire.Event
	for e := range s.C {
		last = e
	}
	if !s.Behind() || last.Actor.ID != "1023" {
		t.Fatalf("behind %v, last %s", s.Behind(), last.Actor.ID)
	}
	past, s, whole := b.Resume(last.TimeNano)
	if !whole || len(past) != 1500-1024 || past[0].Actor.ID != "1024" || s.Behind() {
		t.Errorf("%v, %d events, first %s", whole, len(past), past[0].Actor.ID)
	}
	for range event.History {
		b.Publish(wire.Event{})
	}
	if _, _, whole := b.Resume(last.TimeNano); whole {
		t.Error("forgotten events are not missed")
	}
}

func TestTimesAreDistinct(t *testing.T) {
	b := event.New()
	defer b.Close()
	at := wire.Event{Time: 7, TimeNano: 7e9}
	b.Publish(at)
	b.Publish(at)
	past, _ := b.Subscribe(time.Unix(1, 0))
	if len(past) != 2 || past[0].TimeNano != 7e9 || past[1].TimeNano != 7e9+1 {
		t.Errorf("%+v", past)
	}
}

func TestJournal(t *testing.T) {
	path := t.TempDir() + "/events"
	next := 0
	life := func(n int) {
		b := event.New()
		if err := b.Journal(path); err != nil {
			t.Fatal(err)
		}
		past, _ := b.Subscribe(time.Unix(1, 0))
		if want := min(next, event.History); len(past) != want || want > 0 && past[want-1].Actor.ID != fmt.Sprint(next-1) {
			t.Fatalf("%d events remembered, want %d", len(past), want)
		}
		for range n {
			b.Publish(wire.Event{Type: "container", Action: "create", Actor: wire.EventActor{ID: fmt.Sprint(next), Attributes: map[string]string{"a": "b\nc"}}})
			next++
		}
		b.Close()
		b.Close()
	}
	life(3)
	life(0)
	// A line that was not written to its end.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "{\"Type\":\"conta\n")
	f.Close()
	for range 5 {
		life(700)
	}
	life(0)
	data, err := os.ReadFile(path)
	if err != nil || bytes.Count(data, []byte("\n")) > 2*event.History {
		t.Errorf("%d lines, %v", bytes.Count(data, []byte("\n")), err)
	}
}
