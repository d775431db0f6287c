package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"gantry/internal/errs"
)

// tableName is the file beside a registry's certificates that says where else it can
// be had (containerd, docs/hosts.md).
const tableName = "hosts.toml"

// hostTable is the content of such a file.
type hostTable struct {
	Server string               `toml:"server"` // the registry itself, if it is not where its name says
	Host   map[string]hostEntry `toml:"host"`   // by URL
	hostEntry

	order []string // of the URLs in the file
	dir   string   // of the file, from which on its paths are
}

// hostEntry is how a host is reached.
type hostEntry struct {
	Capabilities []string       `toml:"capabilities"` // pull, resolve, push; none for all
	CA           any            `toml:"ca"`           // file or files
	Client       any            `toml:"client"`       // file, files, or pairs of certificate and key
	SkipVerify   bool           `toml:"skip_verify"`
	OverridePath bool           `toml:"override_path"` // the URL's path is that of the API
	Header       map[string]any `toml:"header"`        // name → text or texts
}

// readHostTable reads the file for a host in the first of dirs that has one; nil if
// there is none.
func readHostTable(host string, dirs []string) (*hostTable, error) {
	for _, d := range dirs {
		file := filepath.Join(d, strings.ReplaceAll(host, "/", "_"), tableName)
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		var t *hostTable
		if err == nil {
			t, err = parseHostTable(data, filepath.Dir(file))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return t, nil
	}
	return nil, nil
}

// parseHostTable reads a file of a directory, from which on its paths are.
func parseHostTable(data []byte, dir string) (*hostTable, error) {
	t := &hostTable{dir: dir}
	if err := toml.Unmarshal(data, t); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var key []string
		for k := e.Key(); k.Next(); {
			key = append(key, string(k.Node().Data))
		}
		if len(key) >= 2 && key[0] == "host" && !slices.Contains(t.order, key[1]) {
			t.order = append(t.order, key[1])
		}
	}
	for _, u := range sortedKeys(t.Host) { // those that are not tables of their own
		if !slices.Contains(t.order, u) {
			t.order = append(t.order, u)
		}
	}
	for _, u := range t.order {
		if _, err := t.Host[u].endpoint(u, dir); err != nil {
			return nil, err
		}
	}
	if t.Server == "" {
		return t, nil
	}
	_, err := t.hostEntry.endpoint(t.Server, dir)
	return t, err
}

// can reports whether a host may be asked for what pulls ask for.
func (h hostEntry) can() bool {
	return len(h.Capabilities) == 0 || slices.Contains(h.Capabilities, "pull") && slices.Contains(h.Capabilities, "resolve")
}

// endpoint returns that of a host at a URL. dir is where paths begin.
func (h hostEntry) endpoint(text, dir string) (endpoint, error) {
	u, err := mirrorAddress(text)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{scheme: u.Scheme, host: u.Host, path: strings.TrimSuffix(u.Path, "/")}
	if !h.OverridePath && !slices.Contains(strings.Split(e.path, "/"), "v2") {
		e.path += "/v2"
	}
	return e, h.apply(&e, dir)
}

// apply sets what is said of a host besides its address.
func (h hostEntry) apply(e *endpoint, dir string) error {
	e.unverified = h.SkipVerify
	ca, err := texts(h.CA)
	if err != nil {
		return errs.New(errs.Invalid, "ca: %w", err)
	}
	for _, f := range ca {
		e.tls.ca = append(e.tls.ca, within(dir, f))
	}
	pairs, err := clientPairs(h.Client)
	if err != nil {
		return errs.New(errs.Invalid, "client: %w", err)
	}
	for _, p := range pairs {
		e.tls.pairs = append(e.tls.pairs, [2]string{within(dir, p[0]), within(dir, p[1])})
	}
	for name, v := range h.Header {
		list, err := texts(v)
		if err != nil {
			return errs.New(errs.Invalid, "header %s: %w", name, err)
		}
		if e.header == nil {
			e.header = http.Header{}
		}
		e.header[http.CanonicalHeaderKey(name)] = list
	}
	return nil
}

// clientPairs reads what a host is shown: a file with both, files with both, or pairs.
func clientPairs(v any) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out [][2]string
	for _, one := range list {
		files, err := texts(one)
		if err != nil {
			return nil, err
		}
		switch {
		case len(files) == 0:
		case len(files) == 1, files[1] == "":
			out = append(out, [2]string{files[0], files[0]})
		case len(files) == 2:
			out = append(out, [2]string{files[0], files[1]})
		default:
			return nil, errors.New("a pair is a certificate and its key")
		}
	}
	return out, nil
}

// texts reads a text or a list of them.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, fmt.Errorf("%v is no text", one)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%v is neither a text nor a list of them", v)
}

func within(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// tabled returns the endpoints that the table of a registry names besides it, and the
// registry itself as the table has it.
func tabled(e endpoint, repo string, c Config) ([]endpoint, endpoint, error) {
	t, err := readHostTable(e.host, c.CertDirs)
	if t == nil || err != nil {
		return nil, e, err
	}
	var list []endpoint
	for _, u := range t.order {
		m, err := t.Host[u].endpoint(u, t.dir)
		if err != nil {
			return nil, e, err
		}
		if !t.Host[u].can() {
			continue
		}
		files, err := certificates(m.host, c.CertDirs)
		if err != nil {
			return nil, e, err
		}
		m.tls.ca, m.tls.pairs = append(files.ca, m.tls.ca...), append(files.pairs, m.tls.pairs...)
		m.repo, m.mirror, m.insecure = repo, true, m.scheme == "http" || isInsecure(m.host, c.Insecure)
		list = append(list, m)
	}
	own := t.hostEntry
	if t.Server != "" {
		at, err := own.endpoint(t.Server, t.dir)
		if err != nil {
			return nil, e, err
		}
		e.scheme, e.host, e.path = at.scheme, at.host, at.path
		e.insecure = e.insecure || e.scheme == "http"
	}
	return list, e, own.apply(&e, t.dir)
}
