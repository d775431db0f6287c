package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/testkit"
)

// registryServer is a registry server that is killed.
type registryServer struct {
	t    *testing.T
	data string
	cmd  *exec.Cmd
	url  string
	http *http.Client
	n    atomic.Int64 // answers
}

// start starts the server in its directory. What nobody refers to may be
// collected after grace.
func (s *registryServer) start(grace string) {
	s.t.Helper()
	s.cmd = exec.Command(testkit.Bin(s.t, "gantry-registry"), "serve", "--quiet", "--listen", "127.0.0.1:0", "--data", s.data, "--gc-interval", "0", "--gc-grace", grace)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var l struct{ Msg, Address string }
		if json.Unmarshal(sc.Bytes(), &l) == nil && l.Msg == "serving" {
			s.url = "http://" + l.Address
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	s.kill()
	s.t.Fatal("the registry does not serve")
}

// kill ends the server as a power cut of the process.
func (s *registryServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.http.CloseIdleConnections()
}

// errCut is an answer that did not come.
var errCut = errors.New("cut")

func (s *registryServer) do(method, path string, body []byte, contentType string) (int, []byte, http.Header, error) {
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, nil, nil, errCut
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, nil, errCut
	}
	s.n.Add(1)
	return resp.StatusCode, data, resp.Header, nil
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// pusher pushes, moves and deletes tags that are its own, and knows what was
// acknowledged.
type pusher struct {
	s    *registryServer
	n    int
	r    *rand.Rand
	repo string
	// tags are what each tag may mean: one manifest, "" for none, or both if the
	// answer was cut.
	tags map[string][]string
	// blobs were acknowledged.
	blobs map[string]bool
}

func (p *pusher) manifest(layers []string) string {
	desc := func(typ, d string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, typ, digest.FromString(d), len(d))
	}
	var list []string
	for _, l := range layers {
		list = append(list, desc("application/vnd.oci.image.layer.v1.tar", l))
	}
	return `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":` + desc("application/vnd.oci.image.config.v1+json", "{}") + `,"layers":[` + strings.Join(list, ",") + `]}`
}

// blob pushes a blob, in one or in two requests.
func (p *pusher) blob(data string) error {
	d := digest.FromString(data).String()
	if st, _, _, err := p.s.do("HEAD", "/v2/"+p.repo+"/blobs/"+d, nil, ""); err != nil || st == 200 {
		return err
	}
	path := "/v2/" + p.repo + "/blobs/uploads/"
	method := "POST"
	if p.r.IntN(2) == 0 {
		st, _, h, err := p.s.do("POST", path, nil, "")
		if err != nil || st != 202 {
			return errors.Join(err, wrong(st, 202))
		}
		half := len(data) / 2
		if st, _, _, err = p.s.do("PATCH", h.Get("Location"), []byte(data[:half]), ""); err != nil || st != 202 {
			return errors.Join(err, wrong(st, 202))
		}
		method, path, data = "PUT", h.Get("Location"), data[half:]
	}
	st, _, _, err := p.s.do(method, path+"?digest="+d, []byte(data), "application/octet-stream")
	if err == nil && st == 201 {
		p.blobs[d] = true
	}
	return errors.Join(err, wrong(st, 201))
}

func wrong(status, want int) error {
	if status == 0 || status == want {
		return nil
	}
	return fmt.Errorf("status %d, want %d", status, want)
}

func (p *pusher) layer() string {
	if p.r.IntN(8) == 0 {
		return strings.Repeat(fmt.Sprint("large", p.n, p.r.IntN(3), ";"), 40000)
	}
	return fmt.Sprint("layer", p.r.IntN(12)) // shared with others
}

// step does one thing. A cut is no error of the server.
func (p *pusher) step() error {
	tag := fmt.Sprint("t", p.n, "-", p.r.IntN(4))
	if len(p.tags[tag]) == 1 && p.tags[tag][0] != "" && p.r.IntN(4) == 0 {
		before := p.tags[tag]
		p.tags[tag] = append(before[:1:1], "")
		st, _, _, err := p.s.do("DELETE", "/v2/"+p.repo+"/manifests/"+tag, nil, "")
		if err == nil && st == 202 {
			p.tags[tag] = []string{""}
		}
		return errors.Join(err, wrong(st, 202))
	}
	layers := []string{p.layer(), p.layer()}
	m := p.manifest(layers)
	d := digest.FromString(m).String()
	for {
		for _, l := range append(layers, "{}") {
			if err := p.blob(l); err != nil {
				return err
			}
		}
		if p.tags[tag] == nil {
			p.tags[tag] = []string{""}
		}
		before := p.tags[tag]
		p.tags[tag] = append(before[:len(before):len(before)], d)
		st, text, _, err := p.s.do("PUT", "/v2/"+p.repo+"/manifests/"+tag, []byte(m), manifestType)
		switch {
		case err != nil:
			return err
		case st == 201:
			p.tags[tag] = []string{d}
			return nil
		case st != 404 || !strings.Contains(string(text), "MANIFEST_BLOB_UNKNOWN"):
			return fmt.Errorf("push: %d %s", st, text)
		}
		p.tags[tag] = before // a collection has been here: send it again
	}
}

