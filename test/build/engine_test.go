package build_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"

	"gantry/internal/testkit"
)

// TestEngineBuilds asks the API for what its own builds may be told: networks,
// limits, triggers, sessions.
func TestEngineBuilds(t *testing.T) {
	d := testkit.StartBusybox(t)
	t.Run("networks", func(t *testing.T) { engineNetworks(t, d) })
	t.Run("triggers", func(t *testing.T) { engineTriggers(t, d) })
	t.Run("limits", func(t *testing.T) { engineLimits(t, d) })
	t.Run("session", func(t *testing.T) { engineSession(t, d) })
	t.Run("rebuilds", func(t *testing.T) { engineRebuilds(t, d) })
}

func dockerfile(t *testing.T, text string) io.Reader {
	return bytes.NewReader(tarball(t, map[string]string{"Dockerfile": text}))
}

func engineNetworks(t *testing.T, d *testkit.Daemon) {
	d.OK(t, "network", "create", "--subnet", "10.231.7.0/24", "builders")
	d.OK(t, "run", "-d", "--name", "website", "--network", "builders", "busybox", "sh", "-c", "echo served > /index.html; httpd -f -p 80 -h /")
	log := mustBuild(t, d, url.Values{"networkmode": {"builders"}, "nocache": {"1"}, "extrahosts": {"other:10.1.2.3"}},
		dockerfile(t, "FROM busybox\nRUN ip -4 addr show; cat /etc/hosts; wget -qO- http://website/\nRUN --network=none ip -4 addr show > /addr; ! grep 10.231 /addr\n"))
	if !strings.Contains(log, "10.231.7.") || !strings.Contains(log, "served\n") || !strings.Contains(log, "10.1.2.3\tother") {
		t.Errorf("on a network: %s", log)
	}
	if strings.Contains(log, "network.build.gantry") {
		t.Errorf("how a step is told of its network is seen by it: %s", log)
	}
	log = mustBuild(t, d, url.Values{"networkmode": {"container:website"}, "nocache": {"1"}}, dockerfile(t, "FROM busybox\nRUN wget -qO- http://127.0.0.1/\n"))
	if !strings.Contains(log, "served\n") {
		t.Errorf("in a container's network: %s", log)
	}
	for mode, want := range map[string]string{"nosuchnet": "network nosuchnet not found", "container:nosuchnet": "No such container: nosuchnet"} {
		if log, err := postBuild(d, url.Values{"networkmode": {mode}, "nocache": {"1"}}, dockerfile(t, "FROM busybox\nRUN true\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\n%s", mode, err, log)
		}
	}
	// A guessed ticket is none.
	if _, err := postBuild(d, url.Values{"extrahosts": {"network.build.gantry.internal:fd00::1"}}, dockerfile(t, "FROM busybox\nRUN true\n")); err == nil || !strings.Contains(err.Error(), "no step can have a host") {
		t.Errorf("a guessed ticket: %v", err)
	}
	d.OK(t, "rm", "-f", "website")
	d.OK(t, "network", "rm", "builders")
}

func engineTriggers(t *testing.T, d *testkit.Daemon) {
	mustBuild(t, d, url.Values{"t": {"triggers"}}, dockerfile(t, "FROM busybox\nONBUILD ENV WHO=them\nONBUILD RUN echo of $WHO | tee /trigger\n"))
	build := func() string {
		return mustBuild(t, d, url.Values{"t": {"triggered"}}, dockerfile(t, "FROM triggers\nRUN cat /trigger; echo own\n"))
	}
	log := newIDs().hide(build())
	want := "Step 1/2 : FROM triggers\n# Executing 2 build triggers\n ---> Running in A\n ---> Removed intermediate container A\n ---> Running in B\nof them\n" +
		" ---> Removed intermediate container B\n ---> C\nStep 2/2 : RUN cat /trigger; echo own\n ---> Running in D\nof them\nown\n ---> Removed intermediate container D\n ---> E\n"
	if !strings.HasPrefix(log, want) {
		t.Errorf("got\n%s\nwant\n%s", log, want)
	}
	log = newIDs().hide(build())
	if want := "Step 1/2 : FROM triggers\n# Executing 2 build triggers\n ---> Using cache\n ---> Using cache\n ---> A\nStep 2/2 : RUN cat /trigger; echo own\n ---> Using cache\n ---> B\n"; !strings.HasPrefix(log, want) {
		t.Errorf("again: got\n%s\nwant\n%s", log, want)
	}
}

