package solve

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"

	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/term"
)

// Plan returns the outputs that the request means, in the daemon's words:
// --push and --load are outputs, and none at all is an image. Of the daemon's
// own image store "moby" is the name. A call has none.
func Plan(r Request) ([]grammar.Entry, error) {
	if r.Call.Name != "" {
		return nil, nil
	}
	var out []grammar.Entry
	for _, e := range r.Outputs {
		e.Attrs = maps.Clone(e.Attrs)
		if e.Type == "registry" {
			e.Type, e.Attrs["push"] = "image", "true"
			if e.Attrs["unpack"] == "" {
				e.Attrs["unpack"] = "false"
			}
		}
		out = append(out, e)
	}
	out = shorthands(out, r)
	if len(out) == 0 {
		out = append(out, grammar.Entry{Type: "image", Attrs: map[string]string{}})
	}
	tags, err := tagNames(r.Tags)
	if err != nil {
		return nil, err
	}
	notes, err := grammar.Annotations(r.Annotations)
	if err != nil {
		return nil, err
	}
	keep := out[:0]
	for _, e := range out {
		maps.Copy(e.Attrs, notes)
		if e, err = finish(e, tags); err != nil {
			return nil, err
		}
		if e.Type != "cacheonly" {
			keep = append(keep, e)
		}
	}
	return keep, nil
}

// shorthands adds --push and --load.
func shorthands(out []grammar.Entry, r Request) []grammar.Entry {
	has := func(ok func(grammar.Entry) bool) bool {
		for _, e := range out {
			if ok(e) {
				return true
			}
		}
		return false
	}
	if r.Push {
		for _, e := range out {
			if e.Type == "image" {
				e.Attrs["push"] = "true"
			}
		}
		if !has(func(e grammar.Entry) bool { return e.Type == "image" }) {
			out = append(out, grammar.Entry{Type: "image", Attrs: map[string]string{"push": "true", "unpack": "false"}})
		}
	}
	if r.Load && !has(func(e grammar.Entry) bool { return e.Type == "docker" && e.Attrs["dest"] == "" }) {
		out = append(out, grammar.Entry{Type: "docker", Attrs: map[string]string{}})
	}
	return out
}

func tagNames(tags []string) (string, error) {
	var out []string
	for _, t := range tags {
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return "", fmt.Errorf("invalid tag %q: %w", t, err)
		}
		if _, ok := ref.(reference.Digested); ok {
			return "", fmt.Errorf("invalid tag %q: refusing to create a tag with a digest reference", t)
		}
		out = append(out, reference.TagNameOnly(ref).String())
	}
	return strings.Join(out, ","), nil
}

// finish names an image and chooses the daemon's exporter.
func finish(e grammar.Entry, tags string) (grammar.Entry, error) {
	switch e.Type {
	case "image", "oci", "docker":
		if tags != "" {
			e.Attrs["name"] = tags
		}
	}
	if e.Type == "image" && isTrue(e.Attrs["push"]) {
		if e.Attrs["name"] == "" {
			return e, errors.New("tag is needed when pushing to registry")
		}
	}
	// An image loaded into the daemon that builds it needs no transfer.
	if e.Type == "image" || e.Type == "docker" && e.Attrs["dest"] == "" {
		e.Type = "moby"
		delete(e.Attrs, "context")
		e.Attrs["prefer-image-digest"] = "true"
	}
	return e, nil
}

