package cli

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestPruneAsksFirst(t *testing.T) {
	f := newFake(t)
	f.mux.HandleFunc("POST /containers/prune", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"ContainersDeleted":["a1","b2"],"SpaceReclaimed":12270}`)
	})
	const question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
	if r := run(t, f.host, "n\n", "container", "prune"); r.out != question || r.code != 1 || f.seen() != "" {
		t.Errorf("no: got %+v after %s", r, f.seen())
	}
	if r := run(t, f.host, "", "container", "prune"); r.code != 1 || f.seen() != "" {
		t.Errorf("nobody answers: got %+v", r)
	}
	const deleted = "Deleted Containers:\na1\nb2\n\nTotal reclaimed space: 12.27kB\n"
	if r := run(t, f.host, "y\n", "container", "prune"); r != (result{out: question + deleted}) {
		t.Errorf("yes: got %+v", r)
	}
	if r := run(t, f.host, "", "container", "prune", "-f"); r != (result{out: deleted}) {
		t.Errorf("forced: got %+v", r)
	}
}

func TestDoctor(t *testing.T) {
	f := newFake(t)
	f.mux.HandleFunc("GET /gantry/doctor", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Findings":[{"Kind":"link","Name":"gt1","Owner":"0123456789abcdef"}]}`)
	})
	f.mux.HandleFunc("POST /gantry/doctor", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "fix=1" {
			t.Errorf("asked %s", r.URL.RawQuery)
		}
		io.WriteString(w, `{"Findings":[{"Kind":"link","Name":"gt1","Fixed":true}]}`)
	})
	if r := run(t, f.host, "", "doctor"); r != (result{"KIND      NAME      OWNER          STATE\nlink      gt1       0123456789ab   left over\n", "1 found\n", 1}) {
		t.Errorf("got %+v", r)
	}
	if r := run(t, f.host, "", "doctor", "--fix"); r.code != 0 || r.err != "" {
		t.Errorf("got %+v", r)
	}
}

func TestAnUnreachableDaemonGivesTheSignalsBack(t *testing.T) {
	f := newFake(t)
	a := &App{global: globalFor(f.host)}
	if _, err := a.client(); err != nil {
		t.Fatal(err)
	}
	f.fail["/kill"] = "409 is not running"
	if err := sendSignal(t.Context(), a, "c", 15); err != nil {
		t.Errorf("a refusal is no loss: %v", err)
	}
	b := &App{global: globalFor("unix:///nonexistent")}
	if _, err := b.client(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := sendSignal(t.Context(), b, "c", 15); err == nil || errors.Is(err, errInterrupted) || time.Since(start) > signalTimeout {
		t.Errorf("got %v", err)
	}
}
