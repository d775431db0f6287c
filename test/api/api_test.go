package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// skipped are headers that are compared by hand or vary.
var skipped = []string{"Date", "Content-Length", "Transfer-Encoding"}

func TestRecordedAnswers(t *testing.T) {
	d := testkit.StartDaemon(t)
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatal("no fixtures", err)
	}
	for _, f := range files {
		section := strings.TrimSuffix(filepath.Base(f), ".jsonl")
		t.Run(section, func(t *testing.T) {
			clean(t, d)
			loadBusybox(t, d)
			replay(t, d, section, load(t, f))
		})
	}
	clean(t, d)
}

// loadBusybox loads an image like the one of the recordings, whose
// configuration says nothing but a command.
func loadBusybox(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	img, err := testkit.BusyboxImage("busybox:latest")
	if err != nil {
		t.Fatal(err)
	}
	img.Config.Config.Env = nil
	var tar bytes.Buffer
	if err := img.DockerArchive(&tar); err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Post("http://gantry/images/load", "application/x-tar", &tar)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

func load(t *testing.T, path string) []exchange {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	for dec := json.NewDecoder(strings.NewReader(string(data))); ; {
		var e exchange
		if err := dec.Decode(&e); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
}

// settle is how long an answer that only looks may take to become as recorded:
// the recorder waited where a container was on its way.
const settle = 10 * time.Second

// replay sends the requests of a section in order.
func replay(t *testing.T, d *testkit.Daemon, section string, list []exchange) {
	b := bindings{}
	lastExec := ""
	for _, e := range list {
		if name := b.unbound(e.Path); strings.HasPrefix(e.Path, "/v1.56/exec/<id") && name != "" {
			b[name] = lastExec // made by a request whose answer was not recorded
		}
		if e.Body == "<busybox>" {
			loadBusybox(t, d)
			continue
		}
		path, ok := b.fill(e.Path)
		body, ok2 := b.fill(e.Body)
		if !ok || !ok2 {
			t.Logf("left out, for it names what was not met: %s %s", e.Method, e.Path)
			continue
		}
		e.Path, e.Body = path, body
		request := e.Method + " " + e.Path
		if c, yes := committed(e); yes {
			changed(t, d, c)
		}
		if e.Stream {
			if err := stream(d, e); err != nil {
				t.Errorf("%s: %v", request, err)
			}
			continue
		}
		got, ds, err := b.converge(d, section, e)
		if err != nil {
			t.Errorf("%s: %v", request, err)
			continue
		}
		if e.Setup && got.status == http.StatusNotImplemented {
			t.Skipf("the section needs what is not built: %s: %s", request, got.body)
		}
		if id := made(got.body); e.Setup && strings.HasSuffix(e.Path, "/exec") {
			lastExec = id
		}
		for _, diff := range ds {
			t.Errorf("%s %s\n\t(%s) %v", request, e.Body, e.Note, diff)
		}
	}
}

// committed returns the container that a request commits.
func committed(e exchange) (container string, yes bool) {
	u, err := url.Parse(e.Path)
	if err != nil || !strings.HasSuffix(u.Path, "/commit") || e.Status != http.StatusCreated {
		return "", false
	}
	return u.Query().Get("container"), true
}

// changed waits until a container's program has written its file, as the recorder
// did before it committed. One that writes nothing is not waited for.
func changed(t *testing.T, d *testkit.Daemon, container string) {
	t.Helper()
	var v struct {
		State  struct{ Running bool }
		Config struct{ Cmd []string }
	}
	get := func(path string, v any) {
		resp, err := d.Client().Get("http://gantry/containers/" + container + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	if get("/json", &v); !v.State.Running || !strings.Contains(strings.Join(v.Config.Cmd, " "), ">") {
		return
	}
	testkit.Eventually(t, "changes of "+container, func() bool {
		var list []struct{ Path string }
		get("/changes", &list)
		return len(list) > 0
	})
}

// stream sends a request whose answer is a stream and reads that for a moment.
func stream(d *testkit.Daemon, e exchange) error {
	c, err := send(d, e)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	head, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.Contains(head, fmt.Sprint(e.Status)) {
		err = fmt.Errorf("want %d, got %s", e.Status, head)
	}
	_, _ = io.Copy(io.Discard, c)
	return err
}

// made returns the ID of what a request has made.
func made(body string) string {
	var v struct {
		ID string `json:"Id"`
	}
	_ = json.Unmarshal([]byte(body), &v)
	return v.ID
}

// converge sends a request, again if it only looks, until the answer is as
// recorded or time is up.
func (b bindings) converge(d *testkit.Daemon, section string, e exchange) (got *answer, ds []difference, err error) {
	for end := time.Now().Add(settle); ; time.Sleep(50 * time.Millisecond) {
		if got, err = ask(d, e); err != nil {
			return nil, nil, err
		}
		try := maps.Clone(b)
		ds = slices.DeleteFunc(try.differences(e, got), func(diff difference) bool {
			return isAccepted(section, e.Method+" "+e.Path, diff) != ""
		})
		if len(ds) == 0 || e.Method != http.MethodGet && e.Method != http.MethodHead || time.Now().After(end) {
			maps.Copy(b, try)
			return got, ds, nil
		}
	}
}

// differences compares an answer with the recorded one.
func (b bindings) differences(e exchange, got *answer) []difference {
	var ds []difference
	if e.Status != got.status {
		return []difference{{"status", fmt.Sprint(e.Status), fmt.Sprintf("%d %s", got.status, got.body)}}
	}
	if e.Setup {
		return nil
	}
	if e.Answer != nil {
		if w, g := names(e.Answer), names(got.headers); w != g {
			ds = append(ds, difference{"headers", w, g})
		}
		for _, h := range e.Answer {
			i := slices.IndexFunc(got.headers, func(g [2]string) bool { return g[0] == h[0] })
			if i >= 0 && !slices.Contains(skipped, h[0]) && !b.match(h[1], got.headers[i][1]) {
				ds = append(ds, difference{"header." + h[0], h[1], got.headers[i][1]})
			}
		}
	}
	if e.AnswerBody == "" {
		return ds
	}
	want, ok1 := parseText(e.AnswerBody)
	have, ok2 := parseText(got.body)
	if ok1 && ok2 {
		return append(ds, b.compare("body", want, have)...)
	}
	if !b.match(e.AnswerBody, got.body) {
		ds = append(ds, difference{"body", e.AnswerBody, got.body})
	}
	return ds
}

// names lists the headers of an answer, but for how its body is delimited.
func names(headers [][2]string) string {
	var list []string
	for _, h := range headers {
		if h[0] != "Transfer-Encoding" && h[0] != "Content-Length" && h[0] != "Connection" {
			list = append(list, h[0])
		}
	}
	return strings.Join(list, ", ")
}

// An answer is what came back.
type answer struct {
	status  int
	headers [][2]string // in order
	body    string
}

// ask sends one request on a connection of its own.
func ask(d *testkit.Daemon, e exchange) (*answer, error) {
	c, err := send(d, e)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return readAnswer(bufio.NewReader(c), e.Method)
}

// send writes a request to a new connection.
func send(d *testkit.Daemon, e exchange) (net.Conn, error) {
	c, err := net.Dial("unix", d.Socket)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	var req strings.Builder
	fmt.Fprintf(&req, "%s %s HTTP/1.1\r\n", e.Method, strings.ReplaceAll(e.Path, " ", "%20"))
	headers := e.Headers
	if !slices.ContainsFunc(headers, func(h [2]string) bool { return h[0] == "Host" }) {
		headers = append([][2]string{{"Host", "docker"}}, headers...)
	}
	if e.Setup && e.Body != "" {
		headers = append(headers, [2]string{"Content-Type", "application/json"})
	}
	for _, h := range headers {
		if h[0] != "Content-Length" {
			fmt.Fprintf(&req, "%s: %s\r\n", h[0], h[1])
		}
	}
	if e.Body != "" || e.Method == "POST" || e.Method == "PUT" {
		fmt.Fprintf(&req, "Content-Length: %d\r\n", len(e.Body))
	}
	if !slices.ContainsFunc(headers, func(h [2]string) bool { return h[0] == "Connection" }) {
		req.WriteString("Connection: close\r\n")
	}
	if _, err := io.WriteString(c, req.String()+"\r\n"+e.Body); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func readAnswer(r *bufio.Reader, method string) (*answer, error) {
	var a answer
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("%w after %q", err, head.String())
		}
		if head.Len() > 0 {
			if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": "); ok {
				a.headers = append(a.headers, [2]string{k, v})
			}
		}
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), r)), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	body, err := io.ReadAll(resp.Body)
	a.body = string(body)
	return &a, err
}

// clean removes what a section has made.
func clean(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	get := func(path string, v any) {
		a, err := ask(d, exchange{Method: "GET", Path: path})
		if err == nil {
			err = json.Unmarshal([]byte(a.body), v)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	remove := func(path string) {
		if a, err := ask(d, exchange{Method: "DELETE", Path: path}); err != nil || a.status >= 300 && a.status != 404 {
			t.Errorf("DELETE %s: %v %v", path, a, err)
		}
	}
	var containers, images []struct {
		ID string `json:"Id"`
	}
	get("/containers/json?all=1", &containers)
	for _, c := range containers {
		remove("/containers/" + c.ID + "?force=1&v=1")
	}
	var networks []struct{ Name string }
	get("/networks", &networks)
	for _, n := range networks {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			remove("/networks/" + n.Name)
		}
	}
	var volumes struct{ Volumes []struct{ Name string } }
	get("/volumes", &volumes)
	for _, v := range volumes.Volumes {
		remove("/volumes/" + v.Name)
	}
	get("/images/json?all=1", &images)
	for _, i := range images {
		remove("/images/" + i.ID + "?force=1")
	}
}
