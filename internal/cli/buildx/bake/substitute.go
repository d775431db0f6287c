package bake

import (
	"fmt"
	"strings"
)

// substitute replaces $NAME, ${NAME} and ${NAME:-word}, :+, :?, and the same
// without the colon, in a string of a compose file; $$ is a dollar.
func substitute(s string, lookup func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			out.WriteString(s)
			return out.String(), nil
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		switch {
		case strings.HasPrefix(s, "$"):
			out.WriteByte('$')
			s = s[1:]
		case strings.HasPrefix(s, "{"):
			body, rest, ok := braces(s[1:])
			if !ok {
				return "", fmt.Errorf("invalid interpolation format for %q", "$"+s)
			}
			v, err := expand(body, lookup)
			if err != nil {
				return "", err
			}
			out.WriteString(v)
			s = rest
		default:
			n := nameLength(s)
			if n == 0 {
				return "", fmt.Errorf("invalid interpolation format for %q", "$"+s)
			}
			v, _ := lookup(s[:n])
			out.WriteString(v)
			s = s[n:]
		}
	}
}

// braces parts s at the brace that closes it.
func braces(s string) (body, rest string, ok bool) {
	depth := 1
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}

func nameLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return n
}

// expand is the value of what is between braces.
func expand(body string, lookup func(string) (string, bool)) (string, error) {
	n := nameLength(body)
	name, op := body[:n], body[n:]
	if n == 0 {
		return "", fmt.Errorf("invalid interpolation format for %q", "${"+body+"}")
	}
	v, set := lookup(name)
	op, colon := strings.CutPrefix(op, ":")
	missing := !set || colon && v == ""
	word := ""
	if op != "" {
		word = op[1:]
	}
	switch {
	case op == "" && !colon:
		return v, nil
	case strings.HasPrefix(op, "-") && missing, strings.HasPrefix(op, "+") && !missing:
		return substitute(word, lookup)
	case strings.HasPrefix(op, "-"):
		return v, nil
	case strings.HasPrefix(op, "+"):
		return "", nil
	case strings.HasPrefix(op, "?") && missing:
		return "", fmt.Errorf("required variable %s is missing a value: %s", name, word)
	case strings.HasPrefix(op, "?"):
		return v, nil
	}
	return "", fmt.Errorf("invalid interpolation format for %q", "${"+body+"}")
}
