// Package conf owns the user's configuration directory (~/.docker by default):
// config.json, the context store and the TLS files, all in Docker's formats, so
// that both programs can share it. Package cli calls it. It writes config.json
// and contexts/ below that directory, atomically and for the user alone, and
// keeps fields it does not know. It must not know commands or the API.
package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"gantry/internal/errs"
)

// File is config.json. Fields that this program does not use are kept verbatim.
type File struct {
	path   string
	fields map[string]json.RawMessage

	Auths            map[string]Auth
	HTTPHeaders      map[string]string
	CredsStore       string
	CredHelpers      map[string]string
	DetachKeys       string
	CurrentContext   string
	Proxies          map[string]Proxy
	Formats          map[string]string // psFormat, imagesFormat, …
	PluginsExtraDirs []string
	Aliases          map[string]string
}

// Proxy is an entry of "proxies".
type Proxy struct {
	HTTPProxy  string `json:"httpProxy,omitempty"`
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	NoProxy    string `json:"noProxy,omitempty"`
	FTPProxy   string `json:"ftpProxy,omitempty"`
	AllProxy   string `json:"allProxy,omitempty"`
}

// Dir returns the configuration directory: GANTRY_CONFIG, DOCKER_CONFIG, or ~/.docker.
func Dir() string {
	for _, v := range []string{"GANTRY_CONFIG", "DOCKER_CONFIG"} {
		if d := os.Getenv(v); d != "" {
			return d
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".docker")
}

// Load reads dir/config.json. A missing file is an empty configuration.
func Load(dir string) (*File, error) {
	f := &File{path: filepath.Join(dir, "config.json"), fields: map[string]json.RawMessage{}, Auths: map[string]Auth{}, Formats: map[string]string{}}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("loading config file: %w", err)
	}
	if err := json.Unmarshal(b, &f.fields); err != nil {
		return f, errs.New(errs.Invalid, "parsing config file (%s): %w", f.path, err)
	}
	for key, dst := range f.known() {
		if raw, ok := f.fields[key]; ok {
			if err := json.Unmarshal(raw, dst); err != nil {
				return f, errs.New(errs.Invalid, "parsing config file (%s): %s: %w", f.path, key, err)
			}
		}
	}
	for key, raw := range f.fields {
		var s string
		if len(key) > 6 && key[len(key)-6:] == "Format" && json.Unmarshal(raw, &s) == nil {
			f.Formats[key] = s
		}
	}
	return f, nil
}

func (f *File) known() map[string]any {
	return map[string]any{
		"auths": &f.Auths, "HttpHeaders": &f.HTTPHeaders, "credsStore": &f.CredsStore, "credHelpers": &f.CredHelpers,
		"detachKeys": &f.DetachKeys, "currentContext": &f.CurrentContext, "proxies": &f.Proxies,
		"cliPluginsExtraDirs": &f.PluginsExtraDirs, "aliases": &f.Aliases,
	}
}

// save writes the fields named, leaving all others as they were.
func (f *File) save(keys ...string) error {
	known := f.known()
	for _, k := range keys {
		b, err := json.Marshal(known[k])
		if err != nil {
			return err
		}
		f.fields[k] = b
		if s := string(b); s == `""` || s == "null" {
			delete(f.fields, k)
		}
	}
	b, err := json.MarshalIndent(f.fields, "", "\t")
	if err != nil {
		return err
	}
	// A symbolic link is followed: dotfiles are often kept elsewhere.
	path := f.path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		path = p
	}
	return writeFile(path, append(b, '\n'))
}

// SetCurrentContext makes name the one used when nothing else is said; "" or
// "default" is the built-in one.
func (f *File) SetCurrentContext(name string) error {
	if name == DefaultContext {
		name = ""
	}
	f.CurrentContext = name
	return f.save("currentContext")
}

// Filename returns the path of config.json.
func (f *File) Filename() string { return f.path }

// ProxyEnv returns the proxy variables for containers of the daemon at host.
func (f *File) ProxyEnv(host string) map[string]string {
	p, ok := f.Proxies[host]
	if !ok {
		p, ok = f.Proxies["default"]
	}
	out := map[string]string{}
	if !ok {
		return out
	}
	for _, v := range []struct{ upper, lower, val string }{
		{"HTTP_PROXY", "http_proxy", p.HTTPProxy}, {"HTTPS_PROXY", "https_proxy", p.HTTPSProxy},
		{"NO_PROXY", "no_proxy", p.NoProxy}, {"FTP_PROXY", "ftp_proxy", p.FTPProxy}, {"ALL_PROXY", "all_proxy", p.AllProxy},
	} {
		if v.val != "" {
			out[v.upper], out[v.lower] = v.val, v.val
		}
	}
	return out
}

// writeFile replaces path in one step, readable by the user alone.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
