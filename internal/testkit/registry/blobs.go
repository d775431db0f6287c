package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// blob serves a blob, with ranges, and with the faults.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest, f Faults) {
	s.mu.Lock()
	repo := s.repos[name]
	data, ok := s.blobs[d]
	s.mu.Unlock()
	if !ok || repo == nil || !repo.blobs[d] {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	if f.NoRanges {
		r.Header.Del("Range")
	}
	out := &faulty{ResponseWriter: w, s: s, f: f}
	http.ServeContent(out, r, "", time.Time{}, bytes.NewReader(data))
}

// faulty is an answer with faults. It hides the means to send files, so that
// every byte passes here.
type faulty struct {
	http.ResponseWriter
	s *Server
	f Faults
	n int64
}

func (w *faulty) Write(p []byte) (int, error) {
	if w.f.CutAfter > 0 && w.n+int64(len(p)) > w.f.CutAfter {
		n, _ := w.ResponseWriter.Write(p[:max(w.f.CutAfter-w.n, 0)])
		w.count(n)
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	if w.f.Rate > 0 {
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(w.f.Rate))
	}
	n, err := w.ResponseWriter.Write(p)
	w.count(n)
	return n, err
}

func (w *faulty) count(n int) {
	w.n += int64(n)
	w.s.mu.Lock()
	w.s.sent += int64(n)
	w.s.mu.Unlock()
}

// upload takes blobs: whole, in chunks, or from another repository.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, name, id string) {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodPost:
		from, mount := q.Get("from"), digest.Digest(q.Get("mount"))
		s.mu.Lock()
		source := s.repos[from]
		if mount != "" && source != nil && source.blobs[mount] {
			s.repo(name).blobs[mount] = true
			s.mu.Unlock()
			w.Header().Set("Location", path.Join("/v2", name, "blobs", mount.String()))
			w.Header().Set("Docker-Content-Digest", mount.String())
			w.WriteHeader(http.StatusCreated)
			return
		}
		id = randomID()
		s.uploads[id] = []byte{}
		s.mu.Unlock()
		s.accepted(w, name, id, 0)
	case http.MethodPatch, http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		old, ok := s.uploads[id]
		s.uploads[id] = append(old, data...)
		all := s.uploads[id]
		s.mu.Unlock()
		switch {
		case !ok:
			fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		case r.Method == http.MethodPatch:
			s.accepted(w, name, id, len(all))
		case digest.FromBytes(all).String() != q.Get("digest"):
			fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		default:
			d := s.PutBlob(name, all)
			w.Header().Set("Docker-Content-Digest", d.Digest.String())
			w.Header().Set("Location", path.Join("/v2", name, "blobs", d.Digest.String()))
			w.WriteHeader(http.StatusCreated)
		}
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
	}
}

func (s *Server) accepted(w http.ResponseWriter, name, id string, n int) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
	w.WriteHeader(http.StatusAccepted)
}

// allowed checks credentials, and answers with a challenge if they will not do.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request) bool {
	header := r.Header.Get("Authorization")
	switch s.opts.Auth {
	case Basic:
		if user, pass, ok := r.BasicAuth(); ok && user == s.opts.User && pass == s.opts.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	case Token:
		scope := scopeOf(r)
		s.mu.Lock()
		granted, ok := s.tokens[strings.TrimPrefix(header, "Bearer ")]
		s.mu.Unlock()
		if ok && covers(granted, scope) {
			return true
		}
		realm := s.opts.Realm
		if realm == "" {
			realm = s.URL + "/token"
		}
		c := fmt.Sprintf(`Bearer realm=%q,service="test"`, realm)
		if scope != "" {
			c += fmt.Sprintf(`,scope=%q`, scope)
		}
		if header != "" {
			c += `,error="insufficient_scope"`
		}
		w.Header().Set("WWW-Authenticate", c)
	default:
		return true
	}
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// scopeOf returns the scope that a request needs.
func scopeOf(r *http.Request) string {
	for _, mark := range []string{"/blobs/", "/manifests/", "/tags/"} {
		name, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), mark)
		if !ok {
			continue
		}
		scope := "repository:" + name + ":pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			scope += ",push"
		}
		if from := r.URL.Query().Get("from"); from != "" {
			scope += " repository:" + from + ":pull"
		}
		return scope
	}
	return ""
}

// covers reports whether granted scopes have all that is needed.
func covers(granted, needed string) bool {
	for _, n := range strings.Fields(needed) {
		i := strings.LastIndex(n, ":")
		for _, action := range strings.Split(n[i+1:], ",") {
			ok := slices.ContainsFunc(strings.Fields(granted), func(g string) bool {
				j := strings.LastIndex(g, ":")
				return j >= 0 && g[:j] == n[:i] && slices.Contains(strings.Split(g[j+1:], ","), action)
			})
			if !ok {
				return false
			}
		}
	}
	return true
}

// token is the token server. Anonymous clients may pull what has no secret in
// its name.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	var scopes []string
	for _, v := range r.Form["scope"] {
		scopes = append(scopes, strings.Fields(v)...)
	}
	user, pass, ok := r.BasicAuth()
	if r.Form.Get("grant_type") == "password" {
		user, pass, ok = r.Form.Get("username"), r.Form.Get("password"), true
	}
	if r.Form.Get("grant_type") == "refresh_token" {
		user, pass, ok = s.opts.User, "", true
		if s.opts.Identity != "" && r.Form.Get("refresh_token") == s.opts.Identity {
			pass = s.opts.Password
		}
	}
	known := ok && user == s.opts.User && pass == s.opts.Password
	if ok && !known {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	if !known {
		var rest []string
		for _, v := range scopes {
			if !strings.Contains(v, "secret") {
				rest = append(rest, strings.ReplaceAll(v, ",push", ""))
			}
		}
		scopes = rest
	}
	t := "token-" + base64.RawURLEncoding.EncodeToString([]byte(randomID()))
	s.mu.Lock()
	s.tokens[t] = strings.Join(scopes, " ")
	s.mu.Unlock()
	body := map[string]any{"token": t, "access_token": t, "expires_in": 300}
	if known && s.opts.Identity != "" && r.Form.Get("offline_token") == "true" {
		body["refresh_token"] = s.opts.Identity
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}
