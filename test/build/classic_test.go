package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"gantry/internal/testkit"
)

// tarball is a context of files, by name.
func tarball(t testing.TB, files map[string]string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg, ModTime: stamp}))
		_, err := io.WriteString(w, data)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// TestClassic drives the classic API with one daemon.
func TestClassic(t *testing.T) {
	d := testkit.StartBusybox(t, "--experimental")
	t.Run("compressions", func(t *testing.T) { classicCompressions(t, d) })
	t.Run("remotes", func(t *testing.T) { classicRemotes(t, d) })
	t.Run("changed contents with equal stamps", func(t *testing.T) { classicStamps(t, d) })
	t.Run("only what changed is built", func(t *testing.T) { classicOnlyChanged(t, d) })
	t.Run("a client that goes ends its build", func(t *testing.T) { classicCancel(t, d) })
	t.Run("limits reach the steps", func(t *testing.T) { classicLimits(t, d) })
	t.Run("squash", func(t *testing.T) { classicSquash(t, d) })
	t.Run("docker and gantry", func(t *testing.T) { classicCommands(t, d) })
	t.Run("docker-py", func(t *testing.T) { classicPython(t, d) })
	t.Run("hostile contexts", func(t *testing.T) { classicHostile(t, d) })
}

func mustBuild(t *testing.T, d *testkit.Daemon, q url.Values, body io.Reader) string {
	t.Helper()
	log, err := postBuild(d, q, body)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return log
}

func classicCompressions(t *testing.T, d *testkit.Daemon) {
	plain := tarball(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "packed\n"})
	packed := map[string]func() []byte{
		"identity": func() []byte { return plain },
		"gzip": func() []byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(plain)
			must(t, errors.Join(err, z.Close()))
			return b.Bytes()
		},
		"zstd": func() []byte {
			z, err := zstd.NewWriter(nil)
			must(t, err)
			defer z.Close()
			return z.EncodeAll(plain, nil)
		},
	}
	for _, program := range []string{"bzip2", "xz"} {
		packed[program] = func() []byte {
			cmd := exec.Command(program, "-c")
			cmd.Stdin = bytes.NewReader(plain)
			out, err := cmd.Output()
			must(t, err)
			return out
		}
	}
	ids := map[string]bool{}
	for name, pack := range packed {
		log := mustBuild(t, d, url.Values{"q": {"1"}}, bytes.NewReader(pack()))
		if ids[log] = true; len(ids) != 1 {
			t.Errorf("%s: another image: %s", name, log)
		}
	}
}

func classicRemotes(t *testing.T, d *testkit.Daemon) {
	dir := t.TempDir()
	tree := &testCase{dir: dir}
	must(t, os.MkdirAll(filepath.Join(dir, "git/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "git/sub/Dockerfile"), []byte("FROM busybox\nCOPY g /g\nRUN cat /g\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "git/sub/g"), []byte("from git\n"), 0o644))
	tree.repository(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/ctx.tar", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(tarball(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY f /f\nRUN cat /f\n", "f": "from a tar\n"}))
	})
	mux.HandleFunc("/Dockerfile", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "FROM busybox\nRUN echo from a file\n")
	})
	mux.HandleFunc("/repo.git/", tree.git)
	s := httptest.NewServer(mux)
	defer s.Close()
	for remote, want := range map[string]string{"/ctx.tar": "from a tar\n", "/Dockerfile": "from a file\n", "/repo.git#main:sub": "from git\n"} {
		log := mustBuild(t, d, url.Values{"remote": {s.URL + remote}}, nil)
		if !strings.Contains(log, want) || !strings.Contains(log, "Successfully built ") {
			t.Errorf("%s:\n%s", remote, log)
		}
	}
	if _, err := postBuild(d, url.Values{"remote": {s.URL + "/nosuch"}}, nil); err == nil || !strings.Contains(err.Error(), "error downloading remote context") {
		t.Errorf("missing: %v", err)
	}
}

// Contexts of programs have the same times, and often the same sizes.
func classicStamps(t *testing.T, d *testkit.Daemon) {
	for _, word := range []string{"one", "two", "one", "six"} {
		log := mustBuild(t, d, url.Values{"t": {"stamps"}}, bytes.NewReader(tarball(t, map[string]string{
			"Dockerfile": "FROM busybox\nCOPY f /f\nRUN echo " + word + "; cat /f\n", "f": word + "\n"})))
		if got := d.OK(t, "run", "--rm", "stamps", "cat", "/f"); got != word {
			t.Errorf("built with %q: %s\n%s", word, got, log)
		}
	}
}