func engineLimits(t *testing.T, d *testkit.Daemon) {
	if _, err := postBuild(d, url.Values{"securityopt": {"seccomp=unconfined"}}, dockerfile(t, "FROM busybox\n")); err == nil ||
		!strings.HasPrefix(err.Error(), "400 ") || !strings.Contains(err.Error(), "The daemon on this platform does not support setting security options on build") {
		t.Errorf("security options: %v", err)
	}
	// What a step needs above its memory ends it, and the error says why.
	log, err := postBuild(d, url.Values{"memory": {"33554432"}, "memswap": {"33554432"}}, dockerfile(t, "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=256M count=1\n"))
	if err == nil || !strings.Contains(err.Error(), "returned a non-zero code: 137") || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("a step that needs too much: %v\n%s", err, log)
	}
	t.Cleanup(func() { // a parent that was asked for stays, as Docker's does
		for _, pattern := range []string{"/sys/fs/cgroup/gantry-build-test", "/sys/fs/cgroup/*/gantry-build-test"} {
			left, _ := filepath.Glob(pattern)
			for _, dir := range left {
				_ = os.Remove(dir)
			}
		}
	})
	log = mustBuild(t, d, url.Values{"cgroupparent": {"/gantry-build-test"}, "cpushares": {"512"}, "cpuperiod": {"100000"}, "cpuquota": {"50000"}, "cpusetcpus": {"0"}, "memory": {"67108864"}},
		dockerfile(t, "FROM busybox\nRUN cat /proc/self/cgroup; grep Cpus_allowed_list /proc/self/status; (cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max) 2>/dev/null; (cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max) 2>/dev/null\n"))
	for _, want := range []string{"67108864\n", "50000", "Cpus_allowed_list:\t0\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// engineSession builds as clients of BuildKit did before its own API was there:
// POST /build?version=2 with a session for secrets.
func engineSession(t *testing.T, d *testkit.Daemon) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := session.NewSession(ctx, "")
	must(t, err)
	s.Allow(secretsprovider.FromMap(map[string][]byte{"word": []byte("secret of the client")}))
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return upgrade(ctx, d, "/session", proto, meta)
		})
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gantry/build?"+url.Values{"version": {"2"}, "session": {s.ID()}, "t": {"by-session"}, "buildid": {"engine-session"}}.Encode(),
		bytes.NewReader(tarball(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY f /f\nRUN --mount=type=secret,id=word wc -c < /run/secrets/word; cat /f\n", "f": "of the body\n"})))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := d.Client().Do(req)
	must(t, err)
	defer resp.Body.Close()
	var said, image string
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct {
			ID, Error string
			Aux       json.RawMessage
		}
		if err := dec.Decode(&m); err == io.EOF {
			break
		} else if err != nil || m.Error != "" {
			t.Fatal(err, m.Error)
		}
		switch m.ID {
		case "moby.buildkit.trace":
			var data []byte
			must(t, json.Unmarshal(m.Aux, &data))
			var status controlapi.StatusResponse
			must(t, status.UnmarshalVT(data))
			for _, l := range status.Logs {
				said += string(l.Msg)
			}
		case "moby.image.id":
			var id struct{ ID string }
			must(t, json.Unmarshal(m.Aux, &id))
			image = id.ID
		}
	}
	if !strings.Contains(said, "20\n") || !strings.Contains(said, "of the body\n") {
		t.Errorf("the steps said %q", said)
	}
	if got := d.OK(t, "image", "inspect", "--format", "{{.Id}}", "by-session"); got != image {
		t.Errorf("the image is %s, told was %s", got, image)
	}
	must(t, s.Close())
	<-ended
}

// upgrade opens a connection of another protocol.
func upgrade(ctx context.Context, d *testkit.Daemon, path, proto string, meta map[string][]string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.Socket)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gantry"+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range meta {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// engineRebuilds builds with provenance, which tells of times: without a change
// there is no new image, named or not.
func engineRebuilds(t *testing.T, d *testkit.Daemon) {
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nCOPY in /in\nRUN cat /in\n", "in": "first"})
	dangling := func() string { return d.OK(t, "image", "ls", "-q", "--filter", "dangling=true") }
	first := map[string]string{}
	var before string
	for round := range 2 {
		for _, mode := range []string{"min", "max"} {
			out, _ := c.ok("build", "-q", "--provenance", "mode="+mode, "-t", "again:"+mode, ".")
			id := strings.TrimSpace(out)
			if first[mode] == "" {
				first[mode] = id
			}
			if got := d.OK(t, "image", "inspect", "--format", "{{.Id}}", "again:"+mode); got != id || id != first[mode] {
				t.Errorf("%s: told was %s, the image is %s, it was %s", mode, id, got, first[mode])
			}
		}
		// The names are attested too.
		out, _ := c.ok("build", "-q", "--provenance", "mode=min", ".")
		if round == 0 {
			before, first["none"] = dangling(), strings.TrimSpace(out)
		} else if id := strings.TrimSpace(out); id != first["none"] {
			t.Errorf("without a name: %s, not %s", id, first["none"])
		}
	}
	if first["min"] == first["max"] {
		t.Error("what is attested is not looked at")
	}
	if got := dangling(); got != before {
		t.Errorf("builds without a change left %s", got)
	}
	if got := d.OK(t, "run", "--rm", first["max"], "cat", "/in"); got != "first" {
		t.Errorf("the image has %q", got)
	}
	c.write("in", "second")
	out, _ := c.ok("build", "-q", "--provenance", "mode=max", "-t", "again:max", ".")
	if id := strings.TrimSpace(out); id == first["max"] || !strings.Contains(dangling(), first["max"][7:19]) {
		t.Errorf("with a change: %s, dangling are %s", id, dangling())
	}
	if got := d.OK(t, "run", "--rm", "again:max", "cat", "/in"); got != "second" {
		t.Errorf("the image has %q", got)
	}
}
