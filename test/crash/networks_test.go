package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestKilledDuringConnects kills the daemon in the middle of 100 connects and
// disconnects, all at once: after its return nothing is left that has no owner,
// what the books say is what the containers have, and when all have gone every
// address of the networks can be given out again.
func TestKilledDuringConnects(t *testing.T) {
	const containers, networks, addresses = 10, 10, 5 // of a /29 with its gateway
	d := testkit.StartBusybox(t)
	for n := range networks {
		d.OK(t, "network", "create", "--subnet", fmt.Sprintf("10.83.%d.0/29", n), fmt.Sprint("n", n))
	}
	for c := range containers {
		d.OK(t, "run", "-d", "--name", fmt.Sprint("c", c), "-p", "127.0.0.1::80", "busybox", "sleep", "600")
	}
	change := func(what string, n, c int) error {
		body, err := json.Marshal(map[string]string{"Container": fmt.Sprint("c", c)})
		if err != nil {
			return err
		}
		r, err := d.Client().Post(fmt.Sprintf("http://d/networks/n%d/%s", n, what), "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s c%d n%d: %s %s", what, c, n, r.Status, text)
		}
		return nil
	}
	for _, what := range []string{"connect", "disconnect"} {
		var all sync.WaitGroup
		for i := range containers * networks {
			// Some of them can't be: a network has fewer addresses than there
			// are containers. What matters is what is left.
			all.Go(func() {
				if change(what, i%networks, i/networks) == nil && i%3 == 0 {
					_ = change("disconnect", i%networks, i/networks)
				}
			})
		}
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond)
		d.Kill()
		all.Wait()
		d.Start(t)
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("%ss: doctor after the return: %v\n%s", what, err, out)
		}
	}
	for c := range containers {
		name := fmt.Sprint("c", c)
		want := strings.Fields(d.OK(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", name))
		if got := d.OK(t, "exec", name, "ip", "-4", "addr"); strings.Count(got, "inet ") != len(want)+1 {
			t.Errorf("%s has %v by the books, and\n%s", name, want, got)
		} else {
			for _, a := range want {
				if !strings.Contains(got, "inet "+a+"/") {
					t.Errorf("%s lacks %s:\n%s", name, a, got)
				}
			}
		}
	}
	for n := range networks {
		for c := range containers {
			_ = change("disconnect", n, c) // of those that are on it
		}
		for c := range addresses {
			if err := change("connect", n, c); err != nil {
				t.Errorf("an address of n%d is lost: %v", n, err)
			}
		}
		if change("connect", n, addresses) == nil {
			t.Errorf("n%d gives an address twice", n)
		}
	}
	if out, err := d.Gantry("doctor"); err != nil {
		t.Errorf("doctor at the end: %v\n%s", err, out)
	}
}
