package solve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"

	"gantry/internal/cli/buildx/grammar"
)

// maxDockerfile bounds a Dockerfile that does not come from a directory.
const maxDockerfile = 16 << 20

// inputs sets the build context, the Dockerfile and the named contexts.
func (b *builder) inputs(ctx context.Context) error {
	b.dirs = map[string]fsutil.FS{}
	b.so.FrontendAttrs["filename"] = "Dockerfile"
	lone, err := b.mainContext()
	if err != nil {
		return err
	}
	if err := b.dockerfile(ctx, lone); err != nil {
		return err
	}
	if err := b.namedContexts(); err != nil {
		return err
	}
	if len(b.dirs) > 0 {
		b.so.Session = append(b.so.Session, newOffer(b.dirs))
	}
	return nil
}

// mainContext sets the context. A Dockerfile that came on standard input instead
// of a context is returned.
func (b *builder) mainContext() ([]byte, error) {
	c := b.req.Context
	switch {
	case c == "":
		return nil, errors.New(`please specify build context (e.g. "." for the current directory)`)
	case c == "-":
		return b.stdin()
	case isDir(c):
		if err := b.mount("context", c); err != nil {
			return nil, err
		}
		b.so.SharedKey = sharedKey(c)
		return nil, nil
	case grammar.IsURL(c):
		b.so.FrontendAttrs["context"] = c
		return nil, nil
	}
	return nil, fmt.Errorf("unable to prepare context: path %q not found", c)
}

// stdin takes a tar as the context, and anything else as the Dockerfile.
func (b *builder) stdin() ([]byte, error) {
	if b.req.Dockerfile == "-" {
		return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	in := bufio.NewReaderSize(b.env.In, 1024)
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	if isArchive(head) {
		up := uploadprovider.New()
		b.so.FrontendAttrs["context"] = up.Add(io.NopCloser(in))
		b.so.Session = append(b.so.Session, up)
		return nil, nil
	}
	if b.req.Dockerfile != "" {
		return nil, errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	data, err := readDockerfile(in)
	if err != nil {
		return nil, err
	}
	b.dirs["context"] = oneFile{}
	return data, nil
}

// isArchive tells a tar, plain or compressed, by its first bytes.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) > 262 && bytes.Equal(head[257:262], []byte("ustar"))
}

func readDockerfile(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err == nil && len(b) > maxDockerfile {
		err = fmt.Errorf("the Dockerfile is larger than %d bytes", maxDockerfile)
	}
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// dockerfile sets where the frontend finds the Dockerfile; lone is one that is
// already read.
func (b *builder) dockerfile(ctx context.Context, lone []byte) (err error) {
	file := b.req.Dockerfile
	switch {
	case lone != nil:
		b.source = "stdin"
	case b.req.Inline != "":
		b.source, lone = "inline", []byte(b.req.Inline)
	case file == "-":
		b.source = "stdin"
		lone, err = readDockerfile(b.env.In)
	case strings.HasPrefix(file, "http://") || strings.HasPrefix(file, "https://"):
		b.source = file
		lone, err = fetch(ctx, file)
	}
	if err != nil {
		return err
	}
	if lone != nil {
		b.dirs["dockerfile"] = oneFile{name: "Dockerfile", data: lone}
		b.so.FrontendAttrs["dockerfilekey"] = "dockerfile"
		return nil
	}
	if !isDir(b.req.Context) {
		return b.remoteDockerfile(file)
	}
	b.source = file
	dir, name := b.req.Context, "Dockerfile"
	if file != "" {
		dir, name = filepath.Dir(file), filepath.Base(file)
	} else {
		b.source = filepath.Join(dir, name)
	}
	b.so.FrontendAttrs["filename"] = existing(dir, name)
	if b.sameDir(dir) {
		b.dirs["dockerfile"] = b.dirs["context"]
		return nil
	}
	return b.mount("dockerfile", dir)
}

// remoteDockerfile is one in a context that is not here, unless file is absolute.
func (b *builder) remoteDockerfile(file string) error {
	b.source = file
	switch {
	case file == "":
		b.source = "Dockerfile"
		return nil
	case !filepath.IsAbs(file) || b.req.Context == "-":
		b.so.FrontendAttrs["filename"] = file
		return nil
	}
	b.so.FrontendAttrs["filename"] = filepath.Base(file)
	b.so.FrontendAttrs["dockerfilekey"] = "dockerfile"
	return b.mount("dockerfile", filepath.Dir(file))
}

// existing returns name, or its lower-case form if only that is in dir.
func existing(dir, name string) string {
	if name != "Dockerfile" {
		return name
	}
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return name
	}
	if _, err := os.Lstat(filepath.Join(dir, "dockerfile")); err == nil {
		return "dockerfile"
	}
	return name
}

func (b *builder) sameDir(dir string) bool {
	x, err1 := os.Stat(dir)
	y, err2 := os.Stat(b.req.Context)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch the Dockerfile: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("failed to fetch the Dockerfile: %s: %s", url, res.Status)
	}
	return readDockerfile(res.Body)
}

func isDir(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.IsDir()
}

// mount offers a directory under name.
func (b *builder) mount(name, dir string) error {
	var w Watcher
	if b.env.Watch != nil {
		w = b.env.Watch(name, dir)
	}
	f, close, err := openDir(dir, w)
	if err != nil {
		return err
	}
	b.closes = append(b.closes, close)
	b.dirs[name] = f
	return nil
}

// sharedKey names a directory in the daemon's record of what it was sent before:
// by its last element, as a checkout may have another parent each time.
func sharedKey(dir string) string {
	if p, err := filepath.Abs(dir); err == nil {
		dir = p
	}
	return filepath.Base(dir) + ":" + nodeKey()
}

// namedContexts sets --build-context.
func (b *builder) namedContexts() error {
	names := make([]string, 0, len(b.req.Contexts))
	for n := range b.req.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		var err error
		if l := b.req.Links[n]; l != nil {
			err = b.linked(n, l)
		} else {
			err = b.namedContext(n, b.req.Contexts[n])
		}
		if err != nil {
			return err
		}
	}
	if len(names) > 0 {
		b.so.FrontendAttrs["frontend.caps"] = "moby.buildkit.frontend.contexts+forward"
	}
	return nil
}

func (b *builder) namedContext(name, v string) error {
	attrs := b.so.FrontendAttrs
	switch {
	case grammar.IsURL(v), strings.HasPrefix(v, "docker-image://"), strings.HasPrefix(v, "target:"), strings.HasPrefix(v, "input:"):
		attrs["context:"+name] = v
		return nil
	case strings.HasPrefix(v, "oci-layout://"):
		return b.layout(name, strings.TrimPrefix(v, "oci-layout://"))
	}
	fi, err := os.Stat(v)
	if err != nil {
		return fmt.Errorf("failed to get build context %v: %w", name, err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("failed to get build context path %v: %w", v, syscall.ENOTDIR)
	}
	local := name
	if name == "context" || name == "dockerfile" {
		local = "_" + name
	}
	if err := b.mount(local, v); err != nil {
		return err
	}
	attrs["context:"+name] = "local:" + local
	attrs["sharedkey:localdir:"+name] = sharedKey(v)
	return nil
}

// ContextName returns the form of a named context's name that the frontend looks
// for.
func ContextName(s string) (string, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", fmt.Errorf("invalid context name %s: %w", s, err)
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}
