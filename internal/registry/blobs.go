package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/storage"
)

// getBlob sends a blob, or a range of it.
func (s *blobs) getBlob(r *request) error {
	if err := s.need(r, r.name, auth.Pull); err != nil {
		return err
	}
	d, err := repo.ParseDigest(r.ref)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", `"`+d.String()+`"`)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	if s.copied(r.name) && r.Method == http.MethodHead {
		size, err := s.Cache.Stat(r.Context(), r.name, d)
		if err != nil {
			return unset(h, err)
		}
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		r.w.WriteHeader(http.StatusOK)
		return nil
	}
	o, err := s.openBlob(r, d)
	if err != nil {
		return unset(h, err)
	}
	defer o.Close()
	var content io.ReadSeeker = o
	if f, ok := o.(interface{ Descriptor() *os.File }); ok {
		content = f.Descriptor() // the kernel can send it
	}
	http.ServeContent(r.w, r.Request, "", time.Time{}, content)
	return nil
}

// unset takes back what was said of a blob that can't be sent.
func unset(h http.Header, err error) error {
	for _, k := range []string{"Docker-Content-Digest", "Etag", "Cache-Control"} {
		h.Del(k)
	}
	return err
}

func (s *blobs) openBlob(r *request, d digest.Digest) (storage.Object, error) {
	if s.copied(r.name) {
		return s.Cache.Blob(r.Context(), r.name, d)
	}
	return s.Store.Blob(r.Context(), r.name, d)
}

// deleteBlob takes a blob from a repository.
func (s *blobs) deleteBlob(r *request) error {
	if err := s.deletable(r); err != nil {
		return err
	}
	d, err := repo.ParseDigest(r.ref)
	if err != nil {
		return err
	}
	if err := s.Store.DeleteBlob(r.Context(), r.name, d); err != nil {
		return err
	}
	return r.w.empty(http.StatusAccepted)
}

// deletable is an error unless a client may delete things of a repository.
func (s *core) deletable(r *request) error {
	if err := s.need(r, r.name, auth.Delete); err != nil {
		return err
	}
	if s.NoDelete || s.ReadOnly {
		return repo.NewFault(errs.Unsupported, repo.Unsupported, "deletions are switched off")
	}
	return nil
}

// pushable is an error unless a client may push to a repository.
func (s *core) pushable(r *request) error {
	if err := s.need(r, r.name, auth.Push); err != nil {
		return err
	}
	return s.mutable(r)
}

// maxMountSearch is how many repositories are searched for a blob to mount.
const maxMountSearch = 1000

// beginUpload begins an upload, takes a blob as a whole, or finds that it is here
// already, in another repository.
func (s *blobs) beginUpload(r *request) error {
	if err := s.pushable(r); err != nil {
		return err
	}
	q := r.URL.Query()
	if m := q.Get("mount"); m != "" {
		d, err := repo.ParseDigest(m)
		if err != nil {
			return err
		}
		ok, err := s.mount(r, d, q.Get("from"))
		if err != nil {
			return err
		}
		if ok {
			return s.created(r, "blobs/"+d.String(), d)
		}
	}
	if text := q.Get("digest"); text != "" {
		d, err := repo.ParseDigest(text)
		if err != nil {
			return err
		}
		id, err := s.Store.Begin(r.Context(), r.name, d.Algorithm())
		if err != nil {
			return err
		}
		if err := s.Store.Finish(r.Context(), r.name, id, -1, r.Body, d); err != nil {
			// Nobody has the id: the upload can't go on.
			return errors.Join(uploadError(err), ignoreUnknown(s.Store.Cancel(context.WithoutCancel(r.Context()), r.name, id)))
		}
		return s.created(r, "blobs/"+d.String(), d)
	}
	id, err := s.Store.Begin(r.Context(), r.name, digest.Algorithm(q.Get("digest-algorithm")))
	if err != nil {
		return err
	}
	return s.progress(r, id, 0, http.StatusAccepted)
}

