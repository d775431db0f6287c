package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gantry/internal/disk"
)

// check returns what is wrong with the values together.
func (c *Config) check() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error", "fatal"}, c.LogLevel) {
		return fmt.Errorf("invalid logging level: %s", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("invalid log format: %s", c.LogFormat)
	}
	if c.CgroupDriver != "cgroupfs" && c.CgroupDriver != "systemd" {
		return fmt.Errorf("native.cgroupdriver option %s not supported", c.CgroupDriver)
	}
	if c.CgroupDriver == "systemd" && c.CgroupParent != "" && (c.CgroupParent == ".slice" || !strings.HasSuffix(c.CgroupParent, ".slice")) {
		return fmt.Errorf("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	if !slices.Contains([]string{"", "host", "private"}, c.CgroupnsMode) {
		return fmt.Errorf("default cgroup namespace mode (%s) is invalid; use \"host\" or \"private\"", c.CgroupnsMode)
	}
	if c.IPCMode != "private" && c.IPCMode != "shareable" {
		return fmt.Errorf("IPC mode is \"%s\": use \"private\" or \"shareable\"", c.IPCMode)
	}
	for _, l := range c.Labels {
		if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
			return fmt.Errorf("bad attribute format: %s", l)
		}
	}
	if _, err := disk.ParseBudget(c.DiskBudget, 1<<40); err != nil {
		return err
	}
	if c.MTU < 0 {
		return fmt.Errorf("invalid default MTU: %d", c.MTU)
	}
	if c.StopTimeout < 0 || c.ShutdownTimeout < -1 {
		return fmt.Errorf("a timeout can't be negative")
	}
	if c.BIP.IsValid() && !c.BIP.Addr().Is4() {
		return fmt.Errorf("invalid bip %s: not an IPv4 address", c.BIP)
	}
	for what, p := range map[string]netip.Prefix{"bip6": c.BIP6, "fixed-cidr-v6": c.FixedCIDR6} {
		if p.IsValid() && !p.Addr().Is6() {
			return fmt.Errorf("invalid %s %s: not an IPv6 address", what, p)
		}
	}
	for key, n := range map[string]int{"max-concurrent-downloads": c.MaxDownloads, "max-concurrent-uploads": c.MaxUploads, "max-download-attempts": c.DownloadAttempts} {
		if n < 0 {
			return fmt.Errorf("invalid %s: %d", key, n)
		}
	}
	if _, ok := c.Runtimes[c.DefaultRuntime]; !ok && c.DefaultRuntime != OwnRuntime && c.DefaultRuntime != "runc" {
		return fmt.Errorf("specified default runtime '%s' does not exist", c.DefaultRuntime)
	}
	return c.checkNames()
}

// checkNames checks what becomes part of the names of kernel objects, and where
// the daemon listens.
func (c *Config) checkNames() error {
	if len(c.Instance) > 8 || strings.Trim(c.Instance, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("invalid instance %q: at most 8 lower-case letters and digits", c.Instance)
	}
	if len(c.Bridge) > 15 || strings.ContainsAny(c.Bridge, "/ \t\n") {
		return fmt.Errorf("invalid bridge name %q", c.Bridge)
	}
	if err := c.checkSockets(); err != nil {
		return err
	}
	for i, h := range c.Hosts {
		full, err := normalHost(h, c.Run)
		if err != nil {
			return err
		}
		c.Hosts[i] = full
	}
	return c.checkTLS()
}

// normalHost completes a value of -H.
func normalHost(h, run string) (string, error) {
	proto, addr, ok := strings.Cut(strings.TrimSpace(h), "://")
	if !ok {
		proto, addr = "tcp", proto
	}
	switch proto {
	case "unix":
		if addr == "" {
			addr = run + "/gantry.sock"
		}
		return "unix://" + addr, nil
	case "fd":
		return "fd://" + addr, nil
	case "tcp":
		if addr == "" || strings.HasPrefix(addr, ":") && len(addr) > 1 {
			addr = "localhost" + addr
		}
		return "tcp://" + addr, nil
	}
	return "", fmt.Errorf("invalid bind address (%s): unsupported proto %q: use unix, tcp or fd", h, proto)
}

// checkTLS holds row S20 of the threat model: whoever reaches the API is root,
// so a TCP port without a verified client must be asked for in so many words.
func (c *Config) checkTLS() error {
	tcp := slices.ContainsFunc(c.Hosts, func(h string) bool { return strings.HasPrefix(h, "tcp://") })
	if !tcp {
		return nil
	}
	if c.TLSVerify {
		for name, path := range map[string]string{"tlscacert": c.TLSCA, "tlscert": c.TLSCert, "tlskey": c.TLSKey} {
			if path == "" {
				return fmt.Errorf("--tlsverify needs --%s", name)
			}
		}
		return nil
	}
	if c.TLS != nil && !*c.TLS {
		c.Warnings = append(c.Warnings, "the API is reachable over TCP without encryption and without authentication: everyone who reaches the port is root on this machine")
		return nil
	}
	return fmt.Errorf("refusing to listen on TCP without verified clients: everyone who reaches the port would be root on this machine; give --tlsverify with --tlscacert, --tlscert and --tlskey, or say --tls=false if that is what you want")
}
