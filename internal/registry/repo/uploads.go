package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/keyed"
)

// Uploads are the blobs that arrive. An upload is a directory of the spool: the
// bytes so far, and a record of whose it is. It outlives the server: what is
// there is read again when the upload goes on.
type Uploads struct {
	s      *Store
	locks  keyed.Mutex[string] // one writer an upload
	mu     sync.Mutex
	hashes map[string]*running
}

// running is the digest so far of an upload that this process has all bytes of.
type running struct {
	alg digest.Algorithm
	h   hash.Hash
	n   int64
}

type uploadRecord struct {
	Name      string           `json:"name"`
	Algorithm digest.Algorithm `json:"algorithm"`
}

func newUploads(s *Store) *Uploads {
	return &Uploads{s: s, hashes: map[string]*running{}}
}

func uploadUnknown() error {
	return NewFault(errs.NotFound, BlobUploadUnknown, "blob upload unknown to registry")
}

func (u *Uploads) dir(id string) string { return filepath.Join(u.s.Spool, "u-"+id) }

// Begin begins an upload to a repository and returns its id. alg is the
// algorithm of the digest that it will end with, as far as is known; empty for
// sha256.
func (u *Uploads) Begin(_ context.Context, name string, alg digest.Algorithm) (string, error) {
	if alg == "" {
		alg = digest.SHA256
	}
	if !alg.Available() {
		return "", NewFault(errs.Invalid, DigestInvalid, "digest algorithm %.40q is not supported", string(alg))
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // does not fail
	id := hex.EncodeToString(b[:])
	if err := os.Mkdir(u.dir(id), 0o700); err != nil {
		return "", err
	}
	data, err := json.Marshal(uploadRecord{name, alg})
	if err == nil {
		err = durable.Replace(filepath.Join(u.dir(id), "upload.json"), data, 0o600)
	}
	if err == nil {
		err = os.WriteFile(u.file(id), nil, 0o600)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(u.dir(id)))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hashes[id] = &running{alg: alg, h: alg.Hash()}
	return id, nil
}

func (u *Uploads) file(id string) string { return filepath.Join(u.dir(id), "data") }

// lock makes the caller the one writer of an upload of a repository.
func (u *Uploads) lock(ctx context.Context, name, id string) (uploadRecord, func(), error) {
	var r uploadRecord
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 || hex.EncodeToString(b) != id {
		return r, nil, uploadUnknown()
	}
	unlock, err := u.locks.Lock(ctx, id)
	if err != nil {
		return r, nil, err
	}
	data, err := os.ReadFile(filepath.Join(u.dir(id), "upload.json"))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil || r.Name != name || !r.Algorithm.Available() {
		unlock()
		if err != nil && !os.IsNotExist(err) {
			return r, nil, err
		}
		return r, nil, uploadUnknown()
	}
	return r, unlock, nil
}

// Size returns how much of an upload has arrived, in bytes.
func (u *Uploads) Size(ctx context.Context, name, id string) (int64, error) {
	_, unlock, err := u.lock(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	fi, err := os.Stat(u.file(id))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Append adds what r has to an upload and returns how much there is then. from
// is where the client believes to be, or -1: errs.Conflict with RangeInvalid and
// the true size if that is wrong. An error keeps what has arrived.
func (u *Uploads) Append(ctx context.Context, name, id string, from int64, r io.Reader) (int64, error) {
	rec, unlock, err := u.lock(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return u.write(ctx, rec, id, from, r)
}

func (u *Uploads) write(ctx context.Context, rec uploadRecord, id string, from int64, r io.Reader) (int64, error) {
	f, err := os.OpenFile(u.file(id), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	run, err := u.running(ctx, rec, id, f)
	if err != nil {
		return 0, err
	}
	if from >= 0 && from != run.n {
		return run.n, NewFault(errs.Conflict, RangeInvalid, "the upload has %d bytes, and the chunk begins at %d", run.n, from)
	}
	w := &spooler{f: f, run: run, max: u.s.MaxBlob}
	_, err = io.CopyBuffer(w, onlyReader{r}, make([]byte, 512<<10))
	return run.n, err
}

// onlyReader hides other methods, so that the buffer's size is the caller's.
type onlyReader struct{ io.Reader }

// flushStep is after how many bytes the kernel is told to begin writing, so that
// the sync at the end has little to wait for.
const flushStep = 16 << 20

// spooler writes to a file and a digest alike.
type spooler struct {
	f   *os.File
	run *running
	max int64
}

func (w *spooler) Write(p []byte) (int, error) {
	if w.max > 0 && w.run.n+int64(len(p)) > w.max {
		return 0, NewFault(errs.Invalid, SizeInvalid, "a blob may have at most %d bytes", w.max)
	}
	n, err := w.f.WriteAt(p, w.run.n)
	w.run.h.Write(p[:n])
	before := w.run.n
	w.run.n += int64(n)
	if before/flushStep != w.run.n/flushStep {
		_ = unix.SyncFileRange(int(w.f.Fd()), before/flushStep*flushStep, flushStep, unix.SYNC_FILE_RANGE_WRITE)
	}
	return n, err
}

// running returns the digest of what an upload has: kept, or made of the file.
func (u *Uploads) running(ctx context.Context, rec uploadRecord, id string, f *os.File) (*running, error) {
	u.mu.Lock()
	run := u.hashes[id]
	u.mu.Unlock()
	if run != nil {
		return run, f.Truncate(run.n)
	}
	run = &running{alg: rec.Algorithm, h: rec.Algorithm.Hash()}
	n, err := io.Copy(run.h, ctxReader{ctx, f})
	if err != nil {
		return nil, err
	}
	run.n = n
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hashes[id] = run
	return run, nil
}

// ctxReader reads until a context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Finish adds what r has and makes the upload a blob of its repository. One that
// has not digest d is thrown away: errs.Invalid.
func (u *Uploads) Finish(ctx context.Context, name, id string, from int64, r io.Reader, d digest.Digest) error {
	rec, unlock, err := u.lock(ctx, name, id)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := u.write(ctx, rec, id, from, r); err != nil {
		return err
	}
	got, err := u.digest(ctx, id, d.Algorithm())
	if err != nil {
		return err
	}
	if got != d {
		err := NewFault(errs.Invalid, DigestInvalid, "provided digest did not match uploaded content: it has %s", got)
		return errors.Join(err, u.drop(id))
	}
	// What was asked for is done even if the client does not wait.
	ctx = context.WithoutCancel(ctx)
	if err := u.s.adopt(ctx, name, d, u.file(id)); err != nil {
		return fmt.Errorf("commit of upload %s: %w", id, err)
	}
	return u.drop(id)
}

// digest returns the digest of an upload.
func (u *Uploads) digest(ctx context.Context, id string, alg digest.Algorithm) (digest.Digest, error) {
	u.mu.Lock()
	run := u.hashes[id]
	u.mu.Unlock()
	if run.alg == alg {
		return digest.NewDigest(alg, run.h), nil
	}
	f, err := os.Open(u.file(id))
	if err != nil {
		return "", err
	}
	defer f.Close()
	return alg.FromReader(ctxReader{ctx, f})
}

// Tail opens what has arrived of an upload, and will arrive, for reading. The
// file can be read when the upload is finished or cancelled too.
func (u *Uploads) Tail(id string) (*os.File, error) { return os.Open(u.file(id)) }

// drop removes what is left of an upload.
func (u *Uploads) drop(id string) error {
	u.mu.Lock()
	delete(u.hashes, id)
	u.mu.Unlock()
	return os.RemoveAll(u.dir(id))
}

// Cancel throws an upload away.
func (u *Uploads) Cancel(ctx context.Context, name, id string) error {
	_, unlock, err := u.lock(ctx, name, id)
	if err != nil {
		return err
	}
	defer unlock()
	return u.drop(id)
}

// purge throws uploads away that nothing has arrived for since a time.
func (u *Uploads) purge(ctx context.Context, since time.Time) (n int, err error) {
	dirs, err := filepath.Glob(filepath.Join(u.s.Spool, "u-*"))
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		id := filepath.Base(dir)[2:]
		unlock, err := u.locks.Lock(ctx, id)
		if err != nil {
			return n, err
		}
		fi, err := os.Stat(u.file(id))
		if err != nil {
			fi, err = os.Stat(dir)
		}
		if err == nil && fi.ModTime().Before(since) {
			err = u.drop(id)
			n++
		}
		unlock()
		if err != nil && !os.IsNotExist(err) {
			return n, err
		}
	}
	return n, nil
}

// sweep removes what nobody can go on with: uploads of which a crash has left no
// record or no data. No upload may have begun.
func (u *Uploads) sweep() error {
	dirs, err := filepath.Glob(filepath.Join(u.s.Spool, "u-*"))
	for _, dir := range dirs {
		id := filepath.Base(dir)[2:]
		_, noRecord := os.Stat(filepath.Join(dir, "upload.json"))
		_, noData := os.Stat(u.file(id))
		if os.IsNotExist(noRecord) || os.IsNotExist(noData) {
			err = errors.Join(err, u.drop(id))
		}
	}
	return err
}
