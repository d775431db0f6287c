package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

// object reads an object, from where it is asked to.
type object struct {
	ctx  context.Context
	b    *Bucket
	info storage.Info
	etag string
	at   int64
	body io.ReadCloser // from at; nil: not asked for yet
}

// Open opens an object. Its reading ends with ctx.
func (b *Bucket) Open(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	resp, err := b.do(ctx, call{method: http.MethodHead, key: key})
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	changed, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		changed = time.Now() // young, as far as is known
	}
	return &object{ctx: ctx, b: b, info: storage.Info{Key: key, Size: resp.ContentLength, Changed: changed}, etag: resp.Header.Get("Etag")}, nil
}

// Info tells of the object.
func (o *object) Info() storage.Info { return o.info }

// Read reads on, over a new connection where one was cut.
func (o *object) Read(p []byte) (int, error) {
	if o.at >= o.info.Size {
		return 0, io.EOF
	}
	for try := 0; ; try++ {
		if o.body == nil {
			if err := o.open(); err != nil {
				return 0, err
			}
		}
		n, err := o.body.Read(p)
		o.at += int64(n)
		if err == nil || o.at >= o.info.Size {
			return n, nil
		}
		o.body.Close()
		o.body = nil
		if n > 0 {
			return n, nil
		}
		if o.ctx.Err() != nil {
			return 0, o.ctx.Err()
		}
		if try == attempts {
			return 0, errs.New(errs.Unavailable, "s3: read %s: %w", o.info.Key, err)
		}
	}
}

func (o *object) open() error {
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-", o.at)}}
	if o.etag != "" {
		h.Set("If-Match", o.etag)
	}
	resp, err := o.b.do(o.ctx, call{method: http.MethodGet, key: o.info.Key, header: h})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusPartialContent && o.at > 0 {
		resp.Body.Close()
		return errs.New(errs.Unavailable, "s3: %s has no ranges: %s", o.info.Key, resp.Status)
	}
	o.body = resp.Body
	return nil
}

// Seek sets where the next Read begins.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.info.Size
	}
	if offset < 0 {
		return 0, errors.New("s3: negative offset")
	}
	if offset != o.at && o.body != nil {
		o.body.Close()
		o.body = nil
	}
	o.at = offset
	return offset, nil
}

// Close ends the reading.
func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	return o.body.Close()
}
