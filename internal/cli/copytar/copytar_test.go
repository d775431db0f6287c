package copytar

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// tree makes files below a new directory: "path", "path/" for directories,
// "path -> target" for links. A file holds its own name.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		link, target, isLink := strings.Cut(n, " -> ")
		p := filepath.Join(dir, link)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, p)
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, []byte(n), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func list(t *testing.T, r io.Reader) string {
	t.Helper()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(out, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d %s", h.Name, h.Uid, h.Uname)
		}
		s := h.Name
		if h.Linkname != "" {
			s += "->" + h.Linkname
		}
		out = append(out, s)
	}
}

func TestPlanAndStream(t *testing.T) {
	dir := tree(t, "f", "d/a", "d/sub/b", "l -> f", "ld -> d")
	for _, c := range []struct {
		src  string
		dst  Destination
		opt  Options
		into string
		want string
	}{
		{"f", Destination{Path: "/d/", Exists: true, IsDir: true}, Options{}, "/d/", "f"},
		{"f", Destination{Path: "/d/new"}, Options{}, "/d", "new"},
		{"f", Destination{Path: "/d/old", Exists: true}, Options{}, "/d", "old"},
		{"d", Destination{Path: "/x", Exists: true, IsDir: true}, Options{}, "/x", "d/ d/a d/sub/ d/sub/b"},
		{"d/.", Destination{Path: "/x", Exists: true, IsDir: true}, Options{}, "/x", "./ a sub/ sub/b"},
		{"d", Destination{Path: "/new"}, Options{}, "/", "new/ new/a new/sub/ new/sub/b"},
		{"d/.", Destination{Path: "/new/"}, Options{}, "/", "new/ new/a new/sub/ new/sub/b"},
		{"l", Destination{Path: "/x", Exists: true, IsDir: true}, Options{}, "/x", "l->f"},
		{"l", Destination{Path: "/x", Exists: true, IsDir: true}, Options{FollowLink: true}, "/x", "l"},
	} {
		u, err := Plan(dir+"/"+c.src, c.dst, c.opt)
		if err != nil {
			t.Errorf("%s to %+v: %v", c.src, c.dst, err)
			continue
		}
		s := u.Stream()
		if got := list(t, s); got != c.want || u.Dir != c.into {
			t.Errorf("%s to %+v: %q into %s", c.src, c.dst, got, u.Dir)
		}
		s.Close()
	}
	for _, c := range []struct {
		src  string
		dst  Destination
		want string
	}{
		{"d", Destination{Path: "/f", Exists: true}, "cannot copy directory"},
		{"f", Destination{Path: "/nodir/"}, "no such directory"},
		{"nofile", Destination{Path: "/d"}, "lstat " + dir + "/nofile: no such file or directory"},
	} {
		if _, err := Plan(dir+"/"+c.src, c.dst, Options{}); err == nil || err.Error() != c.want {
			t.Errorf("%s to %+v: got %v", c.src, c.dst, err)
		}
	}
}

type entry struct {
	name, link, body string
	kind             byte
}

