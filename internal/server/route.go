package server

import (
	"path"
	"strings"
)

// A route is a method, a pattern and what answers it. A pattern is a path with
// at most two wildcards in braces, each of which matches anything, slashes
// included (names of images have them): /images/{name}/json.
type route struct {
	method  string
	pattern string
	serve   handler
	// since is the first API version that has the route, 0 for all.
	since version
	// oldest is the first version that is served, if that is below minVersion.
	oldest version
	// label is how the pattern is named in errors, if not as it is.
	label string
}

// A table finds routes by method and the first segment of their path.
type table map[string][]compiled

type compiled struct {
	route
	// The literal texts around the wildcards.
	head, mid, tail string
	wild            int
}

func newTable(routes []route) table {
	t := table{}
	for _, r := range routes {
		c := compiled{route: r}
		rest := r.pattern
		c.head, rest, _ = cutWild(rest)
		if rest != "" || strings.HasSuffix(r.pattern, "}") {
			c.wild = 1
			c.tail = rest
			if mid, tail, ok := cutWild(rest); ok {
				c.wild, c.mid, c.tail = 2, mid, tail
			}
		}
		key := tableKey(r.method, r.pattern)
		t[key] = append(t[key], c)
	}
	return t
}

// cutWild splits s at its first {…}.
func cutWild(s string) (before, after string, found bool) {
	i := strings.IndexByte(s, '{')
	if i < 0 {
		return s, "", false
	}
	j := strings.IndexByte(s, '}')
	return s[:i], s[j+1:], true
}

func tableKey(method, p string) string {
	first := strings.TrimPrefix(p, "/")
	if i := strings.IndexByte(first, '/'); i >= 0 {
		first = first[:i]
	}
	return method + " " + first
}

// find returns the first route that matches, and what its wildcards stand for.
func (t table) find(method, p string) (r *compiled, name, sub string) {
	list := t[tableKey(method, p)]
	for i := range list {
		if name, sub, ok := list[i].match(p); ok {
			return &list[i], name, sub
		}
	}
	return nil, "", ""
}

func (c *compiled) match(p string) (name, sub string, ok bool) {
	if c.wild == 0 {
		return "", "", p == c.head
	}
	if len(p) < len(c.head)+len(c.tail) || !strings.HasPrefix(p, c.head) || !strings.HasSuffix(p, c.tail) {
		return "", "", false
	}
	name = p[len(c.head) : len(p)-len(c.tail)]
	if c.wild == 2 {
		// As a regular expression would: the first wildcard takes the most.
		i := strings.LastIndex(name, c.mid)
		if i < 0 {
			return "", "", false
		}
		name, sub = name[:i], name[i+len(c.mid):]
	}
	return name, sub, name != ""
}

// splitVersion cuts a leading /v<digits and dots> off a path.
func splitVersion(p string) (text, rest string) {
	after, ok := strings.CutPrefix(p, "/v")
	if !ok {
		return "", p
	}
	i := strings.IndexByte(after, '/')
	if i <= 0 || strings.Trim(after[:i], "0123456789.") != "" {
		return "", p
	}
	return after[:i], after[i:]
}

// cleanPath returns p without empty and dot segments; a trailing slash stays.
func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	if p[0] != '/' {
		p = "/" + p
	}
	c := path.Clean(p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}
