package bootstrap

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
)

func TestParseRelease(t *testing.T) {
	for in, want := range map[string]Release{
		"debian:bookworm":       {"debian", "bookworm", false},
		"debian:12":             {"debian", "bookworm", false},
		"debian:trixie-slim":    {"debian", "trixie", true},
		"ubuntu:24.04":          {"ubuntu", "noble", false},
		"debian":                {"debian", "stable", false},
		"lab.corp/base/kali:k1": {"kali", "k1", false},
	} {
		if got, err := ParseRelease(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "busybox", "debian:--x", "debian:a/b", "debian:a b", "-x:bookworm"} {
		if got, err := ParseRelease(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
}

func TestParseDate(t *testing.T) {
	want := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	for _, in := range []string{"2026-01-31", "2026-01-31T00:00:00Z", "2026-01-31T01:00:00.5+01:00", "1769817600", "20260131"} {
		if got, err := ParseDate(in); err != nil || !got.Equal(want) && in != "20260131" {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "yesterday", "-5", "2026-13-01"} {
		if got, err := ParseDate(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// TestSources takes the suite, its updates and security fixes from apt's lists, and
// nobody else's repository.
func TestSources(t *testing.T) {
	targets := `http://m.example/debian/|bookworm|main|Debian
http://m.example/debian/|bookworm|contrib|Debian
http://m.example/debian/|bookworm|main|Debian
http://m.example/debian/|bookworm-updates|main|Debian
http://m.example/debian/|bookworm-backports|main|Debian
http://s.example/debian-security/|bookworm-security|main|Debian
http://other.example/|bookworm|main|Other
http://x.example/ y|bookworm|main|Debian
http://u.example/ubuntu/|noble|main|Ubuntu
http://u.example/ubuntu/|noble|universe|Ubuntu
`
	got := Sources(targets, Release{Distro: "debian", Suite: "bookworm"})
	want := []string{"deb http://m.example/debian/ bookworm main", "deb http://m.example/debian/ bookworm-updates main", "deb http://s.example/debian-security/ bookworm-security main"}
	if !slices.Equal(got, want) {
		t.Errorf("debian: %q", got)
	}
	if got := Sources(targets, Release{Distro: "ubuntu", Suite: "noble"}); len(got) != 2 {
		t.Errorf("ubuntu: %q", got)
	}
	if got := Sources(targets, Release{Distro: "debian", Suite: "trixie"}); got != nil {
		t.Errorf("a suite that apt does not have: %q", got)
	}
}

func TestArgs(t *testing.T) {
	p := Plan{Release: Release{Distro: "debian", Suite: "bookworm"}, Arch: "arm64", Include: []string{"curl", "git"}, Mirrors: []string{"deb [a=b c] http://s/ bookworm-security main", "deb [a=b c=d] http://m/ bookworm main"}}
	got := strings.Join(Args(Mmdebstrap, p, "/r"), " ")
	if want := "mmdebstrap --variant=minbase --architectures=arm64 --include=curl,git --format=tar -- bookworm - deb [a=b c] http://s/ bookworm-security main deb [a=b c=d] http://m/ bookworm main"; got != want {
		t.Errorf("got %s", got)
	}
	got = strings.Join(Args(Debootstrap, p, "/r"), " ")
	if want := "debootstrap --variant=minbase --arch=arm64 --include=curl,git bookworm /r http://m/"; got != want {
		t.Errorf("got %s", got)
	}
}

type entry struct {
	h    tar.Header
	body string
}

func archive(list []entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		h := e.h
		h.Size = int64(len(e.body))
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestClean makes the same of two makings at different times, and keeps what is
// the system's.
func TestClean(t *testing.T) {
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	making := func(now time.Time) []byte {
		dir := func(n string) entry {
			return entry{tar.Header{Typeflag: tar.TypeDir, Name: n, Mode: 0o755, ModTime: now}, ""}
		}
		file := func(n, body string) entry {
			return entry{tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644, ModTime: now, Uname: "u" + now.String()[:4]}, body}
		}
		return archive([]entry{
			dir("./"), dir("./dev/"), {tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Devmajor: 1, Devminor: 3}, ""}, dir("./dev/pts/"),
			dir("./etc/"), dir("./etc/apt/apt.conf.d/"), dir("./etc/dpkg/dpkg.cfg.d/"), file("./etc/hostname", "here"), file("./etc/machine-id", now.String()),
			file("./etc/shadow", "root:*:"+map[bool]string{true: "20500", false: "20501"}[now.Month() == 3]+":0:99999:7:::\nold:*:100:0:::\n"),
			file("./etc/passwd", "root"), file("./etc/passwd-", now.String()),
			dir("./usr/"), dir("./usr/sbin/"), {tar.Header{Typeflag: tar.TypeReg, Name: "./usr/ping", Mode: 0o4755, ModTime: date.Add(-time.Hour), Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x", "mtime": "1"}}, "prog"},
			{tar.Header{Typeflag: tar.TypeLink, Name: "./usr/ping4", Linkname: "./usr/ping", ModTime: now}, ""},
			file("./usr/lib/python3/__pycache__/a.pyc", now.String()), file("./usr/share/man/man1/a.1", "m"), file("./usr/share/doc/a/copyright", "c"), file("./usr/share/doc/a/news", "n"),
			dir("./var/cache/apt/archives/"), file("./var/cache/apt/pkgcache.bin", now.String()), dir("./var/log/"), file("./var/log/dpkg.log", now.String()), file("./var/log/wtmp", now.String()),
		})
	}
	clean := func(data []byte) []byte {
		var out bytes.Buffer
		if err := Clean(&out, bytes.NewReader(data), Plan{Release: Release{Slim: true}, Date: date}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	a, b := clean(making(time.Date(2026, 3, 5, 6, 7, 8, 9, time.UTC))), clean(making(time.Date(2027, 7, 6, 5, 4, 3, 2, time.UTC)))
	if !bytes.Equal(a, b) {
		t.Error("two makings differ")
	}
	got := map[string]*tar.Header{}
	bodies := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(a)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name], bodies[h.Name] = h, string(data)
		if h.ModTime.After(date) || h.Uname != "" {
			t.Errorf("%s: %v %q", h.Name, h.ModTime, h.Uname)
		}
	}
	for _, n := range []string{"./", "dev/", "etc/passwd", "usr/ping4", "var/cache/apt/archives/", "var/log/", "usr/share/doc/a/copyright", "etc/machine-id", "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/99container", "etc/dpkg/dpkg.cfg.d/slim"} {
		if got[n] == nil {
			t.Errorf("%s is not there", n)
		}
	}
	for _, n := range []string{"dev/null", "dev/pts/", "etc/hostname", "etc/passwd-", "usr/lib/python3/__pycache__/a.pyc", "var/cache/apt/pkgcache.bin", "var/log/dpkg.log", "usr/share/man/man1/a.1", "usr/share/doc/a/news"} {
		if got[n] != nil {
			t.Errorf("%s is there", n)
		}
	}
	if bodies["etc/machine-id"]+bodies["var/log/wtmp"] != "" {
		t.Error("the machine's id or logins are kept")
	}
	if want := "root:*:20454:0:99999:7:::\nold:*:100:0:::\n"; bodies["etc/shadow"] != want {
		t.Errorf("shadow: %q", bodies["etc/shadow"])
	}
	ping := got["usr/ping"]
	if ping == nil || ping.Mode != 0o4755 || ping.PAXRecords["SCHILY.xattr.security.capability"] != "x" || !ping.ModTime.Equal(date.Add(-time.Hour)) {
		t.Errorf("a program with rights became %+v", ping)
	}
	if l := got["usr/ping4"]; l != nil && l.Linkname != "usr/ping" {
		t.Errorf("link to %s", l.Linkname)
	}
}

// tool puts a program called name on the path that does what script says.
func tool(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("TMPDIR", t.TempDir())
}

func leftovers(t *testing.T) {
	t.Helper()
	list, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(list) > 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

func TestMakeTellsWhyAProgramFailed(t *testing.T) {
	tool(t, Mmdebstrap, "echo I: working >&2; touch $TMPDIR/x; echo E: no such suite >&2; exit 3\n")
	var lines []string
	err := Make(t.Context(), Plan{Tool: Mmdebstrap, Mirrors: []string{"http://m/"}}, io.Discard, func(l string) { lines = append(lines, l) })
	if err == nil || err.Error() != "mmdebstrap failed: exit status 3\nE: no such suite" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(lines, []string{"I: working", "E: no such suite"}) {
		t.Errorf("told %q", lines)
	}
	leftovers(t)
}

// TestMakeStops ends the context while the program works: it may clean up.
func TestMakeStops(t *testing.T) {
	tool(t, Mmdebstrap, "trap 'echo cleaned >&2; exit 1' TERM; echo started >&2; touch $TMPDIR/x; while :; do sleep 0.05; done\n")
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cleaned := false
	err := Make(ctx, Plan{Tool: Mmdebstrap, Mirrors: []string{"http://m/"}}, io.Discard, func(l string) {
		if l == "started" {
			cancel(gone)
		}
		cleaned = cleaned || l == "cleaned"
	})
	if err != gone || !cleaned {
		t.Errorf("got %v, cleaned up: %v", err, cleaned)
	}
	leftovers(t)
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Find("")
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "apt-get install --no-install-recommends mmdebstrap") {
		t.Errorf("got %v", err)
	}
	if _, err := Find("rm"); !errs.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
}
