package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

func TestRunPassesStreamsAndTheExitCode(t *testing.T) {
	f := newFake(t)
	f.exit = 7
	r := run(t, f.host, "some input", "run", "-i", "--name", "c", "img", "cat")
	if r.out != "some input" || r.err != "WARNING: be careful\nend" || r.code != 7 {
		t.Errorf("got %+v", r)
	}
	calls := strings.Split(f.seen(), "\n")
	if len(calls) != 4 || calls[0] != "POST /containers/create" || calls[3] != "POST /containers/c1/start" {
		t.Errorf("one call each, start last: %q", calls)
	}
}

func TestRunDetachedNeedsTwoCalls(t *testing.T) {
	f := newFake(t)
	r := run(t, f.host, "", "run", "-d", "img")
	if r.out != "c1\n" || r.code != 0 || f.seen() != "POST /containers/create\nPOST /containers/c1/start" {
		t.Errorf("got %+v after %s", r, f.seen())
	}
	if b := string(f.body("/containers/create")); !strings.Contains(b, `"AttachStdout":false`) {
		t.Errorf("create said %s", b)
	}
}

func TestRunWaitsForRemoval(t *testing.T) {
	f := newFake(t)
	cond := make(chan string, 1)
	old := f.mux
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if c := r.URL.Query().Get("condition"); c != "" {
			cond <- c
		}
		old.ServeHTTP(w, r)
	})
	if r := run(t, f.host, "", "run", "--rm", "img"); r.code != 0 {
		t.Errorf("got %+v", r)
	}
	if c := <-cond; c != "removed" {
		t.Errorf("waited for %s", c)
	}
}

func TestRunFailures(t *testing.T) {
	const help = "\n\nRun 'docker run --help' for more information\n"
	for _, c := range []struct {
		name, path, answer, err string
		code                    int
	}{
		{"not found", "/start", `400 failed to create task for container: failed to create shim task: exec: "nosuch": executable file not found in $PATH`,
			`docker: Error response from daemon: failed to create task for container: failed to create shim task: exec: "nosuch": executable file not found in $PATH` + help, 127},
		{"permission", "/start", `400 error during container init: exec: "/etc/passwd": permission denied`,
			`docker: Error response from daemon: error during container init: exec: "/etc/passwd": permission denied` + help, 126},
		{"directory", "/start", `400 exec: "/etc": is a directory: permission denied`, `docker: Error response from daemon: exec: "/etc": is a directory: permission denied` + help, 126},
		{"create", "/create", `400 Minimum memory limit allowed is 6MB`, "docker: Error response from daemon: Minimum memory limit allowed is 6MB" + help, 125},
		{"mount", "/create", `400 invalid mount config for type "bind": bind source path does not exist: /nonexistent`,
			`docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /nonexistent` + help, 125},
		{"device", "/start", `500 error gathering device information while adding custom device "/dev/nonexistent": no such file or directory`,
			`docker: Error response from daemon: error gathering device information while adding custom device "/dev/nonexistent": no such file or directory` + help, 127},
		{"volumes-from", "/create", "404 No such container: nosuch", "Unable to find image 'img:latest' locally\ndocker: Error response from daemon: No such container: nosuch" + help, 125},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			f.fail[c.path] = c.answer
			r := run(t, f.host, "", "run", "img", "nosuch")
			got := strings.Replace(r.err, "WARNING: be careful\n", "", 1)
			if got != c.err || r.code != c.code {
				t.Errorf("got %q, %d", got, r.code)
			}
		})
	}
}

// create has no container whose exit code could be taken for its own.
func TestCreateFails(t *testing.T) {
	f := newFake(t)
	f.fail["/create"] = "400 Minimum memory limit allowed is 6MB"
	if r := run(t, f.host, "", "create", "img"); r.err != "Error response from daemon: Minimum memory limit allowed is 6MB\n" || r.code != 1 {
		t.Errorf("got %q, %d", r.err, r.code)
	}
	if r := run(t, f.host, "", "create", "-p", "abc", "img"); r.err != "docker: invalid containerPort: abc\n\nRun 'docker create --help' for more information\n" || r.code != 125 {
		t.Errorf("got %q, %d", r.err, r.code)
	}
}