// outputs makes the exporters.
func (b *builder) outputs(mayDelete bool) error {
	list, err := Plan(b.req)
	if err != nil {
		return err
	}
	stdout := false
	for _, e := range list {
		dest := e.Attrs["dest"]
		delete(e.Attrs, "dest")
		x := client.ExportEntry{Type: e.Type, Attrs: e.Attrs}
		file, dir := destKind(e)
		if file && dest == "" {
			dest = "-"
		}
		switch {
		case dir:
			if err := checkDir(e.Type, dest); err != nil {
				return err
			}
			if err := checkDelete(e, dest, mayDelete); err != nil {
				return err
			}
			x.OutputDir = dest
		case file && dest == "-":
			if stdout {
				return errors.New("multiple outputs configured to write to stdout")
			}
			stdout = true
			if b.env.Out == nil || term.IsTerminal(b.env.Out) {
				return fmt.Errorf("dest file is required for %s exporter. refusing to write to console", e.Type)
			}
			x.Output = func(map[string]string) (io.WriteCloser, error) { return keepOpen{b.env.Out}, nil }
		case file:
			if fi, err := os.Stat(dest); err == nil && fi.IsDir() {
				return fmt.Errorf("destination file %s is a directory", dest)
			} else if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("invalid destination file: %s: %w", dest, err)
			}
			f := &outFile{path: dest}
			b.outs = append(b.outs, f)
			x.Output = func(map[string]string) (io.WriteCloser, error) { return f, nil }
		}
		b.so.Exports = append(b.so.Exports, x)
	}
	return nil
}

// destKind says whether an output is written to a file or to a directory here.
func destKind(e grammar.Entry) (file, dir bool) {
	switch e.Type {
	case "local":
		return false, true
	case "tar":
		return true, false
	case "oci", "docker":
		tar, err := strconv.ParseBool(e.Attrs["tar"])
		tar = tar || err != nil
		return tar, !tar
	}
	return false, false
}

func checkDir(kind, dest string) error {
	switch dest {
	case "":
		return fmt.Errorf("dest is required for %s exporter", kind)
	case "-":
		return fmt.Errorf("dest cannot be stdout for %s exporter", kind)
	}
	fi, err := os.Stat(dest)
	if err == nil && !fi.IsDir() {
		return fmt.Errorf("destination directory %s is a file", dest)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid destination directory: %s: %w", dest, err)
	}
	return nil
}

// checkDelete refuses an output that would remove files of a directory that is
// not below the current one, unless that was allowed.
func checkDelete(e grammar.Entry, dest string, mayDelete bool) error {
	switch mode := e.Attrs["mode"]; mode {
	case "", "copy":
		return nil
	case "delete":
	default:
		return fmt.Errorf("invalid local exporter mode %q", mode)
	}
	if mayDelete {
		return nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	p, err := filepath.Abs(dest)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		p = real
	}
	rel, err := filepath.Rel(wd, p)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
		return fmt.Errorf("local exporter with mode=delete may remove files in %s: allow it with --allow %s", dest, grammar.DeleteEntitlement)
	}
	return nil
}

// keepOpen is standard output: the exporter's Close is not its end.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// outFile is an output that appears under its name only when it is whole.
type outFile struct {
	path   string
	mu     sync.Mutex
	tmp    *os.File
	closed bool
	err    error
}

func (o *outFile) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tmp == nil {
		if err := o.open(); err != nil {
			o.err = err
			return 0, err
		}
	}
	return o.tmp.Write(p)
}

// open makes the file to write. What is no regular file (a pipe, a device) is
// written in place.
func (o *outFile) open() (err error) {
	if fi, err := os.Stat(o.path); err == nil && !fi.Mode().IsRegular() {
		o.tmp, err = os.OpenFile(o.path, os.O_WRONLY, 0)
		return err
	}
	o.tmp, err = os.OpenFile(o.path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	return err
}

// Close ends the transfer, of a build that failed too.
func (o *outFile) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tmp == nil || o.closed {
		return o.err
	}
	o.closed = true
	o.err = errors.Join(o.err, o.tmp.Close())
	return o.err
}

// end puts the file of a good build in its place, and drops that of another one.
func (o *outFile) end(good bool) error {
	err := o.Close()
	if o.tmp == nil || o.tmp.Name() == o.path {
		return err
	}
	if !good || err != nil {
		return errors.Join(err, os.Remove(o.tmp.Name()))
	}
	return os.Rename(o.tmp.Name(), o.path)
}

// endOutputs ends the files of a build.
func (b *builder) endOutputs(good bool) error {
	var all []error
	for _, o := range b.outs {
		all = append(all, o.end(good))
	}
	return errors.Join(all...)
}
