package clients_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/wire"
)

// eventTold returns an event as one line without what differs from run to run.
func eventTold(e wire.Event, names map[string]string) string {
	attrs := make([]string, 0, len(e.Actor.Attributes))
	for _, k := range []string{"comment", "container", "destination", "driver", "execID", "execDuration", "exitCode", "image", "imageID", "imageRef", "name", "oldName", "propagation", "read/write", "reclaimed", "signal", "type", "height", "width", "l"} {
		v, ok := e.Actor.Attributes[k]
		switch {
		case !ok:
			continue
		case k == "execID", k == "execDuration", k == "imageID":
			v = "…"
		case names[v] != "":
			v = names[v]
		}
		attrs = append(attrs, k+"="+v)
	}
	line := string(e.Type) + " " + string(e.Action) + " (" + strings.Join(attrs, ", ") + ")"
	if len(attrs) != len(e.Actor.Attributes) {
		line += " and more attributes"
	}
	return line
}

// TestEventStory does what the recorded client did and compares what it was
// told: every action with its attributes, in Docker's order.
func TestEventStory(t *testing.T) {
	d := testkit.StartBusybox(t)
	do := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequest(method, "http://gantry/v1.56"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := d.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 400 {
			t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, data, err)
		}
		var made struct{ ID string }
		_ = json.Unmarshal(data, &made)
		return made.ID
	}
	names := map[string]string{}
	began := time.Now()
	c := do("POST", "/containers/create?name=c1", `{"Image":"busybox:latest","Cmd":["sleep","1000"],"HostConfig":{"Binds":["v1:/v"]}}`)
	names[c] = "<c>"
	do("POST", "/containers/c1/start", "")
	do("POST", "/containers/c1/pause", "")
	do("POST", "/containers/c1/unpause", "")
	do("POST", "/containers/c1/rename?name=c2", "")
	do("POST", "/containers/c2/update", `{"Memory":134217728,"MemorySwap":268435456}`)
	do("POST", "/containers/c2/kill?signal=WINCH", "")
	do("GET", "/containers/c2/top", "")
	do("POST", "/containers/c2/restart?t=0", "")
	x := do("POST", "/containers/c2/exec", `{"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","exit 4"]}`)
	do("POST", "/exec/"+x+"/start", `{"Detach":true}`)
	waitForEvent(t, d, began, "exec_die")
	do("POST", "/containers/c2/stop?t=0", "")
	do("DELETE", "/containers/c2", "")
	do("DELETE", "/volumes/v1", "")
	do("POST", "/volumes/create", `{"Name":"v2","Labels":{"l":"1"}}`)
	do("DELETE", "/volumes/v2", "")
	do("POST", "/networks/create", `{"Name":"n1"}`)
	do("DELETE", "/networks/n1", "")
	do("POST", "/images/busybox/tag?repo=bb&tag=1", "")
	do("DELETE", "/images/bb:1", "")
	do("POST", "/containers/prune", "")
	do("POST", "/images/prune", "")
	do("POST", "/networks/prune", "")
	do("POST", "/volumes/prune", "")
	do("POST", "/build/prune", "")

	box := "image=busybox:latest, name="
	want := strings.Split(strings.TrimSpace(`
volume create (driver=local)
container create (`+box+`c1)
network connect (container=<c>, name=bridge, type=bridge)
volume mount (container=<c>, destination=/v, driver=local, propagation=, read/write=true)
container start (`+box+`c1)
container pause (`+box+`c1)
container unpause (`+box+`c1)
container rename (`+box+`c2, oldName=/c1)
container update (`+box+`c2)
container kill (`+box+`c2, signal=28)
container top (`+box+`c2)
container kill (`+box+`c2, signal=15)
container kill (`+box+`c2, signal=9)
network disconnect (container=<c>, name=bridge, type=bridge)
volume unmount (container=<c>, driver=local)
container stop (`+box+`c2)
container die (execDuration=…, exitCode=137, `+box+`c2)
network connect (container=<c>, name=bridge, type=bridge)
volume mount (container=<c>, destination=/v, driver=local, propagation=, read/write=true)
container start (`+box+`c2)
container restart (`+box+`c2)
container exec_create: sh -c exit 4 (execID=…, `+box+`c2)
container exec_start: sh -c exit 4 (execID=…, `+box+`c2)
container exec_die (execID=…, exitCode=4, `+box+`c2)
container kill (`+box+`c2, signal=15)
container kill (`+box+`c2, signal=9)
network disconnect (container=<c>, name=bridge, type=bridge)
volume unmount (container=<c>, driver=local)
container die (execDuration=…, exitCode=137, `+box+`c2)
container stop (`+box+`c2)
container destroy (`+box+`c2)
volume destroy (driver=local)
volume create (driver=local)
volume destroy (driver=local)
network create (name=n1, type=bridge)
network destroy (name=n1, type=bridge)
image tag (name=bb:1)
image untag (name=bb:1)
container prune (reclaimed=0)
network prune (reclaimed=0)
volume prune (reclaimed=0)
builder prune (reclaimed=0)`), "\n")
	var got []string
	for _, e := range eventsSince(t, d, began, "") {
		got = append(got, eventTold(e, names))
	}
	if diff := unordered(want, got); diff != "" {
		t.Errorf("%s\n--- told\n%s", diff, strings.Join(got, "\n"))
	}

	// The past outlives the daemon, a killed one too.
	time.Sleep(1200 * time.Millisecond)
	d.Kill()
	d.Start(t)
	var again []string
	for _, e := range eventsSince(t, d, began, "") {
		again = append(again, eventTold(e, names))
	}
	if strings.Join(again[:min(len(got), len(again))], "\n") != strings.Join(got, "\n") {
		t.Errorf("after a restart:\n%s", strings.Join(again, "\n"))
	}
	for filter, n := range map[string]int{
		`{"type":["volume"]}`: 9, `{"event":["exec_create"]}`: 1, `{"container":["c2"],"event":["kill"]}`: 5, `{"volume":["v2"]}`: 2,
		`{"network":["n1"]}`: 2, `{"type":["builder"]}`: 1, `{"type":["node"]}`: 0, `{"scope":["swarm"]}`: 0, `{"image":["busybox"],"event":["die"]}`: 2,
		`{"daemon":["x"]}`: 0, `{"plugin":["x"]}`: 0, `{"service":["x"]}`: 0, `{"secret":["x"]}`: 0, `{"config":["x"]}`: 0, `{"label":["x"]}`: 0,
	} {
		if list := eventsSince(t, d, began, filter); len(list) != n {
			t.Errorf("%s: %d events, want %d", filter, len(list), n)
		}
	}
}