func classicOnlyChanged(t *testing.T, d *testkit.Daemon) {
	files := map[string]string{"Dockerfile": "FROM busybox\nRUN echo first\nCOPY a /a\nRUN echo second\nCOPY b /b\nRUN echo third\n", "a": "1\n", "b": "1\n"}
	build := func() string {
		return strings.Join(cachedSteps(mustBuild(t, d, nil, bytes.NewReader(tarball(t, files)))), " ")
	}
	if got := build(); got != "built built built built built" {
		t.Errorf("at first: %s", got)
	}
	if got := build(); got != "cached cached cached cached cached" {
		t.Errorf("again: %s", got)
	}
	files["b"] = "22\n"
	if got := build(); got != "cached cached cached built built" {
		t.Errorf("b changed: %s", got)
	}
	files["unused"] = "x"
	if got := build(); got != "cached cached cached cached cached" {
		t.Errorf("a file that no step takes: %s", got)
	}
	if got := strings.Join(cachedSteps(mustBuild(t, d, url.Values{"nocache": {"1"}}, bytes.NewReader(tarball(t, files)))), " "); got != "built built built built built" {
		t.Errorf("without the cache: %s", got)
	}
}

// cachedSteps says of each step after FROM whether it came from the cache.
func cachedSteps(log string) []string {
	var list []string
	for i, part := range strings.Split(log, "Step ")[1:] {
		switch {
		case i == 0:
		case strings.Contains(part, " ---> Using cache\n"):
			list = append(list, "cached")
		default:
			list = append(list, "built")
		}
	}
	return list
}

func classicCancel(t *testing.T, d *testkit.Daemon) {
	mark := fmt.Sprintf("31%d", time.Now().UnixNano()%1e7)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gantry/build", bytes.NewReader(tarball(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo started; sleep " + mark + "\n"})))
	must(t, err)
	resp, err := d.Client().Do(req)
	must(t, err)
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct{ Stream, Error string }
		must(t, dec.Decode(&m))
		if m.Error != "" {
			t.Fatal(m.Error)
		}
		if m.Stream == "started\n" {
			break
		}
	}
	for deadline := time.Now().Add(time.Minute); !running(mark); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the step does not run")
		}
	}
	cancel()
	for deadline := time.Now().Add(time.Minute); running(mark); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the step runs on without its client")
		}
	}
}

// running says whether a process sleeps for that time.
func running(seconds string) bool {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		if text, err := os.ReadFile(p); err == nil && bytes.Contains(text, []byte("sleep\x00"+seconds+"\x00")) {
			return true
		}
	}
	return false
}

func classicLimits(t *testing.T, d *testkit.Daemon) {
	log := mustBuild(t, d, url.Values{
		"shmsize": {"1048576"}, "ulimits": {`[{"Name":"nofile","Soft":77,"Hard":88}]`}, "extrahosts": {"there:10.9.8.7"}, "networkmode": {"none"},
	}, bytes.NewReader(tarball(t, map[string]string{
		"Dockerfile": "FROM busybox\nRUN ulimit -n; df -k /dev/shm | awk 'NR==2 {print \"shm\", $2}'; grep there /etc/hosts; ls /sys/class/net | xargs echo net\n"})))
	for _, want := range []string{"77\n", "shm 1024\n", "10.9.8.7\tthere\n", "net lo\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

func classicSquash(t *testing.T, d *testkit.Daemon) {
	log := mustBuild(t, d, url.Values{"squash": {"1"}, "t": {"squashed"}}, bytes.NewReader(tarball(t, map[string]string{
		"Dockerfile": "FROM busybox\nRUN echo secret > /gone; echo kept > /kept\nENV A=1\nRUN rm /gone /etc/shadow\n"})))
	if !strings.Contains(log, "Successfully tagged squashed:latest") {
		t.Error(log)
	}
	if got := d.OK(t, "image", "inspect", "--format", "{{len .RootFS.Layers}} {{.Config.Env}}", "squashed"); !strings.HasPrefix(got, "2 ") || !strings.Contains(got, "A=1") {
		t.Errorf("layers and environment: %s", got)
	}
	if got := d.OK(t, "run", "--rm", "squashed", "sh", "-c", "cat /kept; ls /gone /etc/shadow 2>&1 | wc -l"); got != "kept\n2" {
		t.Errorf("the tree: %q", got)
	}
	if got := d.OK(t, "history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "squashed"); strings.Count(got, "0B") < 3 || !strings.Contains(got, "ENV A=1") {
		t.Errorf("the history is not kept: %s", got)
	}
	var saved bytes.Buffer
	resp, err := d.Client().Get("http://gantry/images/squashed/get")
	must(t, err)
	defer resp.Body.Close()
	_, err = saved.ReadFrom(resp.Body)
	must(t, err)
	files, err := readTar(&saved)
	must(t, err)
	for name, data := range files {
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, _ = io.ReadAll(z)
		}
		if bytes.Contains(data, []byte("secret\n")) {
			t.Errorf("%s still has what was removed", name)
		}
	}
}

// classicCommands builds with the docker command line, which has no plugin, and
// with gantry's old way.
func classicCommands(t *testing.T, d *testkit.Daemon) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nARG X\nRUN echo said $X\nRUN exit $X\n"), 0o644))
	env := append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket, "GANTRY_HOST=unix://"+d.Socket, "DOCKER_BUILDKIT=0", "DOCKER_CONFIG="+dir)
	for _, program := range []string{docker, d.Program("gantry")} {
		for x, code := range map[string]int{"0": 0, "7": 7} {
			cmd := exec.Command(program, "build", "-t", "cmd:"+x, "--build-arg", "X="+x, "--iidfile", filepath.Join(dir, "iid"+x), dir)
			cmd.Env = env
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("%s: exit %d, want %d\n%s", program, got, code, out)
			}
			want := "Successfully tagged cmd:0\n"
			if code != 0 {
				want = "The command '/bin/sh -c exit $X' returned a non-zero code: 7"
			}
			if !strings.Contains(string(out), want) || !strings.Contains(string(out), "said "+x+"\n") && !strings.Contains(string(out), "Using cache") {
				t.Errorf("%s: no %q in\n%s", program, want, out)
			}
		}
		iid, err := os.ReadFile(filepath.Join(dir, "iid0"))
		must(t, err)
		if got := d.OK(t, "image", "inspect", "--format", "{{.Id}}", "cmd:0"); got != strings.TrimSpace(string(iid)) {
			t.Errorf("%s: iidfile %q, image %s", program, iid, got)
		}
	}
}

