package conf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"

	"gantry/internal/errs"
)

// DefaultContext is the built-in context, which follows the environment.
const DefaultContext = "default"

// Context is a named way to reach a daemon: contexts/meta/<sha256 of name>/meta.json.
type Context struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]Endpoint
}

// Endpoint is where a daemon listens.
type Endpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// TLS holds PEM texts; any may be empty.
type TLS struct{ CA, Cert, Key []byte }

// Names of TLS files in contexts/tls/<id>/docker/.
const (
	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// Store is the context store below a configuration directory.
type Store struct{ root string }

// Contexts returns the store of configuration directory dir.
func Contexts(dir string) Store { return Store{root: filepath.Join(dir, "contexts")} }

func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// MetaPath returns the directory of a context's description.
func (s Store) MetaPath(name string) string { return filepath.Join(s.root, "meta", contextID(name)) }

// TLSPath returns the directory of a context's TLS files.
func (s Store) TLSPath(name string) string { return filepath.Join(s.root, "tls", contextID(name)) }

// CheckName refuses names that can't be typed safely.
func CheckName(name string) error {
	if name == "" {
		return errs.New(errs.Invalid, "context name cannot be empty")
	}
	if name == DefaultContext {
		return errs.New(errs.Invalid, `"default" is a reserved context name`)
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`).MatchString(name) {
		return errs.New(errs.Invalid, "context name %q is invalid, names are validated against regexp %q", name, "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$")
	}
	return nil
}

// Get reads a context. The error is of kind NotFound if there is none.
func (s Store) Get(name string) (Context, error) {
	var c Context
	b, err := os.ReadFile(filepath.Join(s.MetaPath(name), "meta.json"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return c, errs.New(errs.NotFound, "context %q: context not found: %w", name, err)
		}
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, errs.New(errs.Corrupt, "parsing %s: %w", s.MetaPath(name), err)
	}
	return c, nil
}

// List returns all contexts by name, without the built-in one.
func (s Store) List() ([]Context, error) {
	dirs, err := os.ReadDir(filepath.Join(s.root, "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Context
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(s.root, "meta", d.Name(), "meta.json"))
		if err != nil {
			continue
		}
		var c Context
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, errs.New(errs.Corrupt, "parsing context %s: %w", d.Name(), err)
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Put writes a context and its TLS files, replacing those of the same name.
func (s Store) Put(c Context, t TLS) error {
	if c.Metadata == nil {
		c.Metadata = map[string]any{}
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.TLSPath(c.Name)); err != nil {
		return err
	}
	dir := filepath.Join(s.TLSPath(c.Name), "docker")
	for name, pem := range map[string][]byte{caFile: t.CA, certFile: t.Cert, keyFile: t.Key} {
		if len(pem) > 0 {
			if err := writeFile(filepath.Join(dir, name), pem); err != nil {
				return err
			}
		}
	}
	return writeFile(filepath.Join(s.MetaPath(c.Name), "meta.json"), b)
}

// TLS reads the TLS files of a context; missing ones are empty.
func (s Store) TLS(name string) (TLS, error) {
	var t TLS
	dir := filepath.Join(s.TLSPath(name), "docker")
	for file, dst := range map[string]*[]byte{caFile: &t.CA, certFile: &t.Cert, keyFile: &t.Key} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return t, fmt.Errorf("context %q: %w", name, err)
		}
		*dst = b
	}
	return t, nil
}

// Remove deletes a context and its TLS files.
func (s Store) Remove(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(s.MetaPath(name)), os.RemoveAll(s.TLSPath(name)))
}