func ignoreUnknown(err error) error {
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

// mount gives a blob of another repository that the client may pull from to this
// one.
func (s *blobs) mount(r *request, d digest.Digest, from string) (bool, error) {
	names := []string{from}
	if from == "" {
		all, err := s.Store.Catalog(r.Context())
		if err != nil {
			return false, err
		}
		names = all[:min(len(all), maxMountSearch)]
	}
	for _, n := range names {
		if repo.CheckName(n) != nil {
			continue
		}
		ok, err := s.may(r, n, auth.Pull)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		err = s.Store.Mount(r.Context(), r.name, n, d)
		if err == nil {
			return true, nil
		}
		if !errs.Is(err, errs.NotFound) {
			return false, err
		}
	}
	return false, nil
}

// created answers that something is here now.
func (s *core) created(r *request, path string, d digest.Digest) error {
	h := r.w.Header()
	h.Set("Location", "/v2/"+r.name+"/"+path)
	h.Set("Docker-Content-Digest", d.String())
	return r.w.empty(http.StatusCreated)
}

// progress answers how far an upload is.
func (s *blobs) progress(r *request, id string, n int64, status int) error {
	setProgress(r, id, n)
	return r.w.empty(status)
}

func setProgress(r *request, id string, n int64) {
	h := r.w.Header()
	h.Set("Location", "/v2/"+r.name+"/blobs/uploads/"+id)
	h.Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
	h.Set("Docker-Upload-UUID", id)
}

// uploadStatus tells how far an upload is.
func (s *blobs) uploadStatus(r *request) error {
	if err := s.need(r, r.name, auth.Push); err != nil {
		return err
	}
	n, err := s.Store.Size(r.Context(), r.name, r.ref)
	if err != nil {
		return err
	}
	return s.progress(r, r.ref, n, http.StatusNoContent)
}

// contentRange reads where a chunk begins: -1 if the client does not say, and
// how long it is to be, or -1.
// Format: OCI distribution-spec 1.1, "Pushing a blob in chunks": <start>-<end>.
func contentRange(text string, length int64) (from, size int64, err error) {
	if text == "" {
		return -1, length, nil
	}
	bad := repo.NewFault(errs.Invalid, repo.RangeInvalid, "Content-Range %.100q is not <start>-<end>", text)
	text = strings.TrimPrefix(text, "bytes ")
	text, _, _ = strings.Cut(text, "/")
	a, b, ok := strings.Cut(text, "-")
	if !ok {
		return 0, 0, bad
	}
	from, e1 := strconv.ParseInt(a, 10, 64)
	to, e2 := strconv.ParseInt(b, 10, 64)
	// An empty first chunk is 0-0 at some clients.
	if e1 != nil || e2 != nil || from < 0 || to < from-1 || a[0] == '+' || b[0] == '+' {
		return 0, 0, bad
	}
	size = to - from + 1
	if length >= 0 && length != size && length != 0 {
		return 0, 0, repo.NewFault(errs.Invalid, repo.SizeInvalid, "Content-Range %.100q does not agree with the length %d", text, length)
	}
	if length == 0 {
		size = 0
	}
	return from, size, nil
}

// exactly reads size bytes, if that is not negative: fewer are an error.
type exactly struct {
	io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func sized(r io.Reader, size int64) io.Reader {
	if size < 0 {
		return r
	}
	return &exactly{io.LimitReader(r, size), size}
}

// uploadError makes of an error of a client's connection one of the client's.
func uploadError(err error) error {
	var f *repo.Fault
	if errors.As(err, &f) && f.Code == repo.SizeInvalid {
		return errs.With(errs.Invalid, &tooLarge{f})
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return repo.NewFault(errs.Invalid, repo.BlobUploadInvalid, "the request has ended early")
	}
	return err
}

// patchUpload adds a chunk to an upload.
func (s *blobs) patchUpload(r *request) error {
	if err := s.pushable(r); err != nil {
		return err
	}
	from, size, err := contentRange(r.Header.Get("Content-Range"), r.ContentLength)
	if err != nil {
		return err
	}
	n, err := s.Store.Append(r.Context(), r.name, r.ref, from, sized(r.Body, size))
	if err != nil {
		return s.uploadFailed(r, n, err)
	}
	return s.progress(r, r.ref, n, http.StatusAccepted)
}

// uploadFailed answers a chunk that did not fit with how far the upload is.
func (s *blobs) uploadFailed(r *request, n int64, err error) error {
	var f *repo.Fault
	if errors.As(err, &f) && f.Code == repo.RangeInvalid {
		setProgress(r, r.ref, n)
	}
	return uploadError(err)
}

// putUpload ends an upload, perhaps with the last chunk.
func (s *blobs) putUpload(r *request) error {
	if err := s.pushable(r); err != nil {
		return err
	}
	d, err := repo.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	from, size, err := contentRange(r.Header.Get("Content-Range"), r.ContentLength)
	if err != nil {
		return err
	}
	if err := s.Store.Finish(r.Context(), r.name, r.ref, from, sized(r.Body, size), d); err != nil {
		n, _ := s.Store.Size(r.Context(), r.name, r.ref)
		return s.uploadFailed(r, n, err)
	}
	return s.created(r, "blobs/"+d.String(), d)
}

// cancelUpload throws an upload away.
func (s *blobs) cancelUpload(r *request) error {
	if err := s.pushable(r); err != nil {
		return err
	}
	if err := s.Store.Cancel(r.Context(), r.name, r.ref); err != nil {
		return err
	}
	return r.w.empty(http.StatusNoContent)
}
