package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// apiSockets is --api-socket path=…,policy=… and the key api-sockets: an array
// of objects with the same keys, or of such texts.
func apiSockets() field {
	one := func(c *Config, s string) error {
		var a APISocket
		for part := range strings.SplitSeq(s, ",") {
			k, v, _ := strings.Cut(part, "=")
			switch strings.TrimSpace(k) {
			case "path":
				a.Path = v
			case "policy":
				a.Policy = v
			case "mode":
				a.Mode = v
			case "group":
				a.Group = v
			default:
				return fmt.Errorf("unexpected key '%s' in '%s'", k, part)
			}
		}
		c.APISockets = append(c.APISockets, a)
		return nil
	}
	return field{kind: "socket", text: one, json: func(c *Config, raw json.RawMessage) error {
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for _, item := range list {
			var text string
			if json.Unmarshal(item, &text) == nil {
				if err := one(c, text); err != nil {
					return err
				}
				continue
			}
			var a APISocket
			dec := json.NewDecoder(bytes.NewReader(item))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&a); err != nil {
				return err
			}
			c.APISockets = append(c.APISockets, a)
		}
		return nil
	}}
}

// FileMode returns the socket's permissions.
func (a APISocket) FileMode() uint32 {
	n, err := strconv.ParseUint(a.Mode, 8, 32)
	if err != nil {
		return 0o660
	}
	return uint32(n)
}

// checkSockets checks the sockets besides the API's own.
func (c *Config) checkSockets() error {
	seen := map[string]bool{}
	for _, h := range c.Hosts {
		seen[strings.TrimPrefix(h, "unix://")] = true
	}
	for i := range c.APISockets {
		a := &c.APISockets[i]
		a.Path = strings.TrimPrefix(a.Path, "unix://")
		if !filepath.IsAbs(a.Path) {
			return fmt.Errorf("api-socket: path %q is not absolute", a.Path)
		}
		a.Path = filepath.Clean(a.Path)
		if a.Policy == "" {
			return fmt.Errorf("api-socket %s: no policy: a socket without one would be the full API", a.Path)
		}
		if seen[a.Path] {
			return fmt.Errorf("api-socket %s: the path is that of another socket", a.Path)
		}
		seen[a.Path] = true
		if n, err := strconv.ParseUint(a.Mode, 8, 32); a.Mode != "" && (err != nil || n > 0o777) {
			return fmt.Errorf("api-socket %s: invalid mode %q", a.Path, a.Mode)
		}
	}
	if c.DebugSocket != "" && !filepath.IsAbs(c.DebugSocket) {
		return fmt.Errorf("debug-socket: path %q is not absolute", c.DebugSocket)
	}
	if c.MetricsAddr != "" {
		if _, port, err := net.SplitHostPort(c.MetricsAddr); err != nil || port == "" {
			return fmt.Errorf("metrics-addr: %q is not host:port", c.MetricsAddr)
		}
	}
	return nil
}
