// Package s3fake is a small S3-compatible service in memory, for tests: objects,
// ranges, lists by pages and uploads in parts. It checks every signature by
// itself, and fails requests when told to.
//
// Tests of package s3 and of the registry call it. It must not know them.
package s3fake

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bytes"
)

// What clients must sign with, and the bucket that there is.
const (
	Key    = "AKIDTEST"
	Secret = "c2VjcmV0/with+signs"
	Bucket = "bucket"
)

type object struct {
	data    []byte
	changed time.Time
}

// A Server is a service.
type Server struct {
	*httptest.Server
	PageSize int // of lists
	mu       sync.Mutex
	objects  map[string]object
	uploads  map[string]map[int][]byte
	keys     map[string]string // of uploads
	seq      int
	fail     int // so many requests fail with 503
	Parts    int // that were sent
}

// Start starts a service that ends with the test.
func Start(t testing.TB) *Server {
	s := &Server{PageSize: 3, objects: map[string]object{}, uploads: map[string]map[int][]byte{}, keys: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// Fail makes the next n requests fail.
func (s *Server) Fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = n
}

// Uploads returns how many uploads in parts have neither been completed nor
// aborted.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Begin begins an upload in parts that nobody goes on with.
func (s *Server) Begin(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(key)
}

func (s *Server) begin(key string) string {
	s.seq++
	id := fmt.Sprint("upload-", s.seq)
	s.uploads[id], s.keys[id] = map[int][]byte{}, key
	return id
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, 400, "IncompleteBody")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		refuse(w, 503, "SlowDown")
		return
	}
	if why := check(r, data); why != "" {
		refuse(w, 403, why)
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/"+Bucket)
	if !ok {
		refuse(w, 404, "NoSuchBucket")
		return
	}
	key = strings.TrimPrefix(key, "/")
	q := r.URL.Query()
	switch {
	case key == "" && r.Method == "GET" && q.Has("uploads"):
		s.listUploads(w, q.Get("prefix"), q.Get("upload-id-marker"))
	case key == "" && r.Method == "GET":
		s.list(w, q.Get("prefix"), q.Get("continuation-token"))
	case r.Method == "POST" && q.Has("uploads"):
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", s.begin(key))
	case q.Has("uploadId"):
		s.upload(w, r.Method, key, q.Get("uploadId"), q.Get("partNumber"), data)
	case r.Method == "PUT":
		s.objects[key] = object{data, time.Now()}
	case r.Method == "DELETE":
		delete(s.objects, key)
		w.WriteHeader(204)
	default:
		o, ok := s.objects[key]
		if !ok {
			refuse(w, 404, "NoSuchKey")
			return
		}
		w.Header().Set("Etag", etag(o.data))
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", o.changed, bytes.NewReader(o.data))
	}
}

func etag(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *Server) upload(w http.ResponseWriter, method, key, id, number string, data []byte) {
	parts := s.uploads[id]
	if parts == nil {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	switch method {
	case "PUT":
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			refuse(w, 400, "InvalidArgument")
			return
		}
		s.Parts++
		parts[n] = data
		w.Header().Set("Etag", etag(data))
	case "DELETE":
		delete(s.uploads, id)
		w.WriteHeader(204)
	case "POST":
		var c struct {
			Part []struct {
				PartNumber int
				ETag       string
			}
		}
		if xml.Unmarshal(data, &c) != nil {
			refuse(w, 400, "MalformedXML")
			return
		}
		var whole []byte
		for i, p := range c.Part {
			b, ok := parts[p.PartNumber]
			if !ok || etag(b) != p.ETag || p.PartNumber != i+1 {
				// The protocol tells of it with status 200.
				fmt.Fprint(w, "<Error><Code>InvalidPart</Code></Error>")
				return
			}
			whole = append(whole, b...)
		}
		delete(s.uploads, id)
		s.objects[key] = object{whole, time.Now()}
		fmt.Fprint(w, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
	}
}

func (s *Server) list(w http.ResponseWriter, prefix, after string) {
	type content struct {
		Key, LastModified string
		Size              int
	}
	var r struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string
		Contents              []content
	}
	keys := []string{}
	for k := range s.objects {
		if strings.HasPrefix(k, prefix) && k > after {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if len(keys) > s.PageSize {
		keys = keys[:s.PageSize]
		r.IsTruncated, r.NextContinuationToken = true, keys[len(keys)-1]
	}
	for _, k := range keys {
		o := s.objects[k]
		r.Contents = append(r.Contents, content{k, o.changed.UTC().Format("2006-01-02T15:04:05.000Z"), len(o.data)})
	}
	_ = xml.NewEncoder(w).Encode(r)
}

func (s *Server) listUploads(w http.ResponseWriter, prefix, after string) {
	type upload struct{ Key, UploadId string }
	var r struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		IsTruncated        bool
		NextKeyMarker      string
		NextUploadIdMarker string
		Upload             []upload
	}
	for id := range s.uploads {
		if strings.HasPrefix(s.keys[id], prefix) && id > after {
			r.Upload = append(r.Upload, upload{s.keys[id], id})
		}
	}
	slices.SortFunc(r.Upload, func(a, b upload) int { return strings.Compare(a.UploadId, b.UploadId) })
	if len(r.Upload) > s.PageSize {
		r.Upload = r.Upload[:s.PageSize]
		last := r.Upload[len(r.Upload)-1]
		r.IsTruncated, r.NextKeyMarker, r.NextUploadIdMarker = true, last.Key, last.UploadId
	}
	_ = xml.NewEncoder(w).Encode(r)
}

// check returns what is wrong with a request's signature.
func check(r *http.Request, data []byte) string {
	sum := sha256.Sum256(data)
	if r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		return "XAmzContentSHA256Mismatch"
	}
	fields := map[string]string{}
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return "AccessDenied"
	}
	for f := range strings.SplitSeq(text, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[k] = v
	}
	cred := strings.Split(fields["Credential"], "/")
	if len(cred) != 5 || cred[0] != Key {
		return "InvalidAccessKeyId"
	}
	head := ""
	for n := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		v := r.Header.Get(n)
		if n == "host" {
			v = r.Host
		}
		head += n + ":" + v + "\n"
	}
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n" + head + "\n" + fields["SignedHeaders"] + "\n" + hex.EncodeToString(sum[:])
	digest := sha256.Sum256([]byte(canonical))
	sign := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + strings.Join(cred[1:], "/") + "\n" + hex.EncodeToString(digest[:])
	key := []byte("AWS4" + Secret)
	for _, p := range append(cred[1:], sign) {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(p))
		key = m.Sum(nil)
	}
	if hex.EncodeToString(key) != fields["Signature"] {
		return "SignatureDoesNotMatch"
	}
	return ""
}
