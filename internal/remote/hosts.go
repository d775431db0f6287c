package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"

	"gantry/internal/errs"
)

// An endpoint is one place where a repository can be had.
type endpoint struct {
	scheme   string // http or https
	host     string // with its port, if that is not the scheme's
	path     string // of the API, "/v2" at a registry
	repo     string // the repository's path there
	mirror   bool   // nothing is pushed there
	insecure bool   // the certificate is not checked, and plain HTTP will do
	tls      tlsFiles
	// unverified is an endpoint whose certificate is not checked, but TLS it must be.
	unverified bool
	header     http.Header // sent with every request to it
	// authHosts may see credentials besides the endpoint itself.
	authHosts []string
}

// tlsFiles are PEM files, all optional.
type tlsFiles struct {
	ca    []string
	pairs [][2]string // certificate, key
}

// serverHost is where a registry with the domain of image names really is: the
// default one's is another than that in names.
func serverHost(domain string) string {
	h, err := docker.DefaultHost(domain)
	if err != nil {
		return domain
	}
	return h
}

// defaultDomain is the domain of names that say none.
func defaultDomain() string {
	ref, err := reference.ParseNormalizedNamed("x")
	if err != nil {
		return ""
	}
	return reference.Domain(ref)
}

// endpoints returns where name can be had, in the order to try: mirrors, then
// the registry.
func endpoints(name reference.Named, c Config) ([]endpoint, error) {
	domain, repo := reference.Domain(name), reference.Path(name)
	own := tableEntry(name.Name(), c.Registries)
	mirrors := own.Mirrors
	if domain == defaultDomain() {
		mirrors = append(slices.Clone(mirrors), c.Mirrors...)
	}
	at, err := rewrite(repo, own.Rewrite)
	if err != nil {
		return nil, err
	}
	var list []endpoint
	for _, m := range mirrors {
		e, err := mirrorEndpoint(m, c)
		if err != nil {
			return nil, err
		}
		e.repo = at
		list = append(list, e)
	}
	e := endpoint{scheme: "https", host: serverHost(domain), path: "/v2", repo: repo, authHosts: own.AuthHosts}
	e.insecure = own.Insecure || isInsecure(e.host, c.Insecure)
	if e.tls, err = certificates(e.host, c.CertDirs); err != nil {
		return nil, err
	}
	if own.CA != "" {
		e.tls.ca = append(e.tls.ca, own.CA)
	}
	if own.Cert != "" {
		e.tls.pairs = append(e.tls.pairs, [2]string{own.Cert, own.Key})
	}
	more, e, err := tabled(e, at, c)
	if err != nil {
		return nil, err
	}
	return append(append(list, more...), e), nil
}

// Check returns what is wrong with a configuration: errs.Invalid names the part.
func (c Config) Check() error {
	for _, m := range c.Mirrors {
		if _, err := mirrorAddress(m); err != nil {
			return err
		}
	}
	for prefix, r := range c.Registries {
		if _, err := reference.ParseNormalizedNamed(strings.TrimSuffix(prefix, "/") + "/x"); err != nil {
			return errs.New(errs.Invalid, "registries: %q begins no image's name: %w", prefix, err)
		}
		for _, m := range r.Mirrors {
			if _, err := mirrorAddress(m); err != nil {
				return fmt.Errorf("registries: %s: %w", prefix, err)
			}
		}
		for expr := range r.Rewrite {
			if _, err := regexp.Compile(expr); err != nil {
				return errs.New(errs.Invalid, "registries: %s: rewrite rule %q: %w", prefix, expr, err)
			}
		}
		if (r.Cert == "") != (r.Key == "") {
			return errs.New(errs.Invalid, "registries: %s: cert and key belong together", prefix)
		}
	}
	return nil
}

// tableEntry returns the entry of the longest key that name begins with.
func tableEntry(name string, table map[string]Registry) Registry {
	best := ""
	for key := range table {
		k := strings.TrimSuffix(key, "/")
		if (name == k || strings.HasPrefix(name, k+"/")) && len(key) > len(best) {
			best = key
		}
	}
	return table[best]
}

