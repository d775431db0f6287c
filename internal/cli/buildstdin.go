package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"gantry/internal/cli/term"
	"gantry/internal/errs"
)

// maxDockerfile bounds a Dockerfile given on standard input.
const maxDockerfile = 16 << 20

// stdinContext reads a context (a tar, maybe compressed) or a lone Dockerfile
// from standard input.
func stdinContext(a *App, o *buildOptions, q url.Values) (io.ReadCloser, error) {
	if term.IsTerminal(a.In) {
		return nil, errors.New("the build context is expected on standard input, which is a terminal")
	}
	in := bufio.NewReaderSize(a.In, 1024)
	head, _ := in.Peek(512)
	if isArchive(head) {
		if o.file != "" {
			q.Set("dockerfile", o.file)
		}
		return io.NopCloser(in), nil
	}
	if o.file != "" {
		return nil, errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxDockerfile))
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	err = tw.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o600, Size: int64(len(b))})
	if err == nil {
		_, err = tw.Write(b)
	}
	if err = errors.Join(err, tw.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(&buf), nil
}

// isArchive tells a tar, plain or compressed, by its first bytes.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) > 262 && bytes.Equal(head[257:262], []byte("ustar"))
}

// ignored returns which paths .dockerignore leaves out of the context. The
// Dockerfile and .dockerignore themselves are always sent, as the daemon reads them.
func ignored(dir, dockerfile string) (func(string, fs.DirEntry) (bool, error), error) {
	b, err := os.ReadFile(filepath.Join(dir, dockerfile+".dockerignore"))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(dir, ".dockerignore"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rules, err := parseIgnore(string(b))
	if err != nil {
		return nil, err
	}
	return func(rel string, d fs.DirEntry) (bool, error) {
		if rel == dockerfile || rel == ".dockerignore" || !rules.match(rel) {
			return false, nil
		}
		if !d.IsDir() {
			return true, nil
		}
		// A directory that is out may still hold what a later rule takes in.
		if rules.negated || strings.HasPrefix(dockerfile, rel+"/") {
			return true, nil
		}
		return true, fs.SkipDir
	}, nil
}

type ignoreRule struct {
	re  *regexp.Regexp
	not bool
}

type ignoreRules struct {
	rules   []ignoreRule
	negated bool
}

// parseIgnore reads .dockerignore: one pattern a line, # comments, ! takes back,
// ** crosses directories.
func parseIgnore(text string) (ignoreRules, error) {
	var out ignoreRules
	text = strings.TrimPrefix(text, "\xef\xbb\xbf")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		line, not := strings.CutPrefix(line, "!")
		p := strings.TrimPrefix(path.Clean(filepath.ToSlash(strings.TrimSpace(line))), "/")
		if p == "." || p == "" {
			continue
		}
		re, err := globRegexp(p)
		if err != nil {
			return out, errs.New(errs.Invalid, ".dockerignore: pattern %q: %w", line, err)
		}
		out.rules = append(out.rules, ignoreRule{re: re, not: not})
		out.negated = out.negated || not
	}
	return out, nil
}

// match reports whether rel or a directory above it is left out; the last rule
// that fits decides.
func (r ignoreRules) match(rel string) bool {
	out := false
	for _, rule := range r.rules {
		for p := rel; p != "."; p = path.Dir(p) {
			if rule.re.MatchString(p) {
				out = !rule.not
				break
			}
		}
	}
	return out
}

// globRegexp turns a pattern of path.Match with ** into a regular expression.
func globRegexp(p string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(p); i++ {
		switch c := p[i]; c {
		case '*':
			if strings.HasPrefix(p[i:], "**/") {
				b.WriteString("(.*/)?")
				i += 2
			} else if strings.HasPrefix(p[i:], "**") {
				b.WriteString(".*")
				i++
			} else {
				b.WriteString("[^/]*")
			}
		case '?':
			b.WriteString("[^/]")
		case '[', ']', '-', '^':
			b.WriteByte(c)
		case '\\':
			if i++; i < len(p) {
				b.WriteString(regexp.QuoteMeta(p[i : i+1]))
			}
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	b.WriteString("$")
	return regexp.Compile(b.String())
}
