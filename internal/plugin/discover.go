package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Endpoint is where a plugin listens.
type Endpoint struct {
	Network string // "unix", "tcp" or, with TLS, "tls"
	Address string // path of the socket, or host:port
	// Version tells a socket from the one that was there before it.
	Version string
	TLS     TLS
	// Implements is what it does, separated by commas, for one that need not be
	// asked.
	Implements string
	// Root is the directory of the host that it takes for /, empty if that is
	// the host's own; what lies below Propagated for it is below PropagatedTo on
	// the host.
	Root, Propagated, PropagatedTo string
}

// TLS is how a plugin on TCP is spoken to, as the file NAME.json has it.
type TLS struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// validName keeps a name given by a client inside the directories.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// find looks a plugin up. What is in one directory only by half is an error.
func (p *Plugins) find(name string) (Endpoint, error) {
	if !validName.MatchString(name) {
		return Endpoint{}, notFound(name)
	}
	for _, dir := range p.o.Sockets {
		for _, path := range []string{filepath.Join(dir, name+".sock"), filepath.Join(dir, name, name+".sock")} {
			if v, ok := socket(path); ok {
				return Endpoint{Network: "unix", Address: path, Version: v}, nil
			}
		}
	}
	for _, dir := range p.o.Specs {
		for _, ext := range []string{".spec", ".json"} {
			for _, path := range []string{filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext)} {
				data, err := os.ReadFile(path)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
					continue
				}
				if err != nil {
					return Endpoint{}, errs.New(errs.Unavailable, "plugin %q: %w", name, err)
				}
				e, err := parse(ext, data)
				if err != nil {
					return Endpoint{}, errs.New(errs.Invalid, "plugin %q: %s: %w", name, path, err)
				}
				if e.Network == "unix" {
					e.Version, _ = socket(e.Address)
				}
				return e, nil
			}
		}
	}
	return Endpoint{}, notFound(name)
}

// socket says which socket is at path, false if there is none.
func socket(path string) (version string, ok bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return "", false
	}
	return fmt.Sprint(st.Dev, " ", st.Ino, " ", st.Ctim.Nano()), true
}

// names returns what the directories and Add name, in order.
func (p *Plugins) names() []string {
	var out []string
	p.mu.Lock()
	for n := range p.managed {
		out = append(out, n)
	}
	p.mu.Unlock()
	look := func(dirs []string, exts ...string) {
		for _, dir := range dirs {
			es, err := os.ReadDir(dir)
			if err != nil {
				continue // most hosts have few of them
			}
			for _, e := range es {
				name := e.Name()
				if e.IsDir() { // NAME/NAME.sock
					for _, ext := range exts {
						if _, err := os.Stat(filepath.Join(dir, name, name+ext)); err == nil {
							out = append(out, name)
						}
					}
					continue
				}
				if ext := filepath.Ext(name); slices.Contains(exts, ext) {
					out = append(out, strings.TrimSuffix(name, ext))
				}
			}
		}
	}
	look(p.o.Sockets, ".sock")
	look(p.o.Specs, ".spec", ".json")
	slices.Sort(out)
	return slices.Compact(out)
}

// parse reads a file that names a plugin's address: of .spec its URL, of .json
// an object. Pure.
func parse(ext string, data []byte) (Endpoint, error) {
	text, t := strings.TrimSpace(string(data)), TLS{}
	if ext == ".json" {
		var f struct {
			Addr      string
			TLSConfig *TLS
		}
		if err := json.Unmarshal(data, &f); err != nil {
			return Endpoint{}, err
		}
		if text = f.Addr; f.TLSConfig != nil {
			t = *f.TLSConfig
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return Endpoint{}, err
	}
	switch u.Scheme {
	case "unix":
		if u.Path == "" {
			return Endpoint{}, fmt.Errorf("address %q names no path", text)
		}
		return Endpoint{Network: "unix", Address: u.Path}, nil
	case "tcp", "http", "https":
		if u.Host == "" {
			return Endpoint{}, fmt.Errorf("address %q names no host", text)
		}
		e := Endpoint{Network: "tcp", Address: u.Host, TLS: t}
		if t != (TLS{}) || u.Scheme == "https" {
			e.Network = "tls"
		}
		return e, nil
	}
	return Endpoint{}, fmt.Errorf("address %q has to begin with unix:// or tcp://", text)
}
