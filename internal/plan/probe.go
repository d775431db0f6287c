package plan

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// Probe is a health check that the daemon makes itself, in the container's
// network, without a process in the container. A request asks for one with
//
//	"Test": ["HTTP", "http://localhost:8080/ready", "200-299,404", "method=HEAD", "header=Name: value"]
//	"Test": ["TCP", "localhost:6379"]
//
// or with a command that is nothing but such an address, as the stock client's
// --health-cmd and a Dockerfile can say it: "http://localhost:8080/ 200-299",
// "tcp://localhost:6379".
type Probe struct {
	Scheme string // "http", "https" or "tcp"
	// Host is an address, "localhost" or a name of the container's /etc/hosts.
	Host   string
	Port   uint16
	Path   string            `json:",omitempty"` // with the query; of HTTP
	Method string            `json:",omitempty"`
	Header map[string]string `json:",omitempty"`
	// Status are the codes that mean health.
	Status []StatusRange `json:",omitempty"`
}

// StatusRange is a range of HTTP status codes, both ends in it.
type StatusRange struct{ Low, High int }

// Healthy reports whether an answer with that status means health.
func (p *Probe) Healthy(status int) bool {
	return slices.ContainsFunc(p.Status, func(r StatusRange) bool { return r.Low <= status && status <= r.High })
}

// Address is what the probe connects to, as "host:port".
func (p *Probe) Address() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// parseProbe reads a health check's test; nil if it is none of the daemon's own.
func parseProbe(test []string) (*Probe, error) {
	if len(test) < 2 {
		return nil, nil
	}
	var words []string
	switch test[0] {
	case "HTTP", "TCP":
		words = slices.Clone(test[1:])
		if test[0] == "TCP" && !strings.HasPrefix(words[0], "tcp://") {
			words[0] = "tcp://" + words[0]
		}
		if isTCP := strings.HasPrefix(words[0], "tcp://"); isTCP != (test[0] == "TCP") {
			return nil, badProbe("%q is no address for a test of kind %s", test[1], test[0])
		}
	case "CMD", "CMD-SHELL":
		if len(test) == 2 {
			words = strings.Fields(test[1])
		}
	}
	if len(words) == 0 || test[0] != "HTTP" && !isProbeAddress(words[0]) {
		return nil, nil
	}
	p, err := probeTarget(words[0])
	if err != nil {
		return nil, err
	}
	for _, o := range words[1:] {
		if err := p.option(o); err != nil {
			return nil, err
		}
	}
	if p.Scheme != "tcp" && p.Status == nil {
		p.Status = []StatusRange{{200, 399}}
	}
	return p, nil
}

func isProbeAddress(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "tcp://")
}

func badProbe(format string, args ...any) error {
	return errs.New(errs.Invalid, "invalid health check: "+format, args...)
}

// probeTarget reads "scheme://host[:port][/path]".
func probeTarget(s string) (*Probe, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, badProbe("%q is not an address such as http://localhost:8080/path or tcp://localhost:6379", s)
	}
	p := &Probe{Scheme: u.Scheme, Host: u.Hostname(), Path: u.RequestURI(), Method: "GET"}
	port := u.Port()
	switch u.Scheme {
	case "http":
		port = firstNonEmpty(port, "80")
	case "https":
		port = firstNonEmpty(port, "443")
	case "tcp":
		if p.Path != "/" && p.Path != "" || strings.HasSuffix(s, "/") {
			return nil, badProbe("%q: a TCP probe has no path", s)
		}
		p.Path, p.Method = "", ""
	default:
		return nil, badProbe("%q: the kinds of probe are http, https and tcp", s)
	}
	if u.User != nil {
		return nil, badProbe("%q: user names belong into a header", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, badProbe("%q: the port is missing or is no port number", s)
	}
	p.Port = uint16(n)
	if !validProbeHost(p.Host) {
		return nil, badProbe("%q: %q is neither an IP address nor a host name", s, p.Host)
	}
	return p, nil
}

func validProbeHost(h string) bool {
	if a, err := netip.ParseAddr(h); err == nil {
		return a.Zone() == ""
	}
	if h == "" || len(h) > 253 {
		return false
	}
	for i := range len(h) {
		c := h[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

// option reads what follows the address: status codes, a method or a header.
func (p *Probe) option(o string) error {
	if p.Scheme == "tcp" {
		return badProbe("a TCP probe has no options, and %q is one", o)
	}
	key, value, _ := strings.Cut(o, "=")
	switch key {
	case "method":
		if value != "GET" && value != "HEAD" && value != "OPTIONS" && value != "POST" {
			return badProbe("method %q is not one of GET, HEAD, OPTIONS and POST", value)
		}
		p.Method = value
		return nil
	case "header":
		name, text, ok := strings.Cut(value, ":")
		if !ok || !token(name) || strings.ContainsAny(text, "\r\n\x00") {
			return badProbe("header %q is not of the form Name: value", value)
		}
		if p.Header == nil {
			p.Header = map[string]string{}
		}
		p.Header[name] = strings.TrimSpace(text)
		return nil
	case "status":
	default:
		value = o
	}
	for _, item := range strings.Split(value, ",") {
		lo, hi, ranged := strings.Cut(item, "-")
		if !ranged {
			hi = lo
		}
		a, errA := strconv.Atoi(lo)
		b, errB := strconv.Atoi(hi)
		if errA != nil || errB != nil || a < 100 || b > 599 || a > b {
			return badProbe("%q is neither a range of status codes such as 200-299 nor one of method=… and header=…", o)
		}
		p.Status = append(p.Status, StatusRange{a, b})
	}
	return nil
}

// token reports whether s is a name of a header (RFC 9110, section 5.6.2).
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}
