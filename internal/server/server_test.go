package server

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

const (
	usual    = "Api-Version: 1.56\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/29.7.0 (linux)\r\n"
	bare     = "Api-Version: 1.56\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/29.7.0 (linux)\r\n"
	noRoute  = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"
	noPage   = noRoute + "{\"message\":\"page not found\"}\n"
	pingHead = "Api-Version: 1.56\r\nBuilder-Version: 2\r\nCache-Control: no-cache, no-store, must-revalidate\r\n"
)

func jsonAnswer(status, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s\n", status, usual, len(body)+1, body)
}

func refusal(status, message string) string {
	return jsonAnswer(status, `{"message":"`+message+`"}`)
}

// Answers as recorded, byte for byte but for the date.
func TestAnswers(t *testing.T) {
	f := &fake{wait: make(chan wire.WaitResponse, 1)}
	f.wait <- wire.WaitResponse{StatusCode: 137}
	r := serve(t, f)
	tooOld := "client version %s is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
	for request, want := range map[string]string{
		"GET /_ping HTTP/1.1\nHost: x":                                                      "HTTP/1.1 200 OK\r\n" + pingHead + "Docker-Experimental: false\r\nOstype: linux\r\nPragma: no-cache\r\nServer: Docker/29.7.0 (linux)\r\nSwarm: inactive\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOK",
		"HEAD /v1.40/_ping HTTP/1.1\nHost: x":                                               "HTTP/1.1 200 OK\r\n" + pingHead + "Content-Length: 0\r\nContent-Type: text/plain; charset=utf-8\r\nDocker-Experimental: false\r\nOstype: linux\r\nPragma: no-cache\r\nServer: Docker/29.7.0 (linux)\r\nSwarm: inactive\r\n\r\n",
		"POST /_ping HTTP/1.1\nHost: x\nContent-Length: 0":                                  noPage,
		"GET / HTTP/1.1\nHost: x":                                                           noPage,
		"GET /v1.24/nosuch HTTP/1.1\nHost: x":                                               noPage,
		"GET /vabc/containers/json HTTP/1.1\nHost: x":                                       noPage,
		"GET /V1.56/containers/json HTTP/1.1\nHost: x":                                      noPage,
		"GET /v1.56/containers/json/ HTTP/1.1\nHost: x":                                     noPage,
		"GET /containers/x HTTP/1.1\nHost: x":                                               noPage,
		"HEAD /containers/json HTTP/1.1\nHost: x":                                           noRoute,
		"GET /v1.056/containers/json HTTP/1.1\nHost: x":                                     jsonAnswer("200 OK", "[]"),
		"GET /containers/json?limit=x HTTP/1.1\nHost: x":                                    refusal("400 Bad Request", `strconv.Atoi: parsing \"x\": invalid syntax`),
		"GET /containers/json?filters=abc HTTP/1.1\nHost: x":                                refusal("400 Bad Request", "invalid filter"),
		"GET /v1.57/containers/json HTTP/1.1\nHost: x":                                      strings.Replace(refusal("400 Bad Request", "client version 1.57 is too new. Maximum supported API version is 1.56"), "Docker-Experimental: false\r\n", "", 1),
		"GET /v1.56.1/containers/json HTTP/1.1\nHost: x":                                    strings.Replace(refusal("400 Bad Request", "client version 1.56.1 is too new. Maximum supported API version is 1.56"), "Docker-Experimental: false\r\n", "", 1),
		"GET /v1.23/containers/json HTTP/1.1\nHost: x":                                      plain(fmt.Sprintf(tooOld, "1.23")),
		"GET /v1.21/images/get HTTP/1.1\nHost: x":                                           plain(fmt.Sprintf(tooOld, "1.21")),
		"GET /v1/containers/json HTTP/1.1\nHost: x":                                         plain(fmt.Sprintf(tooOld, "1")),
		"GET //v1.56/containers/../version?a=b HTTP/1.1\nHost: x":                           "HTTP/1.1 301 Moved Permanently\r\nLocation: /v1.56/version?a=b\r\nContent-Length: 0\r\n\r\n",
		"OPTIONS /v1.56/nosuch HTTP/1.1\nHost: x":                                           "HTTP/1.1 200 OK\r\n" + bare + "Content-Length: 0\r\n\r\n",
		"GET /containers/%20/json HTTP/1.1\nHost: x":                                        refusal("404 Not Found", "No such container:  "),
		"GET /containers/a%2Fb/json HTTP/1.1\nHost: x":                                      refusal("404 Not Found", "No such container: a/b"),
		"POST /containers/c1/start HTTP/1.1\nHost: x\nContent-Length: 0":                    "HTTP/1.1 204 No Content\r\n" + bare + "\r\n",
		"POST /containers/c1/start HTTP/1.1\nHost: x\nContent-Length: 12\n\n{\"Binds\":[]}": refusal("400 Bad Request", "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"),
		"POST /containers/stopped/stop HTTP/1.1\nHost: x\nContent-Length: 0":                "HTTP/1.1 304 Not Modified\r\n" + bare + "\r\n",
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 13\n\n{\"Image\":\"b\"}":   jsonAnswer("201 Created", `{"Id":"`+strings.Repeat("a", 64)+`","Warnings":[]}`),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 9\n\n{\"Image\":":          refusal("400 Bad Request", "invalid JSON: unexpected EOF"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Length: 0":                                                         refusal("400 Bad Request", "invalid JSON: EOF"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 4\n\nnull":                 refusal("400 Bad Request", "config cannot be empty in order to create a container"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 15\n\n{\"Image\":\"b\"}{}": refusal("400 Bad Request", "unexpected content after JSON"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: text/plain\nContent-Length: 13\n\n{\"Image\":\"b\"}":         refusal("400 Bad Request", "unsupported Content-Type header (text/plain): must be 'application/json'"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Length: 13\n\n{\"Image\":\"b\"}":                                   refusal("400 Bad Request", "malformed Content-Type header (): mime: no media type"),
		"POST /containers/create HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 11\n\n{\"Image\":5}":       refusal("400 Bad Request", "invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest.Config.Image of type string"),
		"POST /containers/c1/wait?condition=bogus HTTP/1.1\nHost: x\nContent-Length: 0":                                        refusal("400 Bad Request", `invalid condition: \"bogus\"`),
		"POST /containers/c1/wait HTTP/1.1\nHost: x\nContent-Length: 0":                                                        "HTTP/1.1 200 OK\r\n" + usual + "Transfer-Encoding: chunked\r\n\r\n13\r\n{\"StatusCode\":137}\n\r\n0\r\n\r\n",
		"POST /containers/c1/resize?h=-1&w=5 HTTP/1.1\nHost: x\nContent-Length: 0":                                             refusal("400 Bad Request", `invalid resize height \"-1\": value out of range`),
		"POST /containers/c1/resize?h=1 HTTP/1.1\nHost: x\nContent-Length: 0":                                                  refusal("400 Bad Request", `invalid resize width \"\": invalid syntax`),
		"POST /containers/c1/resize?h=1&w=70000 HTTP/1.1\nHost: x\nContent-Length: 0":                                          "HTTP/1.1 200 OK\r\n" + bare + "Content-Length: 0\r\n\r\n",
		"GET /containers/c1/logs HTTP/1.1\nHost: x":                                                                            refusal("400 Bad Request", "must specify at least one of 'stdout' or 'stderr'"),
		"GET /containers/c1/logs?stdout=1&since=10m HTTP/1.1\nHost: x":                                                         refusal("400 Bad Request", `invalid value for \"since\": invalid timestamp \"10m\": invalid seconds \"10m\": invalid syntax`),
		"GET /containers/c1/logs?stdout=1 HTTP/1.1\nHost: x":                                                                   refusal("501 Not Implemented", "configured logging driver does not support reading"),
		"GET /v1.54/images/busybox/attestations HTTP/1.1\nHost: x":                                                             refusal("400 Bad Request", "GET /images/{name:.*}/attestations requires minimum API version 1.55"),
		"POST /commit HTTP/1.1\nHost: x\nContent-Length: 0":                                                                    refusal("400 Bad Request", `invalid name or ID supplied: \"\"`),
		"GET /nodes HTTP/1.1\nHost: x":                     refusal("503 Service Unavailable", `This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.`),
		"GET /containers/c1/checkpoints HTTP/1.1\nHost: x": refusal("501 Not Implemented", "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it."),
		"GET /events?since=5&until=1 HTTP/1.1\nHost: x":    refusal("400 Bad Request", "`since` time (5) cannot be after `until` time (1)"),
		"GET /events?until=1 HTTP/1.1\nHost: x":            "HTTP/1.1 200 OK\r\n" + strings.Replace(usual, "application/json", "application/jsonl", 1) + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /exec/e1/start HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 15\n\n{\"Detach\":true}":           "HTTP/1.1 200 OK\r\n" + bare + "Content-Length: 0\r\n\r\n",
		"POST /exec/nosuch/start HTTP/1.1\nHost: x\nContent-Length: 0":                                                             refusal("404 Not Found", "No such exec instance: nosuch"),
		"POST /containers/nosuch/attach?stream=1&stdout=1 HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: tcp\nContent-Length: 0": "HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nNo such container: nosuch\r\n",
		"GET /containers/c1/attach HTTP/1.1\nHost: x":                                                                              noPage,
		"POST /gantry/doctor HTTP/1.1\nHost: x\nContent-Length: 0":                                                                 refusal("400 Bad Request", "say fix=1 to have what is found removed"),
	} {
		if got := r.ask(t, request); got != want {
			t.Errorf("%s\n got %q\nwant %q", request, got, want)
		}
	}
}

func plain(text string) string {
	return fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nApi-Version: 1.56\r\nContent-Type: text/plain; charset=utf-8\r\nOstype: linux\r\nServer: Docker/29.7.0 (linux)\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n\r\n%s\n", len(text)+1, text)
}

func TestBooleans(t *testing.T) {
	for s, want := range map[string]bool{
		"1": true, "true": true, "True": true, "yes": true, "x": true, "off": true, "n": true, "f": true,
		"0": false, "no": false, "No": false, "false": false, "none": false, "None": false, "": false, " ": false,
	} {
		if truth(s) != want {
			t.Errorf("%q", s)
		}
	}
}

func TestStopOptions(t *testing.T) {
	f := &fake{}
	r := serve(t, f)
	r.ask(t, "POST /containers/c1/stop?t=-1&signal=HUP HTTP/1.1\nHost: x\nContent-Length: 0")
	if f.stop.Timeout == nil || *f.stop.Timeout != -1 || f.stop.Signal != "HUP" {
		t.Errorf("%+v", f.stop)
	}
	r.ask(t, "POST /v1.41/containers/c1/stop?signal=HUP HTTP/1.1\nHost: x\nContent-Length: 0")
	if f.stop.Timeout != nil || f.stop.Signal != "" {
		t.Errorf("%+v", f.stop)
	}
}

func TestPanicIsOneFailedRequest(t *testing.T) {
	f := &fake{panics: true}
	r := serve(t, f)
	if got := r.ask(t, "GET /containers/json HTTP/1.1\nHost: x"); !strings.HasPrefix(got, "HTTP/1.1 500") || !strings.Contains(got, "internal error") {
		t.Errorf("%q", got)
	}
	f.panics = false
	if got := r.ask(t, "GET /containers/json HTTP/1.1\nHost: x"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("after a panic: %q", got)
	}
}

// Row S20: what web pages could send to a TCP port.
func TestForeign(t *testing.T) {
	for _, c := range []struct {
		host, origin string
		ok           bool
	}{
		{"localhost:2375", "", true}, {"127.0.0.1:2375", "", true}, {"[::1]:2375", "", true}, {"10.1.2.3", "", true}, {"me.example", "", true},
		{"evil.example", "", false}, {"evil.example:2375", "", false}, {"", "", false}, {"localhost", "http://evil.example", false}, {"localhost", "null", false},
	} {
		if err := foreign(c.host, c.origin, []string{"localhost", "me.example"}); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAttach(t *testing.T) {
	for _, c := range []struct {
		path, upgrade string
		tty           bool
		want          string
	}{
		{"/v1.56", "Connection: Upgrade\r\nUpgrade: tcp\r\n", false, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"/v1.41", "Connection: Upgrade\r\nUpgrade: tcp\r\n", false, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"/v1.56", "Connection: Upgrade\r\nUpgrade: tcp\r\n", true, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"", "", false, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"},
	} {
		f := &fake{stream: newFakeStream(), tty: c.tty}
		r := serve(t, f)
		conn := r.dial(t)
		// What is sent with the head already belongs to the stream.
		fmt.Fprintf(conn, "POST %s/containers/c1/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n%sContent-Length: 0\r\n\r\nearly ", c.path, c.upgrade)
		in := bufio.NewReader(conn)
		if got := readHead(t, in); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		io.WriteString(conn, "late")
		conn.CloseWrite()
		<-f.stream.half // the end of input has arrived
		if got := f.stream.input(); got != "early late" {
			t.Errorf("input %q", got)
		}
		f.stream.say("after\n") // and output goes on
		f.stream.outW.Close()
		out, err := io.ReadAll(in)
		if err != nil || string(out) != "\x01\x00\x00\x00\x00\x00\x00\x06after\n" {
			t.Errorf("output %q %v", out, err)
		}
		conn.Close()
		<-f.stream.closed
		if f.attach.Streams != (shim.Streams{Stdin: true, Stdout: true}) || !f.attach.Stream || f.attach.Logs {
			t.Errorf("%+v", f.attach)
		}
	}
}

// A client that goes away ends its stream although the process is silent.
func TestAttachClientGone(t *testing.T) {
	f := &fake{stream: newFakeStream()}
	r := serve(t, f)
	conn := r.dial(t)
	io.WriteString(conn, "POST /containers/c1/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	readHead(t, bufio.NewReader(conn))
	conn.CloseWrite() // as the docker command does without input
	select {
	case <-f.stream.closed:
		t.Fatal("a half close without input ended the stream")
	case <-time.After(2 * hangupPoll):
	}
	conn.Close()
	select {
	case <-f.stream.closed:
	case <-time.After(5 * time.Second):
		t.Fatal("the stream of a client that has gone is still open")
	}
}

// A client that reads the head through a buffer and then goes on without it
// must not lose the stream's beginning.
// The stream comes after the head has been read, or headTime later: which may be
// first on a busy machine.
func TestStreamWaitsForTheHead(t *testing.T) {
	const last = 20
	for try := 1; ; try++ {
		f := &fake{stream: newFakeStream()}
		r := serve(t, f)
		go f.stream.say("first")
		conn := r.dial(t)
		io.WriteString(conn, "POST /containers/c1/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(headTime / 4)
		head := make([]byte, 8192)
		n, err := conn.Read(head)
		if err != nil || !strings.HasSuffix(string(head[:n]), "\r\n\r\n") {
			if err == nil && try < last {
				continue
			}
			t.Fatalf("the stream came with the head: %q %v", head[:n], err)
		}
		if n, err = conn.Read(head); err != nil || !strings.HasSuffix(string(head[:n]), "first") {
			t.Errorf("%q %v", head[:n], err)
		}
		return
	}
}

func TestExecFailureEntersTheStream(t *testing.T) {
	f := &fake{execErr: &container.StreamError{Err: errs.New(errs.Invalid, "no such program")}}
	r := serve(t, f)
	got := r.ask(t, "POST /exec/e1/start HTTP/1.1\nHost: x\nUpgrade: tcp\nContent-Length: 0")
	want := "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" + bare + "\r\n\x01\x00\x00\x00\x00\x00\x00\x11no such program\r\n"
	if got != want {
		t.Errorf("%q", got)
	}
	got = r.ask(t, "POST /exec/e1/start HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 12\n\n{\"Tty\":true}")
	if want := "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n" + bare + "\r\nno such program\r\n"; got != want {
		t.Errorf("%q", got)
	}
	if got := r.ask(t, "POST /exec/e1/start HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 15\n\n{\"Detach\":true}"); got != refusal("400 Bad Request", "no such program") {
		t.Errorf("detached: %q", got)
	}
}

func TestEventsStream(t *testing.T) {
	r := serve(t, &fake{})
	at := time.Now()
	r.bus.Publish(wire.Event{Type: "container", Action: "exec_create: sh", Actor: wire.EventActor{ID: "c", Attributes: map[string]string{"image": "b:1", "name": "n"}}, TimeNano: at.UnixNano(), Time: at.Unix()})
	r.bus.Publish(wire.Event{Type: "network", Action: "connect", Actor: wire.EventActor{ID: "n"}, TimeNano: at.UnixNano(), Time: at.Unix()})
	span := fmt.Sprintf("since=%d&until=%d.999999999", at.Unix()-1, at.Unix())
	line := fmt.Sprintf(`{"Action":"exec_create: sh","Actor":{"Attributes":{"image":"b:1","name":"n"},"ID":"c"},"Type":"container","from":"b:1","id":"c","scope":"local","status":"exec_create: sh","time":%d,"timeNano":%d}`, at.Unix(), at.UnixNano())
	got := r.ask(t, "GET /v1.51/events?"+span+`&filters={"event":["exec_create"]} HTTP/1.1`+"\nHost: x")
	if want := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\n\r\n0\r\n\r\n", len(line)+1, line); !strings.HasSuffix(got, want) || !strings.Contains(got, "Content-Type: application/json\r\n") {
		t.Errorf("%q\nwant …%q", got, want)
	}
	got = r.ask(t, "GET /events?"+span+`&filters={"type":["network"]} HTTP/1.1`+"\nHost: x\nAccept: application/json-seq")
	if !strings.Contains(got, "Content-Type: application/json-seq\r\n") || !strings.Contains(got, "\r\n1\r\n\x1e\r\n") || strings.Contains(got, "container") {
		t.Errorf("%q", got)
	}
}

func TestEventFilters(t *testing.T) {
	e := wire.Event{Type: "container", Action: "health_status: healthy", Scope: "local",
		Actor: wire.EventActor{ID: "abc123", Attributes: map[string]string{"image": "reg:5000/b:1", "name": "web", "k": "v"}}}
	for f, want := range map[string]bool{
		`{}`: true, `{"event":["health_status"]}`: true, `{"event":["health_status: healthy"]}`: true, `{"event":["health"]}`: false,
		`{"container":["abc"]}`: true, `{"container":["we"]}`: true, `{"container":["x"]}`: false, `{"network":["web"]}`: true, `{"network":["n"]}`: false,
		`{"image":["reg:5000/b"]}`: true, `{"image":["reg:5000/b:1"]}`: true, `{"image":["reg"]}`: false, `{"label":["k=v"]}`: true, `{"label":["k=w"]}`: false,
		`{"type":["container"],"scope":["local"]}`: true, `{"scope":["swarm"]}`: false, `{"nosuch":["x"]}`: true,
	} {
		a, err := filter.Parse(f)
		if err != nil {
			t.Fatal(err)
		}
		if eventMatches(e, a) != want {
			t.Errorf("%s: not %v", f, want)
		}
	}
}

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// apiRows reads method and path of every operation of the API.
func apiRows(t *testing.T) [][2]string {
	data, err := os.ReadFile("testdata/operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][2]string
	for line := range strings.Lines(string(data)) {
		method, path, _ := strings.Cut(strings.TrimSpace(line), "\t")
		rows = append(rows, [2]string{method, path})
	}
	if len(rows) < 100 {
		t.Fatalf("only %d operations", len(rows))
	}
	return rows
}

// Every operation of the API has a route.
func TestEveryOperationIsRouted(t *testing.T) {
	s := New(t.Context(), Options{Log: nil})
	for _, line := range apiRows(t) {
		method, path := line[0], line[1]
		if method == "OPTIONS" || strings.HasPrefix(path, "/debug/") {
			continue // not by the table; not served
		}
		path = wildcard.ReplaceAllString(path, "x")
		if r, _, _ := s.routes.find(method, path); r == nil {
			t.Errorf("%s %s is not routed", method, path)
		}
	}
}

func TestRoutes(t *testing.T) {
	tab := newTable([]route{
		{method: "GET", pattern: "/images/json"}, {method: "GET", pattern: "/images/{name}/json"},
		{method: "DELETE", pattern: "/containers/{name}/checkpoints/{checkpoint}"}, {method: "DELETE", pattern: "/containers/{name}"},
	})
	for _, c := range [][4]string{
		{"GET /images/json", "/images/json", "", ""},
		{"GET /images/a/b:c/json", "/images/{name}/json", "a/b:c", ""},
		{"GET /images//json", "", "", ""},
		{"DELETE /containers/a/checkpoints/b", "/containers/{name}/checkpoints/{checkpoint}", "a", "b"},
		{"DELETE /containers/web/db", "/containers/{name}", "web/db", ""},
		{"DELETE /containers/", "", "", ""},
		{"POST /images/json", "", "", ""},
	} {
		method, path, _ := strings.Cut(c[0], " ")
		r, name, sub := tab.find(method, path)
		pattern := ""
		if r != nil {
			pattern = r.pattern
		}
		if pattern != c[1] || name != c[2] || sub != c[3] {
			t.Errorf("%s: %q %q %q", c[0], pattern, name, sub)
		}
	}
}
