package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/tools/txtar"
)

// A testCase is a file of corpus: directives ("key: value") in its comment, then
//
//	-- Dockerfile --       the Dockerfile, also a file of the context
//	-- ctx/NAME --         a file of the context
//	-- named/CTX/NAME --   a file of the named context CTX
//	-- tar/ARCHIVE/NAME -- a file in an archive of the context; its suffix says the compression
//	-- http/NAME --        a file of the test's web server, {{HTTP}} in Dockerfiles
//	-- httptar/ARCHIVE/NAME -- a file in an archive there
//	-- git/NAME --         a file of the test's repository, {{GIT}}
//	-- want --             the image, or the error
type testCase struct {
	path       string
	archive    *txtar.Archive
	directives map[string][]string
	want       string
	dir        string // what is on disk of it
	web, repo  string // addresses
}

func loadCase(path string) (*testCase, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	c := &testCase{path: path, archive: a, directives: map[string][]string{}}
	for line := range strings.Lines(string(a.Comment)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			return nil, fmt.Errorf("%s: %q is no directive", path, line)
		}
		c.directives[key] = append(c.directives[key], value)
	}
	for _, f := range a.Files {
		if f.Name == "want" {
			c.want = string(f.Data)
		}
	}
	return c, nil
}

func (c *testCase) name() string { return strings.TrimSuffix(filepath.Base(c.path), ".txtar") }

func (c *testCase) first(key string) string {
	if v := c.directives[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// pairs returns the values of a directive as KEY=VALUE pairs.
func (c *testCase) pairs(key string) map[string]string {
	m := map[string]string{}
	for _, v := range c.directives[key] {
		k, v, _ := strings.Cut(v, "=")
		m[k] = v
	}
	return m
}

// file is the Dockerfile's name in the context.
func (c *testCase) file() string {
	if f := c.first("file"); f != "" {
		return f
	}
	return "Dockerfile"
}

// stamp is the time of the files of contexts.
var stamp = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// unpack writes the case's files below dir.
func (c *testCase) unpack(t testing.TB, dir string) {
	c.dir = dir
	must(t, os.MkdirAll(filepath.Join(dir, "ctx"), 0o755))
	packs := map[string][]txtar.File{}
	for _, f := range c.archive.Files {
		top, rest, _ := strings.Cut(f.Name, "/")
		data := f.Data
		switch top {
		case "want":
			continue
		case "Dockerfile":
			top, rest = "ctx", "Dockerfile"
			data = c.dockerfileText(data)
		case "tar", "httptar":
			name, inner, _ := strings.Cut(rest, "/")
			key := map[string]string{"tar": "ctx/", "httptar": "http/"}[top] + name
			packs[key] = append(packs[key], txtar.File{Name: inner, Data: data})
			continue
		}
		path := filepath.Join(dir, top, rest)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, data, 0o644))
	}
	for name, files := range packs {
		pack(t, filepath.Join(dir, name), files)
	}
	ctx := filepath.Join(dir, "ctx")
	for _, v := range c.directives["mkdir"] {
		must(t, os.MkdirAll(filepath.Join(ctx, v), 0o755))
	}
	for _, v := range c.directives["mode"] {
		name, mode, _ := strings.Cut(v, " ")
		n, err := strconv.ParseUint(mode, 8, 32)
		must(t, err)
		must(t, os.Chmod(filepath.Join(ctx, name), os.FileMode(n)))
	}
	for _, v := range c.directives["link"] {
		name, to, _ := strings.Cut(v, " ")
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(ctx, name)), 0o755))
		must(t, os.Symlink(to, filepath.Join(ctx, name)))
	}
}

func (c *testCase) dockerfileText(data []byte) []byte {
	s := strings.NewReplacer("{{HTTP}}", c.web, "{{GIT}}", c.repo).Replace(string(data))
	if c.first("crlf") != "" {
		s = strings.ReplaceAll(s, "\n", "\r\n")
	}
	if c.first("bom") != "" {
		s = "\ufeff" + s
	}
	return []byte(s)
}

// hide takes out of a text what differs from run to run.
func (c *testCase) hide(s string) string {
	return strings.NewReplacer(c.repo, "{{GIT}}", c.web, "{{HTTP}}").Replace(s)
}

// pack writes a tar, compressed as its name says.
func pack(t testing.TB, path string, files []txtar.File) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		must(t, w.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o640, Uid: 7, Gid: 8, Size: int64(len(f.Data)), ModTime: stamp, Typeflag: tar.TypeReg}))
		_, err := w.Write(f.Data)
		must(t, err)
	}
	must(t, w.Close())
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	data := buf.Bytes()
	switch filepath.Ext(path) {
	case ".gz":
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, err := z.Write(data)
		must(t, err)
		must(t, z.Close())
		data = out.Bytes()
	case ".zst":
		z, err := zstd.NewWriter(nil)
		must(t, err)
		data = z.EncodeAll(data, nil)
		must(t, z.Close())
	case ".bz2", ".xz":
		cmd := exec.Command(map[string]string{".bz2": "bzip2", ".xz": "xz"}[filepath.Ext(path)], "-c")
		cmd.Stdin = &buf
		out, err := cmd.Output()
		must(t, err)
		data = out
	}
	must(t, os.WriteFile(path, data, 0o644))
}

// update writes the golden text into the case's file.
func (c *testCase) update(t testing.TB, got string) {
	c.archive.Files = append(slices.DeleteFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == "want" }), txtar.File{Name: "want", Data: []byte(got)})
	must(t, os.WriteFile(c.path, txtar.Format(c.archive), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
