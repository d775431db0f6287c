// Package formatter turns values into what the user sees: tables, JSON lines and
// Go templates (--format), with Docker's column names, template functions and
// field names. Package cli calls it. It writes to the writer it is given and
// nothing else, and must not know the API or flags.
//
// The default tables need no template: text/template is entered only when the
// user gives one.
package formatter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"time"

	"gantry/internal/errs"
)

// Column is one column of a default table of rows of type T.
type Column[T any] struct {
	Header string
	Get    func(T) string
}

// Table describes how rows of type T are shown. T is a pointer to a context
// type: its methods without arguments are the fields of templates and JSON.
type Table[T any] struct {
	Columns []Column[T]
	Headers map[string]string // field name → header, for "table TEMPLATE"
}

// RowOptions are how the rows of a list are made.
type RowOptions struct {
	Trunc bool      // shorten IDs and long texts
	Now   time.Time // what "ago" is counted from
}

// TableOptions add columns to the default tables.
type TableOptions struct {
	Size    bool // of containers
	Digests bool // of images
}

// Kinds of format that are words.
const (
	tableKey = "table"
	jsonKey  = "json"
)

// IsTable reports whether format prints a table with headers.
func IsTable(format string) bool {
	return format == "" || format == tableKey || strings.HasPrefix(format, tableKey+" ")
}

// Render writes rows to w in the given format: "" or "table" (the default
// table), "table TEMPLATE", "json", or a template per row.
func (t Table[T]) Render(w io.Writer, format string, rows []T) error {
	switch {
	case format == "" || format == tableKey:
		return t.plain(w, rows)
	case format == jsonKey:
		return t.json(w, rows)
	}
	text, asTable := strings.CutPrefix(format, tableKey+" ")
	tmpl, err := Parse(text)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	for _, r := range rows {
		if err := tmpl.Execute(&body, r); err != nil {
			return errs.New(errs.Invalid, "failed to execute template: %w", err)
		}
		body.WriteByte('\n')
	}
	if !asTable {
		_, err := w.Write(body.Bytes())
		return err
	}
	var head bytes.Buffer
	if err := headerFuncs(tmpl).Execute(&head, t.Headers); err != nil {
		return errs.New(errs.Invalid, "failed to execute template: %w", err)
	}
	return Lists().Write(w, head.String()+"\n"+body.String())
}

// Lists is how the columns of every list of objects are laid out.
func Lists() Columns { return Columns{Min: 10, Padding: 3} }

func (t Table[T]) plain(w io.Writer, rows []T) error {
	var b strings.Builder
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteByte('\t')
		}
		b.WriteString(c.Header)
	}
	b.WriteByte('\n')
	for _, r := range rows {
		for i, c := range t.Columns {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(c.Get(r))
		}
		b.WriteByte('\n')
	}
	return Lists().Write(w, b.String())
}

func (t Table[T]) json(w io.Writer, rows []T) error {
	var b bytes.Buffer
	for _, r := range rows {
		line, err := json.Marshal(Fields(r))
		if err != nil {
			return err
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Fields returns what the methods of row without arguments return, by name: the
// object that "json" prints.
func Fields(row any) map[string]any {
	v := reflect.ValueOf(row)
	t := v.Type()
	out := make(map[string]any, t.NumMethod())
	for i := range t.NumMethod() {
		m := v.Method(i)
		if m.Type().NumIn() == 0 && m.Type().NumOut() == 1 {
			out[t.Method(i).Name] = m.Call(nil)[0].Interface()
		}
	}
	return out
}

func unescape(text string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
}

// Parse reads a template as the command line gives it: \t and \n are escapes.
func Parse(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions()).Parse(unescape(text))
	if err != nil {
		return nil, errs.New(errs.Invalid, "template parsing error: %w", err)
	}
	return t, nil
}

func functions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) string {
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if f, ok := asFields(v); ok {
				v = f
				enc.SetEscapeHTML(true)
			}
			if err := enc.Encode(v); err != nil {
				return err.Error()
			}
			return strings.TrimSuffix(b.String(), "\n")
		},
		"split": strings.Split,
		"join":  strings.Join,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string {
			if len(s) < n {
				return s
			}
			return s[:n]
		},
	}
}

// asFields says whether v is one of this package's rows.
func asFields(v any) (map[string]any, bool) {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().PkgPath() != reflect.TypeOf(ContainerContext{}).PkgPath() {
		return nil, false
	}
	return Fields(v), true
}

// headerFuncs makes the functions leave a header as it is.
func headerFuncs(t *template.Template) *template.Template {
	same := func(s string) string { return s }
	return t.Funcs(template.FuncMap{
		"json":     func(v any) string { return fmt.Sprint(v) },
		"split":    func(v any, _ string) any { return v },
		"join":     func(v any, _ string) any { return v },
		"title":    same,
		"lower":    same,
		"upper":    same,
		"truncate": func(s string, _ int) string { return s },
	})
}

// Value prints one value (version, info) with a template or as JSON.
func Value(w io.Writer, format string, v any) error {
	if format == jsonKey {
		format = "{{json .}}"
	}
	t, err := Parse(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return errs.New(errs.Invalid, "template: :1:2: %w", err)
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// Ellipsis cuts s to n characters, the last of them … if something was cut.
func Ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string(r[:n-1]) + "…"
}

// ShortID cuts an id to 12 digits, without its algorithm.
func ShortID(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}