func TestRunPullsAMissingImageOnce(t *testing.T) {
	f := newFake(t)
	creates, pull := 0, make(chan string, 1)
	old := f.mux
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		pull <- r.URL.RawQuery + " " + r.Header.Get("X-Registry-Auth")
		io.WriteString(w, `{"status":"Pulling from library/img","id":"1"}`+"\r\n"+`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}`+"\r\n"+`{"status":"Pull complete","progressDetail":{},"id":"a"}`+"\r\n")
	})
	f.mux.HandleFunc("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		if creates++; creates == 1 {
			w.WriteHeader(404)
			io.WriteString(w, `{"message":"No such image: img:1"}`)
			return
		}
		old.ServeHTTP(w, r)
	})
	f.mux.Handle("/", old)
	r := run(t, f.host, "", "run", "img:1")
	if r.code != 0 || r.err != "Unable to find image 'img:1' locally\n1: Pulling from library/img\na: Pull complete\nWARNING: be careful\nend" {
		t.Errorf("got %+v", r)
	}
	if p := <-pull; p != "fromImage=docker.io%2Flibrary%2Fimg&tag=1 e30=" {
		t.Errorf("pulled %s", p)
	}
	if creates != 2 {
		t.Errorf("%d creates", creates)
	}
}

func TestPullNeverDoesNotPull(t *testing.T) {
	f := newFake(t)
	f.fail["/create"] = "404 No such image: nosuch:2"
	r := run(t, f.host, "", "run", "--rm", "--pull", "never", "nosuch:2", "true")
	if r.err != "docker: Error response from daemon: No such image: nosuch:2\n\nRun 'docker run --help' for more information\n" || r.code != 125 {
		t.Errorf("got %+v", r)
	}
}

func TestCIDFile(t *testing.T) {
	f := newFake(t)
	path := t.TempDir() + "/cid"
	if r := run(t, f.host, "", "run", "-d", "--cidfile", path, "img"); r.code != 0 {
		t.Fatalf("got %+v", r)
	}
	if b, err := os.ReadFile(path); string(b) != "c1" || err != nil {
		t.Errorf("file has %q, %v", b, err)
	}
	r := run(t, f.host, "", "run", "-d", "--cidfile", path, "img")
	want := "docker: container ID file found, make sure the other container isn't running or delete " + path + "\n\nRun 'docker run --help' for more information\n"
	if r.err != want || r.code != 125 {
		t.Errorf("got %+v", r)
	}
	f.fail["/create"] = "400 no"
	if r := run(t, f.host, "", "run", "-d", "--cidfile", path+"2", "img"); r.code != 125 {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a container that was not made left its id file")
	}
}

// terminal is a pty whose far side the test types on.
func terminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close(); tty.Close() })
	if err := pty.Setsize(user, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	return user, tty
}

// expect reads from the terminal until text comes.
func expect(t *testing.T, user *os.File, text string) {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		var got strings.Builder
		b := make([]byte, 256)
		for !strings.Contains(got.String(), text) {
			n, err := user.Read(b)
			if err != nil {
				break
			}
			got.Write(b[:n])
		}
		found <- got.String()
	}()
	select {
	case s := <-found:
		if !strings.Contains(s, text) {
			t.Fatalf("the terminal shows %q, not %q", s, text)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("%q did not come", text)
	}
}

