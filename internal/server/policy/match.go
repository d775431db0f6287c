package policy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// match compares with a pattern in which * stands for any text, slashes
// included.
func match(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	rest, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, s) })
}

// cleanPath returns an absolute path without dots; empty if it is not absolute.
func cleanPath(p string) string {
	if !path.IsAbs(p) || strings.IndexByte(p, 0) >= 0 {
		return ""
	}
	return path.Clean(p)
}

// beneath says whether a clean path is dir or below it.
func beneath(dir, p string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}

// capability returns a capability's name as policies have it.
func capability(s string) string {
	return strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(s)), "CAP_")
}

type portRange struct{ low, high uint64 }

// parsePorts reads "8000" or "8000-8999".
func parsePorts(s string) (r portRange, err error) {
	low, high, two := strings.Cut(s, "-")
	if r.low, err = strconv.ParseUint(low, 10, 16); err == nil {
		r.high = r.low
		if two {
			r.high, err = strconv.ParseUint(high, 10, 16)
		}
	}
	if err != nil || r.low == 0 || r.high < r.low {
		return r, fmt.Errorf("create.publish: %q is no port or range of ports", s)
	}
	return r, nil
}
