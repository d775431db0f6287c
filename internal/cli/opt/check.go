package opt

import (
	"net"
	"regexp"
	"strings"

	"gantry/internal/errs"
)

// Attach checks a value of --attach and lowers its case.
func Attach(v string) (string, error) {
	switch s := strings.ToLower(v); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return v, errs.New(errs.Invalid, "valid streams are STDIN, STDOUT and STDERR")
}

// Env checks NAME=value or NAME. A bare name takes its value from lookup, and is
// kept bare if lookup does not know it, which unsets it.
func Env(lookup func(string) (string, bool)) func(string) (string, error) {
	return func(v string) (string, error) {
		name, _, has := strings.Cut(v, "=")
		if name == "" {
			return "", errs.New(errs.Invalid, "invalid environment variable: %s", v)
		}
		if has {
			return v, nil
		}
		if val, ok := lookup(name); ok {
			return name + "=" + val, nil
		}
		return v, nil
	}
}

// Label checks key[=value].
func Label(v string) (string, error) {
	key, _, _ := strings.Cut(v, "=")
	key = strings.TrimLeft(key, " \t")
	if key == "" {
		return "", errs.New(errs.Invalid, "invalid label '%s': empty name", v)
	}
	if strings.ContainsAny(key, " \t") {
		return "", errs.New(errs.Invalid, "label '%s' contains whitespaces", key)
	}
	return v, nil
}

// sysctls that belong to the IPC namespace; net.* and fs.mqueue.* are allowed as a whole.
const ipcSysctls = " kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced "

// Sysctl checks key=value for a name that has a namespace.
func Sysctl(v string) (string, error) {
	k, _, ok := strings.Cut(v, "=")
	if ok && k != "" && (strings.Contains(ipcSysctls, " "+k+" ") || strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "fs.mqueue.")) {
		return v, nil
	}
	return "", errs.New(errs.Invalid, "sysctl '%s' is not allowed", v)
}

// IP checks an address and writes it in the usual form.
func IP(v string) (string, error) {
	if ip := net.ParseIP(strings.TrimSpace(v)); ip != nil {
		return ip.String(), nil
	}
	return "", errs.New(errs.Invalid, "IP address is not correctly formatted: %s", v)
}

// DNSSearch checks a search domain; "." means none.
func DNSSearch(v string) (string, error) {
	v = strings.Trim(v, " ")
	if v == "." {
		return v, nil
	}
	name := strings.TrimSuffix(v, ".")
	ok := name != "" && len(name) < 255 && strings.ContainsAny(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz")
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			ok = false
		}
	}
	if !ok {
		return "", errs.New(errs.Invalid, "%s is not a valid domain", v)
	}
	return name, nil
}

// ExtraHost checks host:ip or host=ip; the daemon gets host:ip. host-gateway
// stands for an address that the daemon knows.
func ExtraHost(v string) (string, error) {
	name, ip, ok := strings.Cut(v, "=")
	if !ok {
		name, ip, ok = strings.Cut(v, ":")
	}
	if !ok || name == "" {
		return "", errs.New(errs.Invalid, "bad format for add-host: %q", v)
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if ip == "host-gateway" {
		return name + ":" + ip, nil
	}
	if _, err := IP(ip); err != nil {
		return "", errs.New(errs.Invalid, "invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

// Link checks container[:alias].
func Link(v string) (string, error) {
	if v == "" {
		return "", errs.New(errs.Invalid, "empty string specified for links")
	}
	if strings.Count(v, ":") > 1 {
		return "", errs.New(errs.Invalid, "bad format for links: %s", v)
	}
	return v, nil
}

// DeviceRule checks "type major:minor mode" of the devices cgroup.
func DeviceRule(v string) (string, error) {
	if !regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`).MatchString(v) {
		return v, errs.New(errs.Invalid, "invalid device cgroup format '%s'", v)
	}
	return v, nil
}
