package server

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Files copies files of containers.
type Files interface {
	ArchiveStat(ctx context.Context, ref, path string) (wire.PathStat, error)
	ArchiveGet(ctx context.Context, ref, path string, begin func(wire.PathStat) io.Writer) error
	ArchivePut(ctx context.Context, ref, path string, r io.Reader, o container.ExtractOptions) error
}

// Changes tells what containers have made of their images.
type Changes interface {
	Export(ctx context.Context, ref string, begin func() io.Writer) error
	Changes(ctx context.Context, ref string) ([]wire.FilesystemChange, error)
	Commit(ctx context.Context, ref string, o container.CommitOptions) (string, error)
}

// files answers for the files of containers.
type files struct {
	files   Files
	changes Changes
}

func (s *files) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/{name}/changes", serve: s.diff},
		{method: "GET", pattern: "/containers/{name}/export", serve: s.export},
		{method: "HEAD", pattern: "/containers/{name}/archive", serve: s.head},
		{method: "GET", pattern: "/containers/{name}/archive", serve: s.get},
		{method: "PUT", pattern: "/containers/{name}/archive", serve: s.put},
		{method: "POST", pattern: "/commit", serve: s.commit},
	}
}

// archivePath reads the path of a copy.
func (r *request) archivePath() (string, error) {
	p := r.query.Get("path")
	if p == "" {
		return "", errs.New(errs.Invalid, "bad parameter: path cannot be empty")
	}
	return p, nil
}

func (s *files) head(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	st, err := s.files.ArchiveStat(r.Context(), r.name, p)
	if err != nil {
		return err
	}
	tellStat(w, st)
	return empty(w, http.StatusOK)
}

// tellStat describes a path in a header.
func tellStat(w http.ResponseWriter, st wire.PathStat) {
	data, _ := json.Marshal(st) // plain values
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(data))
}

// get sends a tar, packed if the client says that it takes that.
// Once it has begun, an error can only cut the connection off, so that the client
// does not take a part for the whole.
func (s *files) get(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	var zw io.WriteCloser
	err = s.files.ArchiveGet(r.Context(), r.name, p, func(st wire.PathStat) io.Writer {
		w.Header().Set("Content-Type", "application/x-tar")
		tellStat(w, st)
		accept := r.Header.Get("Accept-Encoding")
		switch { // the levels exist: no errors
		case takes(accept, "gzip"):
			w.Header().Set("Content-Encoding", "gzip")
			zw, _ = gzip.NewWriterLevel(w, gzip.BestSpeed)
		case takes(accept, "deflate"):
			w.Header().Set("Content-Encoding", "deflate")
			zw, _ = flate.NewWriter(w, flate.BestSpeed)
		default:
			return w
		}
		return zw
	})
	if err == nil && zw != nil {
		err = zw.Close()
	}
	return cut(w, err)
}

// takes reads an Accept-Encoding header (RFC 9110, 12.5.3).
func takes(accept, encoding string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), encoding) && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// cut ends an answer that has begun and can't be finished.
func cut(w http.ResponseWriter, err error) error {
	if res, ok := w.(*response); ok && err != nil && res.began {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (s *files) put(w http.ResponseWriter, r *request) error {
	p, err := r.archivePath()
	if err != nil {
		return err
	}
	// An answer before all is read must reach a client that still writes.
	fullDuplex(w)
	err = s.files.ArchivePut(r.Context(), r.name, p, r.Body, container.ExtractOptions{
		KeepKinds: r.flag("noOverwriteDirNonDir"), AsUser: r.flag("copyUIDGID"),
	})
	if err != nil {
		return err
	}
	// What follows the end of the tar is padding.
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
	return empty(w, http.StatusOK)
}

func (s *files) export(w http.ResponseWriter, r *request) error {
	err := s.changes.Export(r.Context(), r.name, func() io.Writer {
		w.Header().Set("Content-Type", "application/octet-stream")
		return w
	})
	return cut(w, err)
}

func (s *files) diff(w http.ResponseWriter, r *request) error {
	list, err := s.changes.Changes(r.Context(), r.name)
	if err != nil {
		return err
	}
	out := make([]change, len(list))
	for i, c := range list {
		out[i] = change{c.Path, c.Kind}
	}
	if len(out) == 0 {
		out = nil
	}
	return ok(w, out)
}

// change is a wire.FilesystemChange with its fields in the order of the answer.
type change struct {
	Path string
	Kind wire.FilesystemChangeKind
}

func (s *files) commit(w http.ResponseWriter, r *request) error {
	q := r.query
	ref := q.Get("container")
	var config *wire.ContainerConfig
	if err := r.decodeCommit(w, &config); err != nil {
		return err
	}
	if ref == "" {
		return errs.New(errs.Invalid, "invalid name or ID supplied: %q", ref)
	}
	id, err := s.changes.Commit(r.Context(), ref, container.CommitOptions{
		Repo: q.Get("repo"), Tag: q.Get("tag"), Comment: q.Get("comment"), Author: q.Get("author"),
		Changes: q["changes"], Config: config, Pause: r.flagOr("pause", 1),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.CommitResponse{ID: id})
}

// decodeCommit reads the configuration that a commit may carry.
func (r *request) decodeCommit(w http.ResponseWriter, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	err := r.decode(w, v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