// check finds what the server has lost of what it has acknowledged, and what it
// serves wrongly.
func (p *pusher) check(t *testing.T, what string) {
	for tag, may := range p.tags {
		st, text, _, err := p.s.do("GET", "/v2/"+p.repo+"/manifests/"+tag, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if st == 200 {
			got = digest.FromBytes(text).String()
		} else if st != 404 {
			t.Errorf("%s: %s: %d %s", what, tag, st, text)
		}
		ok := false
		for _, m := range may {
			ok = ok || m == got
		}
		if !ok {
			t.Errorf("%s: %s is %q, and was acknowledged to be one of %q", what, tag, got, may)
		}
		p.tags[tag] = []string{got}
		if got == "" {
			continue
		}
		var m struct {
			Layers []struct{ Digest digest.Digest }
		}
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			p.whole(t, what+": layer of "+tag, l.Digest.String())
		}
		p.whole(t, what+": config of "+tag, digest.FromString("{}").String())
	}
}

func (p *pusher) whole(t *testing.T, what, d string) {
	st, data, _, err := p.s.do("GET", "/v2/"+p.repo+"/blobs/"+d, nil, "")
	if err != nil || st != 200 || digest.FromBytes(data).String() != d {
		t.Errorf("%s: %s: %d, %d bytes that are %s, %v", what, d, st, len(data), digest.FromBytes(data), err)
	}
}

// The registry server is killed at any moment of pushes, deletions and
// collections of garbage: nothing that it has acknowledged is lost, nothing wrong
// is served, and nothing half written stays.
func TestKilledRegistry(t *testing.T) {
	cuts := 40
	if n, err := strconv.Atoi(os.Getenv("GANTRY_CRASH_ROUNDS")); err == nil {
		cuts = n
	}
	s := &registryServer{t: t, data: t.TempDir()}
	r := rand.New(rand.NewPCG(11, 12))
	var pushers []*pusher
	for n := range 3 {
		pushers = append(pushers, &pusher{s: s, n: n, r: rand.New(rand.NewPCG(uint64(n), 3)), repo: fmt.Sprint("team/app", n/2), tags: map[string][]string{}, blobs: map[string]bool{}})
	}
	steps, collections := 0, 0
	var mu sync.Mutex
	for cut := range cuts {
		// Without grace a collection takes at once what no manifest names; with it,
		// what was acknowledged stays though nothing names it yet.
		grace := []string{"0", "1h"}[cut%2]
		s.start(grace)
		for _, p := range pushers {
			p.check(t, fmt.Sprintf("after cut %d", cut))
			if grace == "0" { // since the last start there was an hour of grace
				for d := range p.blobs {
					p.whole(t, "a blob that was acknowledged", d)
				}
			}
			clear(p.blobs)
		}
		clean(t, s.data)
		if t.Failed() {
			s.kill()
			return
		}
		var wg sync.WaitGroup
		work := func(do func() error, count *int) {
			wg.Go(func() {
				for {
					err := do()
					if errors.Is(err, errCut) {
						return
					}
					if err != nil {
						t.Errorf("cut %d: %v", cut, err)
						return
					}
					mu.Lock()
					*count++
					mu.Unlock()
				}
			})
		}
		for _, p := range pushers {
			work(p.step, &steps)
		}
		work(func() error {
			st, _, _, err := s.do("POST", "/gc?untagged=1", nil, "")
			return errors.Join(err, wrong(st, 200))
		}, &collections)
		// After some answers, and then at any moment of the next ones.
		for target, late := s.n.Load()+int64(5+r.IntN(60)), time.Now().Add(time.Minute); s.n.Load() < target && !t.Failed() && time.Now().Before(late); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
		s.kill()
		wg.Wait()
	}
	t.Logf("%d cuts, %d pushes and deletions, %d collections", cuts, steps, collections)
	if steps < cuts/2 || collections < cuts/8 {
		t.Errorf("%d steps and %d collections in %d cuts are no test", steps, collections, cuts)
	}
}

// clean looks for what a killed server may not leave for good.
func clean(t *testing.T, data string) {
	half, err := filepath.Glob(filepath.Join(data, "objects", ".tmp-incoming", "*"))
	if err != nil {
		t.Fatal(err)
	}
	uploads, err := filepath.Glob(filepath.Join(data, "spool", "u-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uploads {
		if _, err := os.Stat(filepath.Join(u, "upload.json")); err != nil {
			half = append(half, u)
		}
	}
	if len(half) > 0 {
		t.Errorf("half-written files are left: %q", half)
	}
}
