package security

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

const secret = "this file is the host's"

// copyThrough copies into and out of paths of a container until the time is over
// and returns how often. What comes out must not hold the secret.
func copyThrough(t *testing.T, d *testkit.Daemon, name string, upload []byte, until time.Time) (in, out int) {
	client := d.Client()
	do := func(method, path string, body io.Reader) []byte {
		req, err := http.NewRequest(method, "http://x/containers/"+name+"/archive?path="+url.QueryEscape(path), body)
		if err != nil {
			t.Error(err)
			return nil
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil // cut off: a file went away half-way
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == http.StatusOK {
			if method == http.MethodPut {
				in++
			} else {
				out++
			}
		}
		return data
	}
	for time.Now().Before(until) {
		for _, p := range []string{"/race/swap/x", "/race/swap/x/f", "/race/.", "/race/m/x"} {
			if data := do(http.MethodGet, p, nil); bytes.Contains(data, []byte(secret)) {
				t.Fatalf("%s: %s let the host's file out", name, p)
			}
			do(http.MethodHead, p, nil)
		}
		for _, p := range []string{"/race", "/race/swap", "/race/swap/x", "/race/m"} {
			do(http.MethodPut, p, bytes.NewReader(upload))
		}
	}
	return in, out
}

// everyKind is a tar that sets owners, modes and times of all kinds of files,
// through names that somebody is exchanging.
func everyKind(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, prefix := range []string{"", "swap/", "swap/x/", "x/"} {
		for _, h := range []tar.Header{
			{Typeflag: tar.TypeDir, Name: "made/", Mode: 0o6777}, {Typeflag: tar.TypeReg, Name: "f", Size: 3, Mode: 0o6777},
			{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o6777}, {Typeflag: tar.TypeChar, Name: "c", Mode: 0o6777, Devmajor: 1, Devminor: 3},
			{Typeflag: tar.TypeLink, Name: "h", Linkname: prefix + "f"}, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "f"},
		} {
			h.Name, h.Uid, h.Gid, h.ModTime = prefix+h.Name, 33, 44, testkit.Stamp
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				io.WriteString(w, "bad")
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// CVE-2018-15664, CVE-2019-10152, CVE-2026-42306, CVE-2021-41089: a process of
// the container exchanges directories for links, and mounts over them, while
// files are copied in and out of it, and of one that shares its volume and does
// not run. The host's files stay unread and untouched.
func TestCopyRace(t *testing.T) {
	d := testkit.StartBusybox(t)
	canary := t.TempDir()
	for _, p := range []string{"/x", "/x/x"} {
		if err := os.MkdirAll(canary+p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(canary+p+"/f", []byte(secret), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, canary)
	d.OK(t, "run", "-d", "--name", "attacker", "--cap-add", "SYS_ADMIN", "-v", "shared:/race", "busybox", "sh", "-c",
		"mkdir -p /race/swap/x /race/m/x; echo in >/race/swap/x/f; ln -s "+canary+" /race/link; ln -s ../../../../../../../../../.."+canary+" /race/up; touch /race/ready; "+
			"while :; do mount -t tmpfs none /race/m; mkdir /race/m/x; umount /race/m; mount --bind /race/swap /race/m; umount /race/m; done 2>/dev/null")
	d.OK(t, "create", "--name", "created", "-v", "shared:/race", "busybox")
	pid := d.OK(t, "inspect", "-f", "{{.State.Pid}}", "attacker")
	for range 200 {
		if _, err := os.Stat("/proc/" + pid + "/root/race/ready"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	// Done by descriptor in the container's own tree, as a process in it would.
	fd, err := unix.Open("/proc/"+pid+"/root/race", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var swaps atomic.Int64
	var stop atomic.Bool
	var attack, copies sync.WaitGroup
	attack.Go(func() {
		for !stop.Load() {
			for _, to := range []string{"link", "up"} {
				for range 2 {
					if unix.Renameat2(fd, "swap", fd, to, unix.RENAME_EXCHANGE) == nil {
						swaps.Add(1)
					}
				}
			}
		}
	})
	upload, until := everyKind(t), time.Now().Add(5*time.Second)
	var in, out atomic.Int64
	for _, name := range []string{"attacker", "created"} {
		copies.Go(func() {
			i, o := copyThrough(t, d, name, upload, until)
			in.Add(int64(i))
			out.Add(int64(o))
		})
	}
	copies.Wait()
	stop.Store(true)
	attack.Wait()
	t.Logf("%d exchanges; %d copies in, %d out went well", swaps.Load(), in.Load(), out.Load())
	if swaps.Load() < 1000 || in.Load() == 0 || out.Load() == 0 {
		t.Error("there was no race")
	}
	if after := snapshot(t, canary); after != before {
		t.Errorf("the host has changed:\n%s\nbefore:\n%s", after, before)
	}
}

// CVE-2019-14271, CVE-2026-41567: what the container ships as unpackers and
// libraries is never run by the daemon.
func TestCopyRunsNothingOfTheContainers(t *testing.T) {
	d := testkit.StartBusybox(t)
	var files []testkit.File
	for _, dir := range []string{"bin/", "usr/bin/", "usr/local/bin/"} {
		for _, tool := range []string{"xz", "unxz", "unpigz", "pigz", "gzip", "gunzip", "zstd", "unzstd", "bzip2", "bunzip2", "tar"} {
			files = append(files, testkit.File{Name: dir + tool, Mode: 0o755, Data: []byte("#!/bin/sh\necho >/trace-" + tool + "\n")})
		}
	}
	for _, lib := range []string{"lib/libnss_files.so.2", "lib64/libnss_files.so.2", "lib/x86_64-linux-gnu/libnss_files.so.2"} {
		files = append(files, testkit.File{Name: lib, Mode: 0o755, Data: []byte("no library")})
	}
	loadHostile(t, d, "trojan:1", files...)
	d.OK(t, "run", "-d", "--name", "up", "-u", "www-data", "trojan:1", "sleep", "300")
	d.OK(t, "create", "--name", "new", "-u", "www-data", "trojan:1")
	plain := testkit.Layer(testkit.File{Name: "landed", Data: []byte("x")})
	for name, pack := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var buf bytes.Buffer
		w, err := pack(&buf)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(plain)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range []string{"up", "new"} {
			req, _ := http.NewRequest(http.MethodPut, fmt.Sprintf("http://x/containers/%s/archive?path=/tmp&copyUIDGID=1", c), bytes.NewReader(buf.Bytes()))
			resp, err := d.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s into %s: %s", name, c, resp.Status)
			}
		}
	}
	if got := d.OK(t, "exec", "up", "stat", "-c", "%u:%g", "/tmp/landed"); got != "33:33" {
		t.Errorf("owner %s, by the container's own passwd 33:33", got)
	}
	for _, c := range []string{"up", "new"} {
		if got := d.OK(t, "diff", c); strings.Contains(got, "trace") || !strings.Contains(got, "landed") {
			t.Errorf("%s: %s", c, got)
		}
	}
}
