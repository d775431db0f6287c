// Package probe asks a container's service whether it works: it connects from
// within the container's network namespace, and speaks HTTP if asked to. No
// process is made for it.
//
// The daemon hands a Prober to the engine, which says what to ask (plan.Probe)
// and where. The package writes nothing. It must not know of containers.
//
// What answers is not trusted: bodies and headers are bounded, redirects are
// not followed, no proxy, cookie or credential of the daemon is used, and names
// are looked up in the container's /etc/hosts alone, never by DNS. Certificates
// are not checked: the daemon can't know whom a container trusts, and asks for
// health, not for secrets.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"gantry/internal/plan"
)

// Bounds of what is read of an answer and of a hosts file.
const (
	maxOutput  = 1024 // bytes of a body that are kept
	maxBody    = 64 << 10
	maxHeaders = 32 << 10
	maxHosts   = 1 << 20
)

// A Prober makes probes. Its zero value is ready, and safe for use by many.
type Prober struct{}

// Probe makes one probe: netns is the path of a network namespace, hosts that of
// the hosts(5) file for names. It ends with ctx. The text says what was found;
// an error, which has the same text, that it is not health.
func (Prober) Probe(ctx context.Context, netns, hosts string, p *plan.Probe) (string, error) {
	addrs, err := lookup(p.Host, hosts)
	if err != nil {
		return "", err
	}
	if p.Scheme == "tcp" {
		conn, err := dialAny(ctx, netns, addrs, p.Port)
		if err != nil {
			return "", err
		}
		conn.Close()
		return "connected to " + p.Address(), nil
	}
	return ask(ctx, p, func(ctx context.Context) (net.Conn, error) { return dialAny(ctx, netns, addrs, p.Port) })
}

// dialAny connects to the first address that lets it.
func dialAny(ctx context.Context, netns string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var all []error
	for _, a := range addrs {
		conn, err := dial(ctx, netns, netip.AddrPortFrom(a, port))
		if err == nil {
			return conn, nil
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(all...)
}

// ask makes one HTTP request over one connection.
func ask(ctx context.Context, p *plan.Probe, connect func(context.Context) (net.Conn, error)) (string, error) {
	tr := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx) },
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaders,
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, p.Method, p.Scheme+"://"+p.Address()+p.Path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "gantry-health")
	for k, v := range p.Header {
		if strings.EqualFold(k, "Host") {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	began := time.Now()
	res, err := tr.RoundTrip(req) // unlike a Client, it follows nothing
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxOutput))
	// To the end of a short answer, so that its sender sees no reset.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxBody))
	text := fmt.Sprintf("%s %s: %s in %v", p.Method, p.Path, res.Status, time.Since(began).Round(time.Millisecond/10))
	if len(body) > 0 {
		text += "\n" + strings.ToValidUTF8(string(body), "?")
	}
	if !p.Healthy(res.StatusCode) {
		return "", errors.New(text)
	}
	return text, nil
}

// lookup returns the addresses of a host: its own if it is one, those of a hosts
// file, or the loopback ones.
func lookup(host, file string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if strings.EqualFold(host, "localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("look up %s: the container's /etc/hosts: %w", host, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHosts))
	if err != nil {
		return nil, fmt.Errorf("look up %s: the container's /etc/hosts: %w", host, err)
	}
	if found := inHosts(host, string(data)); len(found) > 0 {
		return found, nil
	}
	return nil, fmt.Errorf("look up %s: not in the container's /etc/hosts, which is all that a probe by the daemon reads; name an address or localhost", host)
}

// inHosts finds a name in the text of a hosts(5) file.
func inHosts(host, text string) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, name := range f[1:] {
			if strings.EqualFold(name, host) {
				out = append(out, a)
				break
			}
		}
	}
	return out
}
