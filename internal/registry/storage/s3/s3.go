// Package s3 keeps the registry's objects in a bucket of a service that speaks
// Amazon's S3 protocol. It implements storage.Backend with a client of its own:
// six operations, signed with signature version 4.
//
// Program gantry-registry makes it. The bucket below its prefix belongs to one
// server. It must not know what the objects mean.
//
// Formats: Amazon S3 API Reference; "Signature Version 4 signing process".
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
)

// Options say where the bucket is.
type Options struct {
	Endpoint  string `yaml:"endpoint"` // https://host[:port]
	Region    string `yaml:"region"`   // default us-east-1
	Bucket    string `yaml:"bucket"`
	Prefix    string `yaml:"prefix"`     // of all keys; may be empty
	AccessKey string `yaml:"access-key"` // default: $AWS_ACCESS_KEY_ID
	SecretKey string `yaml:"secret-key"` // default: $AWS_SECRET_ACCESS_KEY
	// Virtual puts the bucket into the host's name instead of the path.
	Virtual bool `yaml:"virtual-host"`
	// Part is the size of the parts that large objects are sent in, in bytes:
	// at least 5 MiB; 0 for 16 MiB.
	Part int64 `yaml:"part-size"`
}

// Limits of the protocol, and how this client behaves.
const (
	minPart    = 5 << 20
	maxParts   = 10000
	partsAtOne = 3
	attempts   = 4
)

// A Bucket is a storage.Backend.
type Bucket struct {
	Options
	base  *url.URL
	http  *http.Client
	pause time.Duration // before the first repetition
}

