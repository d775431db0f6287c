package grammar

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Attest reads --attest. disabled says that the attestation is asked not to be made.
func Attest(s string) (e Entry, disabled bool, err error) {
	list, err := fields(s)
	if err != nil {
		return Entry{}, false, err
	}
	e.Attrs = map[string]string{}
	for _, f := range list {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return Entry{}, false, fmt.Errorf("invalid value %s", f)
		}
		switch strings.ToLower(strings.TrimSpace(k)) {
		case "type":
			e.Type = v
		case "disabled":
			if disabled, err = strconv.ParseBool(v); err != nil {
				return Entry{}, false, fmt.Errorf("invalid value %s: %w", f, err)
			}
		default:
			e.Attrs[k] = v
		}
	}
	if e.Type == "" {
		return Entry{}, false, fmt.Errorf("attestation type not specified")
	}
	return e, disabled, nil
}

// ShortAttest turns the value of --provenance or --sbom into one of --attest; ""
// if the flag was not given.
func ShortAttest(kind, value string) string {
	if value == "" {
		return ""
	}
	if on, err := strconv.ParseBool(value); err == nil {
		return fmt.Sprintf("type=%s,disabled=%t", kind, !on)
	}
	return "type=" + kind + "," + value
}

// Call is a --call: a question to the frontend instead of a build. The empty
// Name is a build.
type Call struct {
	Name, Format string
	IgnoreStatus bool
}

// ParseCall reads --call.
func ParseCall(s string) (Call, error) {
	if s == "" || s == "build" {
		return Call{}, nil
	}
	list, err := fields(s)
	if err != nil {
		return Call{}, err
	}
	var c Call
	for _, f := range list {
		k, v, ok := strings.Cut(f, "=")
		switch {
		case !ok && c.Name != "":
			return Call{}, fmt.Errorf("invalid print value: %s", s)
		case !ok:
			c.Name = f
		case k == "format":
			c.Format = v
		case k == "ignorestatus":
			if c.IgnoreStatus, err = strconv.ParseBool(v); err != nil {
				return Call{}, fmt.Errorf("invalid ignorestatus print value: %s: %w", v, err)
			}
		default:
			return Call{}, fmt.Errorf("invalid print field: %s", f)
		}
	}
	switch c.Name {
	case "check":
		c.Name = "lint"
	case "build":
		return Call{}, nil
	}
	return c, nil
}

// KeyValues reads a list of KEY=VALUE. A KEY alone has the value that lookup
// finds, and is left out if it finds none; without a lookup it is empty.
func KeyValues(list []string, lookup func(string) (string, bool)) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if k == "" {
			return nil, fmt.Errorf("invalid key-value pair %q: empty key", s)
		}
		if !ok && lookup != nil {
			if v, ok = lookup(k); !ok {
				continue
			}
		}
		out[k] = v
	}
	return out, nil
}

// Platforms splits --platform, which may be given several times and hold several.
func Platforms(list []string) []string {
	var out []string
	for _, s := range list {
		for p := range strings.SplitSeq(s, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

// HostGateway is the address of --add-host that stands for the daemon's host.
const HostGateway = "host-gateway"

// Hosts turns --add-host values (name:ip, name=ip, several addresses parted by
// commas) into the frontend's list; gateway gives the address of host-gateway.
func Hosts(list []string, gateway func() (string, error)) (string, error) {
	var out []string
	for _, h := range list {
		name, ips, ok := strings.Cut(h, "=")
		if !ok {
			name, ips, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || ips == "" {
			return "", fmt.Errorf("invalid host %s", h)
		}
		for ip := range strings.SplitSeq(ips, ",") {
			if ip == HostGateway {
				var err error
				if ip, err = gateway(); err != nil {
					return "", fmt.Errorf("unable to derive the IP value for host-gateway: %w", err)
				}
			}
			ip = strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
			if _, err := netip.ParseAddr(ip); err != nil {
				return "", fmt.Errorf("invalid host %s", h)
			}
			out = append(out, name+"="+ip)
		}
	}
	return strings.Join(out, ","), nil
}

// Annotations turns --annotation values (key=value, or type[platform],…:key=value)
// into the attributes that exporters read.
func Annotations(list []string) (map[string]string, error) {
	kind := regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)
	out := map[string]string{}
	for _, s := range list {
		if s == "" {
			continue
		}
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("parse annotations: invalid annotation %q, expected key=value", s)
		}
		types, key, ok := strings.Cut(k, ":")
		if !ok {
			out["annotation."+k] = v
			continue
		}
		for t := range strings.SplitSeq(types, ",") {
			m := kind.FindStringSubmatch(t)
			if m == nil {
				return nil, fmt.Errorf("parse annotations: invalid annotation type %q, expected type and optional platform in square brackets", t)
			}
			switch m[1] {
			case "index", "index-descriptor", "manifest", "manifest-descriptor":
			default:
				return nil, fmt.Errorf("parse annotations: unknown annotation type %q", m[1])
			}
			name := "annotation-" + m[1]
			if m[2] != "" {
				name += "[" + m[2] + "]"
			}
			out[name+"."+key] = v
		}
	}
	return out, nil
}

// DeleteEntitlement lets a local output delete what is in its directory.
const DeleteEntitlement = "buildx.local.delete"

// Entitlements reads --allow: what the daemon is asked to grant, and whether a
// local output may delete.
func Entitlements(list []string) (out []string, mayDelete bool, err error) {
	for _, s := range list {
		name, _, valued := strings.Cut(s, "=")
		switch name {
		case "":
		case DeleteEntitlement:
			if valued {
				return nil, false, fmt.Errorf("%s does not accept a value", DeleteEntitlement)
			}
			mayDelete = true
		case "network.host", "security.insecure", "device":
			out = append(out, s)
		default:
			return nil, false, fmt.Errorf("invalid entitlement %q", s)
		}
	}
	return out, mayDelete, nil
}

// IsURL reports whether a build context is fetched by the daemon.
func IsURL(s string) bool {
	for _, p := range []string{"http://", "https://", "git://", "ssh://", "github.com/", "git@"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return scpLike.MatchString(s)
}

// scpLike is user@host:path, git's short form of an ssh URL.
var scpLike = regexp.MustCompile(`^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:.+$`)

// IsGitSSH reports whether a context is a git repository reached by ssh.
func IsGitSSH(s string) bool { return strings.HasPrefix(s, "ssh://") || scpLike.MatchString(s) }
