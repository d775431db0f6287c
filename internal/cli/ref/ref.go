// Package ref parses image references as a user types them. It is pure: package
// cli uses it to split names into repository and tag, to fill in what Docker
// leaves out, and to give Docker's error texts. It knows no registry and no
// image. The grammar is that of the distribution reference format.
//
// It exists because the usual library compiles a dozen regular expressions in
// every process that links it (docs/adr/0003).
package ref

import (
	"strings"

	"gantry/internal/errs"
)

// Name is a parsed reference.
type Name struct {
	Domain string // docker.io if none was given
	Path   string // library/ is added for the default domain
	Tag    string
	Digest string
}

const (
	defaultDomain = "docker.io"
	officialRepo  = "library/"
	maxName       = 255
)

// Parse reads s as a user would type it: busybox, a/b:tag, host:5000/x@sha256:….
func Parse(s string) (Name, error) {
	if isID(s) {
		return Name{}, errs.New(errs.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	name, tail := splitTail(rest)
	if strings.ToLower(name) != name {
		return Name{}, errs.New(errs.Invalid, "invalid reference format: repository name (%s) must be lowercase", name)
	}
	n := Name{Domain: domain, Path: name}
	if i := strings.IndexByte(tail, '@'); i >= 0 {
		n.Digest, tail = tail[i+1:], tail[:i]
		if !validDigest(n.Digest) {
			return Name{}, errs.New(errs.Invalid, "invalid reference format")
		}
	}
	if tail != "" {
		n.Tag = tail[1:]
		if !validTag(n.Tag) {
			return Name{}, errs.New(errs.Invalid, "invalid reference format")
		}
	}
	if !validPath(n.Path) || !validDomain(n.Domain) {
		return Name{}, errs.New(errs.Invalid, "invalid reference format")
	}
	if len(n.Domain)+1+len(n.Path) > maxName {
		return Name{}, errs.New(errs.Invalid, "repository name must not be more than %d characters", maxName)
	}
	return n, nil
}

// splitDomain takes off a registry's name, if the first part looks like one, and
// fills in the default.
func splitDomain(s string) (domain, rest string) {
	first, after, ok := strings.Cut(s, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, rest = defaultDomain, s
	} else {
		domain, rest = first, after
	}
	if domain == "index.docker.io" {
		domain = defaultDomain
	}
	if domain == defaultDomain && !strings.Contains(rest, "/") {
		rest = officialRepo + rest
	}
	return domain, rest
}

// splitTail cuts "path:tag@digest" behind path.
func splitTail(s string) (name, tail string) {
	if i := strings.IndexAny(s, ":@"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// Repository returns the full name without tag and digest: docker.io/library/busybox.
func (n Name) Repository() string { return n.Domain + "/" + n.Path }

// Familiar returns the short name without tag and digest: busybox.
func (n Name) Familiar() string {
	if n.Domain != defaultDomain {
		return n.Repository()
	}
	if p, ok := strings.CutPrefix(n.Path, officialRepo); ok && !strings.Contains(p, "/") {
		return p
	}
	return n.Path
}

// Tagged returns n with the tag latest if it has neither tag nor digest.
func (n Name) Tagged() Name {
	if n.Tag == "" && n.Digest == "" {
		n.Tag = "latest"
	}
	return n
}

// String returns the short form with tag and digest.
func (n Name) String() string { return n.Familiar() + n.tail() }

func (n Name) tail() string {
	s := ""
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest
	}
	return s
}

func isID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

func validDigest(s string) bool {
	algo, hex, ok := strings.Cut(s, ":")
	if !ok || algo == "" {
		return false
	}
	switch algo {
	case "sha256":
		return len(hex) == 64 && isHex(hex)
	case "sha384":
		return len(hex) == 96 && isHex(hex)
	case "sha512":
		return len(hex) == 128 && isHex(hex)
	}
	return false
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isWord(c byte) bool { return isAlnum(c) || c >= 'A' && c <= 'Z' || c == '_' }

func validTag(s string) bool {
	if s == "" || len(s) > 128 || !isWord(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isWord(s[i]) && s[i] != '.' && s[i] != '-' {
			return false
		}
	}
	return true
}

// validPath: components of lower-case letters and digits, with separators
// between them: one dot, one or two underscores, or any number of dashes.
func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !isAlnum(part[0]) || !isAlnum(part[len(part)-1]) {
			return false
		}
		for i := 0; i < len(part); {
			if isAlnum(part[i]) {
				i++
				continue
			}
			j := i
			for j < len(part) && !isAlnum(part[j]) {
				j++
			}
			sep := part[i:j]
			if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
				return false
			}
			i = j
		}
	}
	return true
}

func validDomain(s string) bool {
	host, port, hasPort := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || strings.Trim(s[1:end], "0123456789abcdefABCDEF:") != "" {
			return false
		}
		port, hasPort = strings.CutPrefix(s[end+1:], ":")
		return end+1 == len(s) || hasPort && isPort(port)
	}
	host, port, hasPort = strings.Cut(s, ":")
	if hasPort && !isPort(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; c == '_' || !isWord(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func isPort(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