// New returns the objects in a bucket. It does not connect yet.
func New(o Options) (*Bucket, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || o.Bucket == "" {
		return nil, errs.New(errs.Invalid, "s3: endpoint %q and bucket %q must be an address and a name", o.Endpoint, o.Bucket)
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.AccessKey == "" {
		o.AccessKey, o.SecretKey = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	}
	if o.Part == 0 {
		o.Part = 16 << 20
	}
	if o.Part < minPart {
		return nil, errs.New(errs.Invalid, "s3: parts must have at least %d bytes", minPart)
	}
	if o.Prefix != "" {
		o.Prefix = strings.Trim(o.Prefix, "/")
		if err := storage.CheckKey(o.Prefix); err != nil {
			return nil, err
		}
		o.Prefix += "/"
	}
	if o.Virtual {
		u.Host = o.Bucket + "." + u.Host
	} else {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/" + o.Bucket
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 16}
	return &Bucket{Options: o, base: u, pause: 100 * time.Millisecond,
		http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// call is one request, which can be sent again.
type call struct {
	method string
	key    string // without the prefix; empty: the bucket
	query  url.Values
	header http.Header
	body   func() io.Reader // nil: none
	size   int64
	sum    [32]byte // of the body
}

// do sends a call until it is answered well or for good. The answer's body is
// open.
func (b *Bucket) do(ctx context.Context, c call) (*http.Response, error) {
	var last error
	for try := range attempts {
		if try > 0 {
			select {
			case <-time.After(b.pause << (try - 1)):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		resp, err := b.once(ctx, c)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			last = err
			continue
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		last = failure(resp, c)
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout {
			return nil, last
		}
	}
	return nil, errs.With(errs.Unavailable, last)
}

func (b *Bucket) once(ctx context.Context, c call) (*http.Response, error) {
	u := *b.base
	if c.key != "" {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/" + b.Prefix + c.key
	}
	u.RawPath = escape(u.Path, true)
	u.RawQuery = canonicalQuery(c.query)
	var body io.Reader
	if c.body != nil {
		body = c.body()
	} else {
		c.sum = sha256.Sum256(nil)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = c.size
	for k, v := range c.header {
		req.Header[k] = v
	}
	sign(req, b.Options, hex.EncodeToString(c.sum[:]), time.Now())
	return b.http.Do(req)
}

// failure makes an error of an answer.
func failure(resp *http.Response, c call) error {
	defer resp.Body.Close()
	var e struct{ Code, Message string }
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = xml.Unmarshal(data, &e) // the status says enough
	kind := errs.Unavailable
	if resp.StatusCode == http.StatusNotFound {
		kind = errs.NotFound
	}
	return errs.New(kind, "s3: %s %s: %s %s %s", c.method, c.key, resp.Status, e.Code, e.Message)
}

// discard ends an answer whose body does not matter.
func discard(resp *http.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return errors.Join(err, resp.Body.Close())
}

// Put makes or replaces an object.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	resp, err := b.do(ctx, call{method: http.MethodPut, key: key, body: func() io.Reader { return bytes.NewReader(data) }, size: int64(len(data)), sum: sha256.Sum256(data)})
	if err != nil {
		return err
	}
	return discard(resp)
}

// Delete removes an object.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	resp, err := b.do(ctx, call{method: http.MethodDelete, key: key})
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return discard(resp)
}

// List tells of objects.
func (b *Bucket) List(ctx context.Context, prefix string, tell func(storage.Info) error) error {
	q := url.Values{"list-type": {"2"}, "prefix": {b.Prefix + prefix}}
	for {
		resp, err := b.do(ctx, call{method: http.MethodGet, query: q})
		if err != nil {
			return err
		}
		var page struct {
			IsTruncated           bool
			NextContinuationToken string
			Contents              []struct {
				Key          string
				Size         int64
				LastModified time.Time
			}
		}
		err = errors.Join(xml.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&page), resp.Body.Close())
		if err != nil {
			return errs.New(errs.Unavailable, "s3: list: %w", err)
		}
		for _, c := range page.Contents {
			key, ok := strings.CutPrefix(c.Key, b.Prefix)
			if !ok || storage.CheckKey(key) != nil {
				continue
			}
			if err := tell(storage.Info{Key: key, Size: c.Size, Changed: c.LastModified}); err != nil {
				return err
			}
		}
		if !page.IsTruncated || page.NextContinuationToken == "" {
			return nil
		}
		q.Set("continuation-token", page.NextContinuationToken)
	}
}

// Take sends a file, in parts if it is large, and removes it.
func (b *Bucket) Take(ctx context.Context, key, file string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() <= b.Part {
		c, err := section(f, 0, fi.Size())
		if err != nil {
			return err
		}
		c.method, c.key = http.MethodPut, key
		resp, err := b.do(ctx, c)
		if err != nil {
			return err
		}
		if err := discard(resp); err != nil {
			return err
		}
		return os.Remove(file)
	}
	if err := b.multipart(ctx, key, f, fi.Size()); err != nil {
		return err
	}
	return os.Remove(file)
}

// section makes a call's body of a part of a file.
func section(f io.ReaderAt, at, n int64) (call, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, at, n)); err != nil {
		return call{}, err
	}
	return call{size: n, sum: [32]byte(h.Sum(nil)), body: func() io.Reader { return io.NewSectionReader(f, at, n) }}, nil
}

// part is one part of a large object.
type part struct {
	PartNumber int
	ETag       string
}

func (b *Bucket) multipart(ctx context.Context, key string, f io.ReaderAt, size int64) (err error) {
	resp, err := b.do(ctx, call{method: http.MethodPost, key: key, query: url.Values{"uploads": {""}}})
	if err != nil {
		return err
	}
	var begun struct{ UploadId string } //nolint:revive // the protocol's name
	if err := errors.Join(xml.NewDecoder(resp.Body).Decode(&begun), resp.Body.Close()); err != nil {
		return errs.New(errs.Unavailable, "s3: begin of %s: %w", key, err)
	}
	id := url.Values{"uploadId": {begun.UploadId}}
	defer func() {
		if err != nil {
			if resp, e := b.do(context.WithoutCancel(ctx), call{method: http.MethodDelete, key: key, query: id}); e == nil {
				_ = discard(resp)
			}
		}
	}()
	step := max(b.Part, (size+maxParts-1)/maxParts)
	parts := make([]part, (size+step-1)/step)
	if err := b.sendParts(ctx, key, begun.UploadId, f, size, step, parts); err != nil {
		return err
	}
	body, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{Part: parts})
	if err != nil {
		return err
	}
	resp, err = b.do(ctx, call{method: http.MethodPost, key: key, query: id, body: func() io.Reader { return bytes.NewReader(body) }, size: int64(len(body)), sum: sha256.Sum256(body)})
	if err != nil {
		return err
	}
	// The answer may be an error with status 200.
	var end struct {
		XMLName xml.Name
		Message string
	}
	if err := errors.Join(xml.NewDecoder(resp.Body).Decode(&end), resp.Body.Close()); err != nil || end.XMLName.Local == "Error" {
		return errs.New(errs.Unavailable, "s3: end of %s: %s %w", key, end.Message, err)
	}
	return nil
}

// sendParts sends the parts of a file, a few at once.
func (b *Bucket) sendParts(ctx context.Context, key, id string, f io.ReaderAt, size, step int64, parts []part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, partsAtOne)
	var wg sync.WaitGroup
	for i := range parts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			at := int64(i) * step
			c, err := section(f, at, min(step, size-at))
			if err == nil && ctx.Err() == nil {
				c.method, c.key = http.MethodPut, key
				c.query = url.Values{"partNumber": {strconv.Itoa(i + 1)}, "uploadId": {id}}
				var resp *http.Response
				if resp, err = b.do(ctx, c); err == nil {
					parts[i] = part{i + 1, resp.Header.Get("Etag")}
					err = discard(resp)
				}
			}
			if err != nil {
				cancel(fmt.Errorf("part %d: %w", i+1, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
