// Package jsonfile is the form of Docker's json-file driver: one JSON object a
// line,
//
//	{"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2006-01-02T15:04:05.999999999Z"}
//
// attrs only where there are some. What collects logs from files reads it. The
// files are those of logs/files; the shim writes them, the daemon reads them.
// The package writes nothing itself and must not know containers or the API.
package jsonfile

import (
	"bytes"
	"sort"

	"gantry/internal/logs/files"
)

// Create opens the log at path for appending, or makes it.
func Create(path string, o files.Options) (*files.Writer, error) {
	return files.Create(path, form(renderAttrs(o.Attrs)), o)
}

// NewReader returns a reader of the log at path. It opens nothing yet.
func NewReader(path string) *files.Reader { return files.NewReader(path, form("")) }

// form is the form with attributes as renderAttrs gives them.
func form(attrs string) files.Form {
	var s stamp // a Writer encodes one record at a time
	return files.Form{
		Frame: func(b []byte, seen int) int {
			if n := bytes.IndexByte(b[seen:], '\n'); n >= 0 {
				return seen + n + 1
			}
			return 0
		},
		Last: func(b []byte) int {
			end := len(b) - 1
			if b[end] != '\n' {
				return -1
			}
			if i := bytes.LastIndexByte(b[:end], '\n'); i >= 0 {
				return end - i
			}
			return 0
		},
		Heal: []byte{'\n'},
		Encode: func(b []byte, r files.Record) []byte {
			return appendStamped(b, r.Stream.Name(), attrs, r.Line, r.Time, &s)
		},
		Decode: decodeRecord,
	}
}

func renderAttrs(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b := []byte(`"attrs":{`)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, []byte(k))
		b = append(b, ':')
		b = appendString(b, []byte(m[k]))
	}
	return string(append(b, "},"...))
}
