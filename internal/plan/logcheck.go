package plan

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// LogDrivers returns the names of the log drivers that there are.
func LogDrivers() []string {
	return []string{"fluentd", "gelf", "journald", LogJSON, LogLocal, "splunk", "syslog"}
}

// commonLogOptions hold for every driver but "none".
func commonLogOptions() []string {
	return []string{
		"mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress",
		"labels", "labels-regex", "env", "env-regex", "tag",
	}
}

// logOptions are the options of a driver besides the common ones.
func logOptions(driver string) []string {
	switch driver {
	case LogJSON, LogLocal:
		return []string{"max-size", "max-file", "compress"}
	case "syslog":
		return []string{"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"}
	case "fluentd":
		return []string{
			"fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit", "fluentd-max-retries",
			"fluentd-read-timeout", "fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision", "fluentd-write-timeout",
		}
	case "gelf":
		return []string{"gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"}
	case "splunk":
		return []string{
			"splunk-url", "splunk-token", "splunk-source", "splunk-sourcetype", "splunk-index", "splunk-capath", "splunk-caname",
			"splunk-insecureskipverify", "splunk-format", "splunk-verify-connection", "splunk-gzip", "splunk-gzip-level", "splunk-index-acknowledgment",
		}
	}
	return nil
}

// CheckLog checks the options of a log driver. The error is what Docker answers
// at create.
func CheckLog(driver string, opts map[string]string) error {
	if driver == LogNone {
		return nil
	}
	if err := checkLog(driver, opts); err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	return nil
}

func checkLog(driver string, opts map[string]string) error {
	switch m := opts["mode"]; m {
	case "", "blocking", "non-blocking":
	default:
		return fmt.Errorf("logger: logging mode not supported: %s", m)
	}
	if v, ok := opts["max-buffer-size"]; ok {
		if opts["mode"] != "non-blocking" {
			return fmt.Errorf("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if _, err := units.RAMInBytes(v); err != nil {
			return fmt.Errorf("error parsing option max-buffer-size: %w", err)
		}
	}
	if v := opts["cache-disabled"]; v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("invalid value for option cache-disabled: %s", v)
		}
	}
	format := "unknown log opt '%s' for %s log driver"
	if driver == "gelf" {
		format = "unknown log opt %q for %s log driver"
	}
	known := append(commonLogOptions(), logOptions(driver)...)
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if !slices.Contains(known, k) {
			return fmt.Errorf(format, k, driver)
		}
	}
	switch driver {
	case "syslog":
		return checkSyslog(opts)
	case "fluentd":
		return checkFluentd(opts)
	case "gelf":
		return checkGELF(opts)
	}
	return nil
}

// LogAddress is where a driver sends to.
type LogAddress struct {
	Proto string // "tcp", "tcp+tls", "tls", "udp", "unix", "unixgram"; "" for the driver's default
	Addr  string // host:port, or a path
}

func checkSyslog(opts map[string]string) error {
	if _, err := SyslogAddress(opts["syslog-address"]); err != nil {
		return err
	}
	if _, err := SyslogFacility(opts["syslog-facility"]); err != nil {
		return err
	}
	switch opts["syslog-format"] {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
		return nil
	}
	return fmt.Errorf("invalid syslog format")
}

// SyslogAddress parses the option syslog-address.
func SyslogAddress(s string) (LogAddress, error) {
	if s == "" {
		return LogAddress{}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return LogAddress{}, err
	}
	switch u.Scheme {
	case "unix", "unixgram":
		return LogAddress{u.Scheme, u.Path}, nil
	case "udp", "tcp", "tcp+tls":
		host := u.Host
		if _, _, err := net.SplitHostPort(host); err != nil {
			if !strings.Contains(err.Error(), "missing port in address") {
				return LogAddress{}, err
			}
			host += ":514"
		}
		return LogAddress{u.Scheme, host}, nil
	}
	return LogAddress{}, fmt.Errorf("syslog-address should be in form proto://address, got %v", s)
}

