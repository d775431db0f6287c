package conf

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"

	"gantry/internal/errs"
)

// Sockets tried when nobody says where the daemon is.
const (
	GantrySocket = "/run/gantry/gantry.sock"
	DockerSocket = "/var/run/docker.sock"
)

// Global are the flags in front of the command.
type Global struct {
	Dir, Context, LogLevel string
	Hosts                  []string
	Debug, TLS, TLSVerify  bool
	CACert, Cert, Key      string
	Version                bool
	TLSSet, VerifySet      bool // given on the command line
}

// Target is a daemon, resolved.
type Target struct {
	Context string // the context's name
	Host    string
	TLS     *tls.Config
	// Overridden says that GANTRY_HOST or DOCKER_HOST hides the current context.
	Overridden bool
}

// hostEnv returns the host that the environment names, and the variable.
func hostEnv() (string, string) {
	for _, v := range []string{"GANTRY_HOST", "DOCKER_HOST"} {
		if h := os.Getenv(v); h != "" {
			return h, v
		}
	}
	return "", ""
}

// HostVariable returns the name of the environment variable that says where the
// daemon is, "" if none does.
func HostVariable() string { _, v := hostEnv(); return v }

// ContextName decides which context is meant. Order: --context, --host or the
// host variables (default), DOCKER_CONTEXT, config.json.
func ContextName(g Global, f *File) (string, error) {
	if g.Context != "" && len(g.Hosts) > 0 {
		return "", errs.New(errs.Invalid, "conflicting options: cannot specify both --host and --context")
	}
	switch {
	case g.Context != "":
		return g.Context, nil
	case len(g.Hosts) > 0:
		return DefaultContext, nil
	}
	if h, _ := hostEnv(); h != "" {
		return DefaultContext, nil
	}
	for _, v := range []string{"GANTRY_CONTEXT", "DOCKER_CONTEXT"} {
		if c := os.Getenv(v); c != "" {
			return c, nil
		}
	}
	if f != nil && f.CurrentContext != "" {
		return f.CurrentContext, nil
	}
	return DefaultContext, nil
}

// Resolve returns the daemon that the flags, the environment and the
// configuration point to.
func Resolve(g Global, f *File) (Target, error) {
	name, err := ContextName(g, f)
	if err != nil {
		return Target{}, err
	}
	if name == DefaultContext {
		return defaultTarget(g)
	}
	s := Contexts(g.Dir)
	c, err := s.Get(name)
	if err != nil {
		return Target{}, errs.New(errs.NotFound, "unable to resolve docker endpoint: %w", err)
	}
	ep, ok := c.Endpoints["docker"]
	if !ok || ep.Host == "" {
		return Target{}, errs.New(errs.NotFound, "unable to resolve docker endpoint: cannot find docker endpoint in context %q", name)
	}
	pem, err := s.TLS(name)
	if err != nil {
		return Target{}, err
	}
	t := Target{Context: name, Host: ep.Host}
	if pem.CA != nil || pem.Cert != nil || ep.SkipTLSVerify {
		t.TLS, err = tlsConfig(pem, ep.SkipTLSVerify)
	}
	return t, err
}

// DefaultHost returns the host that the default context means.
func DefaultHost(g Global) (string, error) {
	if len(g.Hosts) > 1 {
		return "", errs.New(errs.Invalid, "specify only one -H")
	}
	host, _ := hostEnv()
	if len(g.Hosts) == 1 {
		host = g.Hosts[0]
	}
	if host == "" {
		// The daemon of this project first; a host with only another engine works too.
		if _, err := os.Stat(GantrySocket); err != nil {
			if _, err := os.Stat(DockerSocket); err == nil {
				return "unix://" + DockerSocket, nil
			}
		}
		return "unix://" + GantrySocket, nil
	}
	return ParseHost(host, usesTLS(g))
}

func usesTLS(g Global) bool { return g.TLS || verify(g) }

func verify(g Global) bool {
	if g.VerifySet {
		return g.TLSVerify
	}
	return os.Getenv("DOCKER_TLS_VERIFY") != ""
}

// ParseHost fills in what may be left out of a host: a lone path, host:port, the
// port of tcp.
func ParseHost(s string, secure bool) (string, error) {
	s = strings.TrimSpace(s)
	proto, addr, ok := strings.Cut(s, "://")
	if !ok {
		if strings.HasPrefix(s, "/") {
			return "unix://" + s, nil
		}
		proto, addr = "tcp", s
	}
	switch proto {
	case "unix":
		if addr == "" {
			addr = DockerSocket
		}
		return "unix://" + addr, nil
	case "http", "https", "ssh":
		return s, nil
	case "tcp":
		port := "2375"
		if secure {
			port = "2376"
		}
		host, path, _ := strings.Cut(addr, "/")
		if path != "" {
			path = "/" + path
		}
		if host == "" {
			host = "localhost:" + port
		} else if strings.HasPrefix(host, ":") {
			host = "localhost" + host
		} else if strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']') {
			host += ":" + port
		}
		return "tcp://" + host + path, nil
	}
	return "", errs.New(errs.Invalid, "invalid bind address format: %s", s)
}

func defaultTarget(g Global) (Target, error) {
	host, err := DefaultHost(g)
	if err != nil {
		return Target{}, errs.New(errs.Invalid, "unable to resolve docker endpoint: %w", err)
	}
	t := Target{Context: DefaultContext, Host: host}
	_, v := hostEnv()
	t.Overridden = v != "" && len(g.Hosts) == 0
	if !usesTLS(g) || strings.HasPrefix(host, "unix:") || strings.HasPrefix(host, "ssh:") {
		return t, nil
	}
	certs := os.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = g.Dir
	}
	var pem TLS
	for _, p := range []struct {
		flag, name string
		dst        *[]byte
	}{{g.CACert, caFile, &pem.CA}, {g.Cert, certFile, &pem.Cert}, {g.Key, keyFile, &pem.Key}} {
		file := p.flag
		if file == "" {
			file = filepath.Join(certs, p.name)
		}
		b, err := os.ReadFile(file)
		if err != nil && (p.flag != "" || !os.IsNotExist(err)) {
			return t, errs.New(errs.Invalid, "unable to resolve docker endpoint: %w", err)
		}
		*p.dst = b
	}
	if verify(g) && len(pem.CA) == 0 && g.CACert == "" {
		return t, errs.New(errs.Invalid, "unable to resolve docker endpoint: open %s: no such file or directory", filepath.Join(certs, caFile))
	}
	t.TLS, err = tlsConfig(pem, !verify(g))
	return t, err
}

func tlsConfig(pem TLS, skipVerify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}
	if len(pem.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem.CA) {
			return nil, errs.New(errs.Invalid, "failed to append certificates from the CA file")
		}
	}
	if len(pem.Cert) > 0 || len(pem.Key) > 0 {
		pair, err := tls.X509KeyPair(pem.Cert, pem.Key)
		if err != nil {
			return nil, errs.New(errs.Invalid, "failed to load the TLS certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
