// Package registry measures gantry-registry against Debian's docker-registry: a
// large push and pull, many small images, and memory.
//
//	GANTRY_FIGURES=1 GANTRY_BIN=$PWD/bin go test -v -timeout 30m ./test/bench/registry
//
// GANTRY_FIGURES_MB and GANTRY_FIGURES_ROUNDS say how much and how often. Both
// servers answer the same client in the same process, by turns, each from an
// empty directory.
package registry

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

const (
	layers       = 8
	small        = 1000 // images
	manifestType = "application/vnd.oci.image.manifest.v1+json"
)

// number reads a number from the environment.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// layer is a blob in a file.
type layer struct {
	file string
	size int64
	d    digest.Digest
}

func makeLayers(t *testing.T, dir string, size int64) (list []layer) {
	for i := range layers {
		l := layer{file: filepath.Join(dir, fmt.Sprint("layer", i)), size: size / layers}
		f, err := os.Create(l.file)
		if err != nil {
			t.Fatal(err)
		}
		h := digest.SHA256.Digester()
		_, err = io.CopyN(io.MultiWriter(f, h.Hash()), rand.NewChaCha8([32]byte{byte(i)}), l.size)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		l.d = h.Digest()
		list = append(list, l)
	}
	return list
}

// server is one that is measured.
type server struct {
	url  string
	pid  int
	http *http.Client
}

// ours starts gantry-registry, which ends with the test.
func ours(t *testing.T, dir string) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	cmd := exec.Command(testkit.Bin(t, "gantry-registry"), "serve", "--quiet", "--listen", host, "--data", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testkit.Eventually(t, "an answer", func() bool {
		resp, err := http.Get("http://" + host + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	return &server{url: "http://" + host, pid: cmd.Process.Pid}
}

func debian(t *testing.T, dir string) *server {
	host, p := registry.RunDebian(t, dir, fmt.Sprintf("storage: {filesystem: {rootdirectory: %s/data}}\n", dir))
	return &server{url: "http://" + host, pid: p.Pid}
}

// do sends a request and reads the answer.
func (s *server) do(method, path string, body io.Reader, size int64, want int) (*http.Response, error) {
	if !strings.HasPrefix(path, "http") {
		path = s.url + path
	}
	req, err := http.NewRequest(method, path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	typ := "application/octet-stream"
	if strings.Contains(path, "/manifests/") {
		typ = manifestType
		req.Header.Set("Accept", typ)
	}
	req.Header.Set("Content-Type", typ)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return resp, nil
}

// blob pushes a blob as docker does: POST, PATCH, PUT.
func (s *server) blob(d digest.Digest, body io.Reader, size int64) error {
	resp, err := s.do("POST", "/v2/bench/app/blobs/uploads/", nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	if resp, err = s.do("PATCH", resp.Header.Get("Location"), body, size, http.StatusAccepted); err != nil {
		return err
	}
	at := resp.Header.Get("Location")
	join := "?"
	if strings.Contains(at, "?") {
		join = "&"
	}
	_, err = s.do("PUT", at+join+"digest="+d.String(), nil, 0, http.StatusCreated)
	return err
}

// each does something so many times, eight at once.
func each(n int, do func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error { return do(i) })
	}
	return g.Wait()
}

// peak returns the most memory that a process has had, in MB.
func peak(t *testing.T, pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1000
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// round measures a server once: seconds of each step, and megabytes.
func round(t *testing.T, s *server, blobs []layer) map[string]float64 {
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10, DisableCompression: true}}
	defer s.http.CloseIdleConnections()
	got := map[string]float64{}
	step := func(name string, do func() error) {
		begin := time.Now()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got[name] = time.Since(begin).Seconds()
	}
	step("push", func() error {
		return each(len(blobs), func(i int) error {
			f, err := os.Open(blobs[i].file)
			if err != nil {
				return err
			}
			defer f.Close()
			return s.blob(blobs[i].d, f, blobs[i].size)
		})
	})
	step("pull", func() error {
		return each(len(blobs), func(i int) error {
			_, err := s.do("GET", "/v2/bench/app/blobs/"+blobs[i].d.String(), nil, 0, http.StatusOK)
			return err
		})
	})
	got["MB after blobs"] = peak(t, s.pid)
	step("push small", func() error {
		return each(small, func(i int) error {
			config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","i":%d}`, i)
			d := digest.FromString(config)
			if err := s.blob(d, strings.NewReader(config), int64(len(config))); err != nil {
				return err
			}
			m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
				manifestType, d, len(config), blobs[0].d, blobs[0].size)
			_, err := s.do("PUT", fmt.Sprintf("/v2/bench/app/manifests/v%d", i), bytes.NewReader(m), int64(len(m)), http.StatusCreated)
			return err
		})
	})
	step("pull small", func() error {
		return each(small, func(i int) error {
			_, err := s.do("GET", fmt.Sprintf("/v2/bench/app/manifests/v%d", i), nil, 0, http.StatusOK)
			return err
		})
	})
	got["MB"] = peak(t, s.pid)
	return got
}

// TestFigures prints the medians.
func TestFigures(t *testing.T) {
	if os.Getenv("GANTRY_FIGURES") == "" {
		t.Skip("asked for by GANTRY_FIGURES=1")
	}
	mb, rounds := number("GANTRY_FIGURES_MB", 1024), number("GANTRY_FIGURES_ROUNDS", 3)
	blobs := makeLayers(t, t.TempDir(), int64(mb)<<20)
	all := map[string]map[string][]float64{"gantry": {}, "debian": {}}
	for range rounds {
		for who, begin := range map[string]func(*testing.T, string) *server{"gantry": ours, "debian": debian} {
			t.Run(who, func(t *testing.T) {
				for k, v := range round(t, begin(t, t.TempDir()), blobs) {
					all[who][k] = append(all[who][k], v)
				}
			})
		}
	}
	t.Logf("%d MB in %d layers, %d small images, %d processors, %d rounds", mb, layers, small, runtime.NumCPU(), rounds)
	for _, k := range []string{"push", "pull", "MB after blobs", "push small", "pull small", "MB"} {
		line := fmt.Sprintf("%-15s", k)
		for _, who := range []string{"gantry", "debian"} {
			v := all[who][k]
			if len(v) == 0 {
				t.Fatal("nothing was measured")
			}
			slices.Sort(v)
			line += fmt.Sprintf("  %s %.2f (%.2f to %.2f)", who, v[len(v)/2], v[0], v[len(v)-1])
		}
		t.Log(line)
	}
}