// script asserts for itself.
const script = `
import docker, io
c = docker.from_env()
img, logs = c.images.build(fileobj=io.BytesIO(b"FROM busybox\nARG A\nRUN echo hi $A\nLABEL x=y\n"), tag="py:1", buildargs={"A": "b"}, labels={"l": "m"}, rm=True)
text = "".join(l.get("stream", "") for l in logs)
assert "hi b\n" in text and "Successfully built" in text, text
assert img.tags == ["py:1"] and img.labels == {"x": "y", "l": "m"}, (img.tags, img.labels)
assert c.containers.run(img, "echo ran", remove=True) == b"ran\n"
try:
    c.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"))
    raise SystemExit("no error")
except docker.errors.BuildError as e:
    assert "returned a non-zero code: 9" in e.msg, e.msg
try:
    c.images.build(fileobj=io.BytesIO(b"FROM busybox\nBOGUS\n"))
    raise SystemExit("no error")
except docker.errors.APIError as e:
    assert e.status_code == 400 and "unknown instruction: BOGUS" in e.explanation, e
`

func classicPython(t *testing.T, d *testkit.Daemon) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import docker").Run() != nil {
		t.Skip("python3 with the docker module is not on this machine")
	}
	cmd := exec.Command(python, "-c", script)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Names and links of a context that lead out of it lead nowhere (row S12).
func classicHostile(t *testing.T, d *testkit.Daemon) {
	canary := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(canary, []byte("host's own\n"), 0o600))
	up := strings.Repeat("../", 20)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(h tar.Header, data string) {
		h.Size, h.Mode = int64(len(data)), 0o644
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, data)
		must(t, err)
	}
	put(tar.Header{Name: "Dockerfile", Typeflag: tar.TypeReg}, "FROM busybox\nCOPY . /ctx\nRUN find /ctx | sort; cat /ctx/link 2>/dev/null; true\nCOPY link /out\n")
	put(tar.Header{Name: up + canary[1:], Typeflag: tar.TypeReg}, "overwritten\n")
	put(tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: up + "etc/hostname"}, "")
	put(tar.Header{Name: "dir", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(canary)}, "")
	put(tar.Header{Name: "dir/planted", Typeflag: tar.TypeReg}, "planted\n")
	must(t, w.Close())
	log, err := postBuild(d, nil, &buf)
	if err == nil || !strings.Contains(err.Error(), "file not found in build context") {
		t.Errorf("a link out of the context: %v\n%s", err, log)
	}
	if got, _ := os.ReadFile(canary); string(got) != "host's own\n" {
		t.Errorf("a file of the host has changed: %q", got)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(canary), "planted")); err == nil {
		t.Error("a file was planted by way of a link")
	}
}
