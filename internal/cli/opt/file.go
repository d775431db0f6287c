package opt

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"gantry/internal/errs"
)

// maxLine bounds a line of an env file.
const maxLine = 1 << 20

// ReadFiles returns the lines of files, each checked by check, followed by values.
// Empty lines and lines that begin with # are skipped; leading white space is
// dropped; everything behind the name is kept as it is.
func ReadFiles(files, values []string, check func(string) (string, error)) ([]string, error) {
	out := []string{}
	for _, name := range files {
		lines, err := readFile(name, check)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	return append(out, values...), nil
}

func readFile(name string, check func(string) (string, error)) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for n := 1; s.Scan(); n++ {
		b := s.Bytes()
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		}
		if !utf8.Valid(b) {
			return nil, errs.New(errs.Invalid, "invalid env file (%s): invalid utf8 bytes at line %d: %v", name, n, b)
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key == "" {
			return nil, errs.New(errs.Invalid, "invalid env file (%s): no variable name on line '%s'", name, line)
		}
		if strings.ContainsFunc(key, unicode.IsSpace) {
			return nil, errs.New(errs.Invalid, "invalid env file (%s): variable '%s' contains whitespaces", name, key)
		}
		if check != nil {
			if line, err = check(line); err != nil {
				return nil, err
			}
			if line == "" {
				continue
			}
		}
		out = append(out, line)
	}
	return out, s.Err()
}

// EnvLine is the check for lines of an env file: a bare name takes its value from
// lookup, and is left out (an empty string) if lookup does not know it.
func EnvLine(lookup func(string) (string, bool)) func(string) (string, error) {
	return func(v string) (string, error) {
		if strings.Contains(v, "=") {
			return v, nil
		}
		if val, ok := lookup(v); ok {
			return v + "=" + val, nil
		}
		return "", nil
	}
}

// ToMap splits key=value lines; the last one of a key wins.
func ToMap(lines []string) map[string]string {
	m := make(map[string]string, len(lines))
	for _, l := range lines {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return m
}
