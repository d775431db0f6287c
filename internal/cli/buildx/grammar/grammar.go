// Package grammar reads the values of build flags: outputs, caches, secrets, ssh
// agents, attestations, named contexts, platforms, hosts and calls, with the
// forms and error texts that users know from docker buildx. Packages buildx and
// bake call it. It is pure: it opens no file, reads no environment but what it is
// handed, and must not know BuildKit.
package grammar

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Entry is a value of the form type=T,key=value,…: an output, a cache or an
// attestation.
type Entry struct {
	Type  string
	Attrs map[string]string // without type
}

// String writes e as the flag that means it, keys in order.
func (e Entry) String() string {
	out := []string{}
	if e.Type != "" {
		out = append(out, field("type", e.Type))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
		out = append(out, field(k, e.Attrs[k]))
	}
	return strings.Join(out, ",")
}

// field quotes a pair as a CSV field where it must be.
func field(k, v string) string {
	s := k + "=" + v
	if strings.ContainsAny(s, ",\"\n") {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// fields splits one CSV line.
func fields(s string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(s))
	out, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("invalid value %q: %w", s, err)
	}
	return out, nil
}

// pairs reads the fields of one value; lower says that keys are not case-sensitive.
func pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range list {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid value %s", f)
		}
		out[strings.ToLower(strings.TrimSpace(k))] = v
	}
	return out, nil
}

// take removes key from attrs and returns it.
func take(attrs map[string]string, key string) string {
	v := attrs[key]
	delete(attrs, key)
	return v
}

// Output reads --output: a directory, "-", or type=T,dest=D,….
func Output(s string) (Entry, error) {
	list, err := fields(s)
	if err != nil {
		return Entry{}, err
	}
	if len(list) == 1 && list[0] == s && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return Entry{Type: "tar", Attrs: map[string]string{"dest": "-"}}, nil
		}
		return Entry{Type: "local", Attrs: map[string]string{"dest": s}}, nil
	}
	attrs, err := pairs(list)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Type: take(attrs, "type"), Attrs: attrs}
	if e.Type == "" {
		return Entry{}, errors.New("type is required for output")
	}
	return e, nil
}

// Cache reads --cache-from and --cache-to: a reference, or type=T,….
func Cache(s string) (Entry, error) {
	list, err := fields(s)
	if err != nil {
		return Entry{}, err
	}
	if len(list) == 1 && !strings.Contains(list[0], "=") {
		return Entry{Type: "registry", Attrs: map[string]string{"ref": list[0]}}, nil
	}
	attrs, err := pairs(list)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Type: take(attrs, "type"), Attrs: attrs}
	if e.Type == "" {
		return Entry{}, fmt.Errorf("type required for %q", s)
	}
	return e, nil
}

// Secret is a --secret: a file or a variable of the caller's environment. With
// neither, the variable named ID if there is one, else the file ID.
type Secret struct{ ID, Path, Env string }

// ParseSecret reads --secret.
func ParseSecret(s string) (Secret, error) {
	list, err := fields(s)
	if err != nil {
		return Secret{}, fmt.Errorf("failed to parse csv secret: %w", err)
	}
	var out Secret
	kind := ""
	for _, f := range list {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return Secret{}, fmt.Errorf("invalid field '%s' must be a key=value pair", f)
		}
		switch strings.ToLower(k) {
		case "type":
			if v != "file" && v != "env" {
				return Secret{}, fmt.Errorf("unsupported secret type %q", v)
			}
			kind = v
		case "id":
			out.ID = v
		case "src", "source":
			out.Path = v
		case "env":
			out.Env = v
		default:
			return Secret{}, fmt.Errorf("unexpected key '%s' in '%s'", strings.ToLower(k), f)
		}
	}
	if kind == "env" && out.Env == "" {
		out.Env, out.Path = out.Path, ""
	}
	return out, nil
}

// String writes s as the flag that means it.
func (s Secret) String() string {
	out := []string{field("id", s.ID)}
	if s.Path != "" {
		out = append(out, field("src", s.Path))
	}
	if s.Env != "" {
		out = append(out, field("env", s.Env))
	}
	return strings.Join(out, ",")
}

// SSH is a --ssh: an agent's socket, or keys. No path means $SSH_AUTH_SOCK.
type SSH struct {
	ID    string
	Paths []string
}

// ParseSSH reads --ssh.
func ParseSSH(s string) SSH {
	id, paths, ok := strings.Cut(s, "=")
	if !ok {
		return SSH{ID: id}
	}
	return SSH{ID: id, Paths: strings.Split(paths, ",")}
}
