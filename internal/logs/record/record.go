// Package record opens a container's log in the form that it is kept in, by the
// form's name: the shim to write it, the engine to read it. It knows the forms
// and nothing else.
package record

import (
	"gantry/internal/errs"
	"gantry/internal/logs"
	"gantry/internal/logs/files"
	"gantry/internal/logs/jsonfile"
	"gantry/internal/logs/local"
)

// Create opens the log at path for appending, or makes it.
func Create(form, path string, o files.Options) (*files.Writer, error) {
	switch form {
	case "json-file":
		return jsonfile.Create(path, o)
	case "local":
		return local.Create(path, o)
	}
	return nil, errs.New(errs.Unsupported, "log driver %q", form)
}

// Reader returns a reader of the log at path, nil if its form can't be read. It
// opens nothing yet.
func Reader(form, path string) logs.Reader {
	switch form {
	case "json-file":
		return jsonfile.NewReader(path)
	case "local":
		return local.NewReader(path)
	}
	return nil
}