// rewrite returns what repo is called at the mirrors: by the first rule, in order
// of the expressions, that matches.
func rewrite(repo string, rules map[string]string) (string, error) {
	for _, expr := range sortedKeys(rules) {
		re, err := regexp.Compile(expr)
		if err != nil {
			return "", errs.New(errs.Invalid, "registries: rewrite rule %q: %w", expr, err)
		}
		if re.MatchString(repo) {
			to := re.ReplaceAllString(repo, rules[expr])
			if clean := path.Clean(to); clean != to || strings.HasPrefix(to, ".") || strings.HasPrefix(to, "/") || to == "" {
				return "", errs.New(errs.Invalid, "registries: rewrite rule %q makes %q of %q, which is no repository", expr, to, repo)
			}
			return to, nil
		}
	}
	return repo, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// mirrorAddress reads the URL of a mirror; https if it does not say.
func mirrorAddress(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errs.New(errs.Invalid, "invalid mirror %q: it must be http(s)://host[:port][/path]", text)
	}
	return u, nil
}

// mirrorEndpoint returns the endpoint at the URL of a mirror. A path in it comes
// before "/v2", unless it has that itself.
func mirrorEndpoint(text string, c Config) (endpoint, error) {
	u, err := mirrorAddress(text)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{scheme: u.Scheme, host: u.Host, path: strings.TrimSuffix(u.Path, "/"), mirror: true}
	if !slices.Contains(strings.Split(e.path, "/"), "v2") {
		e.path += "/v2"
	}
	own := tableEntry(e.host, c.Registries)
	e.insecure = e.scheme == "http" || own.Insecure || isInsecure(e.host, c.Insecure)
	e.authHosts = own.AuthHosts
	if e.tls, err = certificates(e.host, c.CertDirs); err == nil && own.CA != "" {
		e.tls.ca = append(e.tls.ca, own.CA)
	}
	return e, err
}

// isInsecure reports whether a host is one of those where TLS is optional, or
// this machine itself.
func isInsecure(host string, list []string) bool {
	name := hostName(host)
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err == nil && addr.Unmap().IsLoopback() {
		return true
	}
	for _, i := range list {
		i = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(i, "https://"), "http://"), "/")
		if strings.EqualFold(i, host) || strings.EqualFold(i, name) {
			return true
		}
		if p, perr := netip.ParsePrefix(i); perr == nil && err == nil && p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// hostName returns a host without its port.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// certificates finds the files for a host in dirs: *.crt to trust, and *.cert with
// its *.key to show.
func certificates(host string, dirs []string) (tlsFiles, error) {
	var f tlsFiles
	for _, d := range dirs {
		dir := filepath.Join(d, strings.ReplaceAll(host, "/", "_"))
		list, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		} else if err != nil {
			return f, fmt.Errorf("certificates of %s: %w", host, err)
		}
		for _, e := range list {
			file := filepath.Join(dir, e.Name())
			switch filepath.Ext(file) {
			case ".crt":
				f.ca = append(f.ca, file)
			case ".cert":
				key := strings.TrimSuffix(file, ".cert") + ".key"
				if _, err := os.Stat(key); err != nil {
					return f, errs.New(errs.Invalid, "missing key %s for client certificate %s. CA certificates must use the extension .crt", filepath.Base(key), e.Name())
				}
				f.pairs = append(f.pairs, [2]string{file, key})
			case ".key":
				cert := strings.TrimSuffix(file, ".key") + ".cert"
				if _, err := os.Stat(cert); err != nil {
					return f, errs.New(errs.Invalid, "missing client certificate %s for key %s", filepath.Base(cert), e.Name())
				}
			}
		}
	}
	return f, nil
}

// config reads the files. Trust is the system's and theirs.
func (f tlsFiles) config(insecure bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if len(f.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, name := range f.ca {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("CA certificate: %w", err)
			}
			if !pool.AppendCertsFromPEM(data) {
				return nil, errs.New(errs.Invalid, "CA certificate %s holds no certificate", name)
			}
		}
		c.RootCAs = pool
	}
	for _, p := range f.pairs {
		pair, err := tls.LoadX509KeyPair(p[0], p[1])
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", p[0], err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c, nil
}