// SyslogFacility parses the option syslog-facility: a name or a number.
func SyslogFacility(s string) (int, error) {
	if s == "" {
		s = "daemon"
	}
	names := []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"}
	if i := slices.Index(names, s); i >= 0 {
		return i, nil
	}
	if n, ok := strings.CutPrefix(s, "local"); ok && len(n) == 1 && n >= "0" && n <= "7" {
		return 16 + int(n[0]-'0'), nil
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 23 {
		return n, nil
	}
	return 0, fmt.Errorf("invalid syslog facility")
}

func checkFluentd(opts map[string]string) error {
	if _, err := FluentdAddress(opts["fluentd-address"]); err != nil {
		return err
	}
	for _, k := range []string{"fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"} {
		if v := opts[k]; v != "" {
			if _, err := strconv.ParseBool(v); err != nil {
				return err
			}
		}
	}
	for _, k := range []string{"fluentd-retry-wait", "fluentd-read-timeout", "fluentd-write-timeout", "fluentd-async-reconnect-interval"} {
		v := opts[k]
		if v == "" {
			continue
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("invalid value for %s: value must be a duration: %w", k, err)
		}
		if k == "fluentd-async-reconnect-interval" && d != 0 && (d < 100*time.Millisecond || d > 10*time.Second) {
			return fmt.Errorf("invalid value for %s: value (%s) must be between 100ms and 10s", k, v)
		}
		if d < 0 {
			return fmt.Errorf("invalid value for %s: value must be a positive duration: %s", k, v)
		}
	}
	if v := opts["fluentd-buffer-limit"]; v != "" {
		if _, err := units.RAMInBytes(v); err != nil {
			return err
		}
	}
	if v := opts["fluentd-max-retries"]; v != "" {
		if _, err := strconv.ParseUint(v, 10, strconv.IntSize); err != nil {
			return err
		}
	}
	return nil
}

// FluentdAddress parses the option fluentd-address.
func FluentdAddress(s string) (LogAddress, error) {
	out := LogAddress{Proto: "tcp", Addr: s}
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		if err != nil {
			return out, fmt.Errorf("invalid fluentd-address %s: %w", s, err)
		}
		switch u.Scheme {
		case "unix":
			if strings.TrimLeft(u.Path, "/") == "" {
				return out, fmt.Errorf("invalid fluentd-address %s: path is empty", s)
			}
			return LogAddress{"unix", u.Path}, nil
		case "tcp", "tls":
		default:
			return out, fmt.Errorf("invalid fluentd-address %s: unsupported scheme: '%s'", s, u.Scheme)
		}
		if u.Path != "" && u.Path != "/" {
			return out, fmt.Errorf("invalid fluentd-address %s: should not contain a path element", s)
		}
		out = LogAddress{u.Scheme, u.Host}
	}
	if out.Addr == "" {
		out.Addr = "127.0.0.1"
	}
	_, port, err := net.SplitHostPort(out.Addr)
	switch {
	case err != nil && strings.Contains(err.Error(), "missing port in address"):
		out.Addr = net.JoinHostPort(strings.Trim(out.Addr, "[]"), "24224")
	case err != nil:
		return out, fmt.Errorf("invalid fluentd-address %s: %w", s, err)
	default:
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return out, fmt.Errorf("invalid fluentd-address %s: %w", s, err)
		}
	}
	return out, nil
}

func checkGELF(opts map[string]string) error {
	a, err := GELFAddress(opts["gelf-address"])
	if err != nil {
		return err
	}
	bad := func(k string) error {
		return fmt.Errorf("unknown value %q for log opt %q for gelf log driver", opts[k], k)
	}
	for k, v := range opts {
		switch k {
		case "gelf-compression-level":
			if i, err := strconv.Atoi(v); err != nil || i < -1 || i > 9 {
				return bad(k)
			}
		case "gelf-compression-type":
			if v != "gzip" && v != "zlib" && v != "none" {
				return bad(k)
			}
		case "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay":
			if i, err := strconv.Atoi(v); err != nil || i < 0 {
				return bad(k)
			}
			if a.Proto == "udp" {
				return fmt.Errorf("%q is only valid for TCP", k)
			}
			continue
		default:
			continue
		}
		if a.Proto == "tcp" {
			return fmt.Errorf("compression is only supported on UDP")
		}
	}
	return nil
}

// GELFAddress parses the option gelf-address.
func GELFAddress(s string) (LogAddress, error) {
	if s == "" {
		return LogAddress{}, fmt.Errorf("gelf-address is a required parameter")
	}
	u, err := url.Parse(s)
	if err != nil {
		return LogAddress{}, err
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return LogAddress{}, fmt.Errorf("gelf: endpoint needs to be TCP or UDP")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return LogAddress{}, fmt.Errorf("gelf: please provide gelf-address as proto://host:port")
	}
	return LogAddress{u.Scheme, u.Host}, nil
}
