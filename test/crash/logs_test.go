package crash

import (
	"bufio"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestShippedLogsSurviveTheDaemon kills the daemon again and again while it sends
// a container's log to a syslog server, and the server now and then: every line
// arrives, in order, also those that the container wrote while no daemon was
// there and after which it ended.
func TestShippedLogsSurviveTheDaemon(t *testing.T) {
	d := testkit.StartBusybox(t)
	var mu sync.Mutex
	var lines []string
	var conns []net.Conn
	addr := "127.0.0.1:0"
	serve := func() net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		addr = l.Addr().String()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				go func() {
					for in := bufio.NewScanner(c); in.Scan(); {
						mu.Lock()
						lines = append(lines, in.Text())
						mu.Unlock()
					}
					c.Close()
				}()
			}
		}()
		return l
	}
	l := serve()
	d.OK(t, "run", "-d", "--name", "counter", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+addr, "busybox",
		"sh", "-c", "i=0; while [ $i -lt 250 ]; do echo n $i; i=$((i+1)); sleep 0.01; done")
	for round := range 4 {
		time.Sleep(300 * time.Millisecond)
		d.Kill()
		if round == 2 {
			l.Close()
			mu.Lock()
			for _, c := range conns {
				c.Close()
			}
			mu.Unlock()
			l = serve()
		}
		if round == 3 {
			time.Sleep(3 * time.Second) // it ends meanwhile
		}
		d.Start(t)
	}
	defer l.Close()
	counted := func() int {
		mu.Lock()
		defer mu.Unlock()
		next := 0
		for _, text := range lines {
			if strings.HasSuffix(text, " n "+strconv.Itoa(next)) {
				next++
			}
		}
		return next
	}
	for end := time.Now().Add(15 * time.Second); counted() < 250; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of 250 lines arrived in order, %d in all", counted(), len(lines))
		}
	}
	if got := strings.Count(d.OK(t, "logs", "counter"), "n "); got != 250 {
		t.Errorf("logs show %d lines", got)
	}
}