// unordered compares two lists in which neighbours may have changed places: of
// what happens at once in several parts, none is the first.
func unordered(want, got []string) string {
	left := append([]string{}, got...)
	var missing []string
	for i, w := range want {
		found := -1
		for j, g := range left {
			if g == w {
				found = j
				break
			}
		}
		if found < 0 || found > 4 {
			missing = append(missing, want[i])
			continue
		}
		left = append(left[:found], left[found+1:]...)
	}
	if len(missing)+len(left) == 0 {
		return ""
	}
	return "missing, or out of place:\n" + strings.Join(missing, "\n") + "\ntoo many:\n" + strings.Join(left, "\n")
}

func eventsSince(t *testing.T, d *testkit.Daemon, since time.Time, filters string) []wire.Event {
	t.Helper()
	q := "since=" + stamp(since) + "&until=" + stamp(time.Now()) + "&filters=" + strings.ReplaceAll(filters, `"`, "%22")
	resp, err := d.Client().Get("http://gantry/v1.56/events?" + q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []wire.Event
	for dec := json.NewDecoder(resp.Body); ; {
		var e wire.Event
		if err := dec.Decode(&e); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
}

func stamp(at time.Time) string {
	return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
}

func waitForEvent(t *testing.T, d *testkit.Daemon, since time.Time, action string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(eventsSince(t, d, since, `{"event":["`+action+`"]}`)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no event %s", action)
		}
	}
}

// TestSlowEventReader: a client that does not read delays nobody, and gets
// everything, or an end that can't be taken for the real one.
func TestSlowEventReader(t *testing.T) {
	d := testkit.StartBusybox(t)
	resp, err := d.Client().Get("http://gantry/v1.56/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	worst := time.Duration(0)
	const rounds = 1500
	for range rounds {
		began := time.Now()
		for _, path := range []string{"repo=slow&tag=1", ""} {
			method, url := "POST", "http://gantry/v1.56/images/busybox/tag?"+path
			if path == "" {
				method, url = "DELETE", "http://gantry/v1.56/images/slow:1"
			}
			req, _ := http.NewRequest(method, url, nil)
			r, err := d.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
		}
		worst = max(worst, time.Since(began))
	}
	n := 0
	sc := bufio.NewScanner(resp.Body)
	timer := time.AfterFunc(3*time.Second, func() { resp.Body.Close() })
	defer timer.Stop()
	for n < 2*rounds && sc.Scan() {
		if bytes.Contains(sc.Bytes(), []byte(`"slow:1"`)) {
			n++
		}
	}
	if n < 2*rounds && (sc.Err() == nil || !strings.Contains(sc.Err().Error(), "unexpected EOF")) {
		t.Errorf("%d of %d events and then %v", n, 2*rounds, sc.Err())
	}
	if worst > 5*time.Second {
		t.Errorf("a slow reader delays others: %v", worst)
	}
}
