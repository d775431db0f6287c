package conf

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"strings"

	"gantry/internal/errs"
)

// HubServer is the key under which Docker Hub's credentials are kept.
const HubServer = "https://index.docker.io/v1/"

// Auth is what a registry wants to see, in the form of the X-Registry-Auth header.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"` // base64 of user:password, in config.json only
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Header returns a as base64url JSON for X-Registry-Auth; with no credentials it
// is that of an empty object.
func (a Auth) Header() string {
	a.Auth = ""
	b, _ := json.Marshal(a) // strings only: can't fail
	return base64.URLEncoding.EncodeToString(b)
}

// ServerKey returns the key for a registry's domain.
func ServerKey(domain string) string {
	if domain == "" || domain == "docker.io" || domain == "index.docker.io" {
		return HubServer
	}
	return domain
}

// helperFor returns the credential helper for server, "" for config.json itself.
func (f *File) helperFor(server string) string {
	if h := f.CredHelpers[server]; h != "" {
		return h
	}
	return f.CredsStore
}

// Credentials returns what is known for server; the zero Auth if nothing is.
func (f *File) Credentials(server string) (Auth, error) {
	if h := f.helperFor(server); h != "" {
		return helperGet(h, server)
	}
	a, ok := f.Auths[server]
	if !ok {
		for k, v := range f.Auths {
			if plainHost(k) == plainHost(server) {
				a, ok = v, true
				break
			}
		}
	}
	if !ok {
		return Auth{}, nil
	}
	a.ServerAddress = server
	if a.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return Auth{}, errs.New(errs.Invalid, "config.json: auth of %s: %w", server, err)
		}
		user, pass, ok := strings.Cut(string(b), ":")
		if !ok {
			return Auth{}, errs.New(errs.Invalid, "config.json: auth of %s has no colon", server)
		}
		a.Username, a.Password, a.Auth = user, strings.Trim(pass, "\x00"), ""
	}
	return a, nil
}

func plainHost(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	host, _, _ := strings.Cut(s, "/")
	return host
}

// All returns the credentials of every registry that is known, for what may need
// those of several, as builds do.
func (f *File) All() (map[string]Auth, error) {
	known := maps.Clone(f.CredHelpers)
	if known == nil {
		known = map[string]string{}
	}
	for server := range f.Auths {
		known[server] = ""
	}
	out := map[string]Auth{}
	for _, server := range sortedKeys(known) {
		a, err := f.Credentials(server)
		if err != nil {
			return nil, err
		}
		out[server] = a
	}
	return out, nil
}

// Store keeps a for server. It returns the helper used, "" if config.json.
func (f *File) Store(server string, a Auth) (string, error) {
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	if h := f.helperFor(server); h != "" {
		if err := helperStore(h, server, a); err != nil {
			return h, err
		}
		f.Auths[server] = Auth{} // that there is something, as Docker notes it
		return h, f.save("auths")
	}
	kept := Auth{IdentityToken: a.IdentityToken}
	if a.Username != "" || a.Password != "" {
		kept.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	f.Auths[server] = kept
	return "", f.save("auths")
}

// Erase forgets server.
func (f *File) Erase(server string) error {
	if h := f.helperFor(server); h != "" {
		if _, err := helper(h, "erase", []byte(server)); err != nil {
			return err
		}
	}
	if _, ok := f.Auths[server]; !ok {
		return nil
	}
	delete(f.Auths, server)
	return f.save("auths")
}

// notFound is what helpers print for a server they don't know
// (docker-credential-helpers protocol).
const notFound = "credentials not found in native keychain"

type helperCreds struct{ ServerURL, Username, Secret string }

func helperGet(name, server string) (Auth, error) {
	out, err := helper(name, "get", []byte(server))
	if err != nil {
		if strings.Contains(err.Error(), notFound) {
			return Auth{}, nil
		}
		return Auth{}, err
	}
	var c helperCreds
	if err := json.Unmarshal(out, &c); err != nil {
		return Auth{}, fmt.Errorf("docker-credential-%s: %w", name, err)
	}
	if c.Username == "<token>" {
		return Auth{IdentityToken: c.Secret, ServerAddress: server}, nil
	}
	return Auth{Username: c.Username, Password: c.Secret, ServerAddress: server}, nil
}

func helperStore(name, server string, a Auth) error {
	c := helperCreds{ServerURL: server, Username: a.Username, Secret: a.Password}
	if a.IdentityToken != "" {
		c.Username, c.Secret = "<token>", a.IdentityToken
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = helper(name, "store", b)
	return err
}

func helper(name, verb string, in []byte) ([]byte, error) {
	if strings.ContainsAny(name, "/\\") {
		return nil, errs.New(errs.Invalid, "config.json: credential helper %q is not a name", name)
	}
	cmd := exec.Command("docker-credential-"+name, verb)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(string(out))
		return nil, fmt.Errorf("error getting credentials - err: %w, out: `%s`", err, text)
	}
	return out, nil
}