func TestRunOnATerminal(t *testing.T) {
	f := newFake(t)
	f.tty, f.exit = true, 3
	user, tty := terminal(t)
	done := make(chan result, 1)
	go func() { done <- runIn(t, f.host, tty, tty, "run", "-it", "img") }()
	if q := <-f.resized; q != "h=40&w=100" {
		t.Errorf("first size %s", q)
	}
	io.WriteString(user, "typed\x03")
	expect(t, user, "typed\x03") // ctrl-c is a byte for the container, no signal here
	if err := pty.Setsize(user, &pty.Winsize{Rows: 41, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	if q := <-f.resized; q != "h=41&w=101" {
		t.Errorf("second size %s", q)
	}
	io.WriteString(user, "\x04")
	if r := <-done; r.code != 3 {
		t.Errorf("got %+v", r)
	}
	if b := string(f.body("/containers/create")); !strings.Contains(b, `"ConsoleSize":[40,100]`) {
		t.Errorf("create said %s", b)
	}
}

func TestDetachKeysLeaveTheContainerRunning(t *testing.T) {
	f := newFake(t)
	f.tty = true
	user, tty := terminal(t)
	done := make(chan result, 1)
	go func() { done <- runIn(t, f.host, tty, tty, "run", "-it", "img") }()
	<-f.started
	io.WriteString(user, "a")
	expect(t, user, "a")
	io.WriteString(user, "\x10\x11")
	select {
	case r := <-done:
		if r.code != 0 {
			t.Errorf("got %+v", r)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ctrl-p ctrl-q did not detach")
	}
}

func TestSignalsGoToTheContainer(t *testing.T) {
	f := newFake(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan result, 1)
	go func() { done <- runIn(t, f.host, r, nil, "run", "-i", "img") }()
	<-f.started
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGTERM} {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		want := "SIGTERM"
		if s == syscall.SIGHUP {
			want = "SIGHUP"
		}
		if k := <-f.kills; k != want {
			t.Errorf("the container got %s", k)
		}
	}
	w.Close()
	if r := <-done; r.code != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestNotATerminal(t *testing.T) {
	f := newFake(t)
	if r := run(t, f.host, "", "run", "--rm", "-it", "img"); r.err != "the input device is not a TTY\n" || r.code != 1 {
		t.Errorf("got %+v", r)
	}
	if f.seen() != "" {
		t.Errorf("asked %s", f.seen())
	}
}

func TestExec(t *testing.T) {
	f := newFake(t)
	f.exit = 4
	r := run(t, f.host, "x", "exec", "-i", "-e", "Q=1", "-w", "/tmp", "-u", "1:2", "c", "sh", "-c", "exit 4")
	if r.out != "x" || r.err != "end" || r.code != 4 {
		t.Errorf("got %+v", r)
	}
	b := string(f.body("/containers/c/exec"))
	for _, s := range []string{`"User":"1:2"`, `"Env":["Q=1"]`, `"WorkingDir":"/tmp"`, `"Cmd":["sh","-c","exit 4"]`, `"AttachStdin":true`} {
		if !strings.Contains(b, s) {
			t.Errorf("no %s in %s", s, b)
		}
	}
	f2 := newFake(t)
	if r := run(t, f2.host, "", "exec", "-d", "c", "sleep", "5"); r != (result{}) {
		t.Errorf("detached: got %+v", r)
	}
	f3 := newFake(t)
	f3.fail["/exec"] = "409 Container paused is paused, unpause the container before exec"
	if r := run(t, f3.host, "", "exec", "paused", "true"); r.err != "Error response from daemon: Container paused is paused, unpause the container before exec\n" || r.code != 1 {
		t.Errorf("paused: got %+v", r)
	}
}

func TestAttachToATerminalAndDetach(t *testing.T) {
	f := newFake(t)
	f.tty = true
	close(f.started)
	user, tty := terminal(t)
	done := make(chan result, 1)
	go func() { done <- runIn(t, f.host, tty, tty, "attach", "--detach-keys", "ctrl-a,d", "c") }()
	if a, b := <-f.resized, <-f.resized; a != "h=41&w=101" || b != "h=40&w=100" {
		t.Errorf("a repaint is a wrong size and the right one, not %s and %s", a, b)
	}
	io.WriteString(user, "z")
	expect(t, user, "z")
	io.WriteString(user, "\x01d")
	if r := <-done; r.code != 0 || r.err != "read escape sequence\n" {
		t.Errorf("got %+v", r)
	}
}

func TestLogsAreSplitByTheContentType(t *testing.T) {
	f := newFake(t)
	query := ""
	f.mux.HandleFunc("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query().Encode()
		if r.PathValue("id") == "tty" {
			w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
			io.WriteString(w, "raw\x01bytes")
			return
		}
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
		io.WriteString(w, "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n")
	})
	if r := run(t, f.host, "", "logs", "-n", "5", "--since", "100", "-t", "c"); r != (result{"out\n", "err\n", 0}) {
		t.Errorf("got %+v", r)
	}
	if query != "since=100&stderr=1&stdout=1&tail=5&timestamps=1" {
		t.Errorf("asked %s", query)
	}
	if r := run(t, f.host, "", "logs", "tty"); r.out != "raw\x01bytes" {
		t.Errorf("got %+v", r)
	}
}

func TestPsIsOneCall(t *testing.T) {
	f := newFake(t)
	var query string
	f.mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query().Encode()
		io.WriteString(w, `[{"Id":"aaaaaaaaaaaabbbb","Names":["/c"],"Image":"busybox","Command":"true","State":"exited","Status":"Exited (0) 1 second ago","Ports":[]}]`)
	})
	if r := run(t, f.host, "", "ps", "-aq", "--no-trunc", "-f", "label=a=b", "-f", "label=c"); r != (result{out: "aaaaaaaaaaaabbbb\n"}) {
		t.Errorf("got %+v", r)
	}
	if query != "all=1&filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%2C%22c%22%3Atrue%7D%7D" || f.seen() != "GET /containers/json" {
		t.Errorf("asked %s in %s", query, f.seen())
	}
	if r := run(t, f.host, "", "ps", "--format", "{{.Names}} {{.Size}}"); r.out != "c 0B\n" || query != "size=1" {
		t.Errorf("got %+v by %s", r, query)
	}
}

