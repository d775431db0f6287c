package clients_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gantry/internal/testkit"
)

// judge is an authorization plugin.
type judge struct {
	mu   sync.Mutex
	seen []string
	deny func(method, verb, uri, body string) string
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/Plugin.Activate" {
		_ = json.NewEncoder(w).Encode(map[string]any{"Implements": []string{"authz"}})
		return
	}
	var in struct {
		RequestMethod, RequestUri string
		RequestBody, ResponseBody []byte
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	j.mu.Lock()
	defer j.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/AuthZPlugin.")
	body := string(in.RequestBody)
	if method == "AuthZRes" {
		body = string(in.ResponseBody)
	}
	j.seen = append(j.seen, method+" "+in.RequestMethod+" "+in.RequestUri+" "+body)
	msg := j.deny(method, in.RequestMethod, in.RequestUri, body)
	_ = json.NewEncoder(w).Encode(map[string]any{"Allow": msg == "", "Msg": msg})
}

// TestAuthorizationPlugin: a plugin sees requests and answers and can deny both;
// one that is away denies.
func TestAuthorizationPlugin(t *testing.T) {
	j := &judge{deny: func(string, string, string, string) string { return "" }}
	d := testkit.StartDaemon(t)
	l, err := net.Listen("unix", filepath.Join(mkdir(t, d.Run, "plugins"), "judge.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: j}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	d.Stop(t)
	d.Args("--authorization-plugin", "judge")
	d.Start(t)
	d.LoadBusybox(t)
	j.mu.Lock()
	j.deny = func(method, verb, uri, body string) string {
		switch {
		case method == "AuthZReq" && strings.Contains(body, `"Privileged":true`):
			return "no privileges"
		case method == "AuthZRes" && strings.Contains(uri, "/volumes/secret") && strings.Contains(body, "secret"):
			return "not to be seen"
		}
		return ""
	}
	j.mu.Unlock()
	no := func(text string, args ...string) {
		t.Helper()
		if out, err := d.Gantry(args...); err == nil || !strings.Contains(out+err.Error(), text) {
			t.Errorf("%v: %v, %q; want %q", args, err, out, text)
		}
	}
	no("authorization denied by plugin judge: no privileges", "create", "--privileged", "busybox")
	if got := d.OK(t, "run", "--rm", "-i", "busybox", "echo", "streams"); got != "streams" {
		t.Errorf("%q", got)
	}
	d.OK(t, "volume", "create", "secret")
	no("authorization denied by plugin judge: not to be seen", "volume", "inspect", "secret")
	d.OK(t, "volume", "rm", "secret")
	huge := `"A":"` + strings.Repeat("x", 2<<20) + `"`
	res, err := d.Client().Post("http://gantry/containers/create", "application/json", strings.NewReader(`{"HostConfig":{"Privileged":true},"Labels":{`+huge+`}}`))
	if err == nil && res.StatusCode != http.StatusForbidden { // or cut off while it is being sent
		t.Errorf("unseen: %v %v", res, err)
	}
	srv.Close()
	no("plugin judge failed with error", "ps")
	l, err = net.Listen("unix", filepath.Join(d.Run, "plugins", "judge.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv2 := &http.Server{Handler: j}
	go srv2.Serve(l)
	d.OK(t, "ps")
	d.Stop(t)
	srv2.Close()
	d.Args()
	d.Start(t)
}

func mkdir(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