func archive(t *testing.T, entries ...entry) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: 0o750, Size: int64(len(e.body)), ModTime: time.Unix(1000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func files(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.Type()&fs.ModeSymlink != 0 {
			to, _ := os.Readlink(p)
			rel += "->" + to
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

func TestExtract(t *testing.T) {
	content := []entry{{name: "d/", kind: tar.TypeDir}, {name: "d/x", body: "X"}, {name: "d/l", link: "x", kind: tar.TypeSymlink}, {name: "d/h", link: "d/x", kind: tar.TypeLink}}
	for _, c := range []struct {
		target, source, want string
		dir                  bool
		entries              []entry
	}{
		{"out", "/d/x", "out", false, []entry{{name: "x", body: "X"}}},
		{".", "/d/x", "x", false, []entry{{name: "x", body: "X"}}},
		{"new", "/d", "new new/h new/l->x new/x", true, content},
		{".", "/d", "d d/h d/l->x d/x", true, content},
		{".", "/d/.", "h l->x x", true, content},
		{"new", "/d/.", "new new/h new/l->x new/x", true, content},
		{".", "/d/.", "e e/x", true, []entry{{name: "./", kind: tar.TypeDir}, {name: "./e/", kind: tar.TypeDir}, {name: "./e/x", body: "X"}}},
		{"new", "/d/.", "new new/e new/e/x", true, []entry{{name: "./", kind: tar.TypeDir}, {name: "./e/", kind: tar.TypeDir}, {name: "./e/x", body: "X"}}},
		{".", "/", "e e/x", true, []entry{{name: "/", kind: tar.TypeDir}, {name: "/e/", kind: tar.TypeDir}, {name: "/e/x", body: "X"}}},
	} {
		dir := t.TempDir()
		n, err := Extract(archive(t, c.entries...), Target{Source: c.source, SourceIsDir: c.dir, Path: filepath.Join(dir, c.target)})
		if got := files(t, dir); err != nil || got != c.want || n != 1 {
			t.Errorf("%s to %s: %q, %d bytes, %v", c.source, c.target, got, n, err)
		}
	}
	dir := tree(t, "file")
	for _, c := range []struct {
		target Target
		want   string
	}{
		{Target{Source: "/d", SourceIsDir: true, Path: dir + "/file"}, "cannot copy directory"},
		{Target{Source: "/x", Path: dir + "/no/"}, "no such directory"},
		{Target{Source: "/x", Path: dir + "/no/x"}, fmt.Sprintf("invalid output path: directory %q does not exist", dir+"/no")},
	} {
		if _, err := Extract(archive(t), c.target); err == nil || err.Error() != c.want {
			t.Errorf("%+v: got %v", c.target, err)
		}
	}
}

func TestExtractKeepsModesAndTimes(t *testing.T) {
	dir := t.TempDir()
	if _, err := Extract(archive(t, entry{name: "d/", kind: tar.TypeDir}, entry{name: "d/x", body: "X"}), Target{Source: "/d", SourceIsDir: true, Path: dir}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"d", "d/x"} {
		fi, err := os.Stat(filepath.Join(dir, p))
		if err != nil || fi.Mode().Perm() != 0o750 || !fi.ModTime().Equal(time.Unix(1000, 0)) {
			t.Errorf("%s: %v %v %v", p, fi.Mode(), fi.ModTime(), err)
		}
	}
}

// A container is not trusted: nothing it sends may be written outside the place
// that the user named.
func TestExtractStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dots":           {{name: "d/../../../escaped", body: "X"}},
		"absolute":       {{name: "/../escaped", body: "X"}},
		"link then file": {{name: "d/", kind: tar.TypeDir}, {name: "d/l", link: "../../canary", kind: tar.TypeSymlink}, {name: "d/l/escaped", body: "X"}},
		"link replaced":  {{name: "d/", kind: tar.TypeDir}, {name: "d/l", link: "/etc/hostname", kind: tar.TypeSymlink}, {name: "d/l", body: "X"}},
		"hard link out":  {{name: "d/", kind: tar.TypeDir}, {name: "d/h", link: "d/../../canary/keep", kind: tar.TypeLink}},
		"link chain":     {{name: "d/", kind: tar.TypeDir}, {name: "d/a", link: "..", kind: tar.TypeSymlink}, {name: "d/b", link: "a/..", kind: tar.TypeSymlink}, {name: "d/b/canary/keep", body: "overwritten"}},
	} {
		t.Run(name, func(t *testing.T) {
			top := tree(t, "canary/keep", "in/")
			hostname, _ := os.ReadFile("/etc/hostname")
			_, err := Extract(archive(t, entries...), Target{Source: "/d", SourceIsDir: true, Path: top + "/in"})
			after, _ := os.ReadFile("/etc/hostname")
			if !bytes.Equal(hostname, after) {
				t.Fatal("/etc/hostname was written to")
			}
			if got := files(t, top+"/canary"); got != "keep" {
				t.Errorf("the canary is %q, error %v", got, err)
			}
			if b, _ := os.ReadFile(top + "/canary/keep"); string(b) != "canary/keep" {
				t.Errorf("the canary holds %q", b)
			}
			if _, err := os.Lstat(top + "/escaped"); err == nil {
				t.Error("a file escaped")
			}
		})
	}
}