func TestManyNames(t *testing.T) {
	f := newFake(t)
	f.mux.HandleFunc("DELETE /containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id == "nosuch" {
			w.WriteHeader(404)
			fmt.Fprintf(w, `{"message":"No such container: %s"}`, id)
			return
		}
		w.WriteHeader(204)
	})
	want := result{"running\npaused\n", "Error response from daemon: No such container: nosuch\n", 1}
	if r := run(t, f.host, "", "rm", "running", "nosuch", "paused"); r != want {
		t.Errorf("got %+v", r)
	}
	want.code = 0 // with --force a missing one is no failure
	if r := run(t, f.host, "", "rm", "-f", "running", "nosuch", "paused"); r != want {
		t.Errorf("forced: got %+v", r)
	}
}

func TestInspect(t *testing.T) {
	f := newFake(t)
	f.mux.HandleFunc("GET /containers/nosuch/json", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"message":"No such container: nosuch"}`)
	})
	for _, p := range []string{"/images/", "/networks/", "/volumes/", "/services/", "/tasks/", "/nodes/", "/plugins/", "/secrets/", "/configs/"} {
		f.mux.HandleFunc("GET "+p, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"message":"no"}`)
		})
	}
	f.mux.HandleFunc("GET /volumes/v1", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"CreatedAt":"x","Driver":"local","Labels":null,"Name":"v1","Options":null,"Extra":[]}`)
	})
	for _, c := range []struct {
		args string
		want result
	}{
		{"inspect nosuch", result{"[]\n", "Error: No such object: nosuch\n", 1}},
		{"container inspect nosuch", result{"[]\n", "Error response from daemon: No such container: nosuch\n", 1}},
		{"inspect -f {{.State.Status}}/{{.ID}} c", result{"running/c1\n", "", 0}},
		{"inspect -f {{.Id}} c", result{"c1\n", "", 0}},
		{"inspect -f {{.Nope}} c", result{"\n", "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"\n", 1}},
		{"volume inspect v1", result{"[\n    {\n        \"CreatedAt\": \"x\",\n        \"Driver\": \"local\",\n        \"Labels\": null,\n        \"Name\": \"v1\",\n        \"Options\": null,\n        \"Extra\": []\n    }\n]\n", "", 0}},
		{"volume inspect -f {{.Extra}} v1", result{"[]\n", "", 0}},
	} {
		if r := run(t, f.host, "", strings.Fields(c.args)...); r != c.want {
			t.Errorf("%s: got %+v", c.args, r)
		}
	}
}

func TestStartPrintsWhatFailed(t *testing.T) {
	f := newFake(t)
	f.fail["/nosuch/start"] = "404 No such container: nosuch"
	r := run(t, f.host, "", "start", "created", "nosuch")
	if r != (result{"created\n", "Error response from daemon: No such container: nosuch\nError: failed to start containers: nosuch\n", 1}) {
		t.Errorf("got %+v", r)
	}
}
