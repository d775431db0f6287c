package registry_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry"
	"gantry/internal/registry/repo"
)

// A step is one request of a workflow of the OCI distribution-spec, and what is
// answered. A path that begins with @ goes on from the last Location.
type step struct {
	end    string // the endpoint, by the number that the specification gives it
	method string
	path   string
	body   string
	header []string
	status int
	code   string   // of the error
	has    []string // headers: "Name: value", "Name" for any value, "!Name" for none
	is     string   // the body; empty: not looked at
}

// conformance walks workflows and notes which answers of which endpoint it saw.
type conformance struct {
	*site
	at   string
	seen map[string]bool
}

func (c *conformance) walk(steps ...step) {
	c.t.Helper()
	for _, s := range steps {
		path := s.path
		if rest, ok := strings.CutPrefix(path, "@"); ok {
			path = c.at + rest
		}
		r := c.do(s.method, path, s.body, s.header...)
		what := fmt.Sprintf("%s %s %s", s.end, s.method, path)
		if r.status != s.status {
			c.t.Errorf("%s: %d %s, want %d", what, r.status, r.body, s.status)
		}
		c.seen[fmt.Sprint(s.end, " ", r.status)] = true
		if r.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			c.t.Errorf("%s: no API version", what)
		}
		if s.code != "" {
			var e struct {
				Errors []struct{ Code, Message string }
			}
			if json.Unmarshal([]byte(r.body), &e) != nil || len(e.Errors) == 0 || e.Errors[0].Code != s.code || e.Errors[0].Message == "" {
				c.t.Errorf("%s: %s, want code %s", what, r.body, s.code)
			}
		}
		if s.method == http.MethodHead && r.body != "" {
			c.t.Errorf("%s: a body %q", what, r.body)
		}
		if s.is != "" && r.body != s.is {
			c.t.Errorf("%s: body %q, want %q", what, r.body, s.is)
		}
		for _, h := range s.has {
			name, value, exact := strings.Cut(h, ": ")
			name, none := strings.CutPrefix(name, "!")
			got := r.Get(name)
			if none != (got == "") || exact && got != value {
				c.t.Errorf("%s: header %s is %q, want %q", what, name, got, h)
			}
		}
		if l := r.Get("Location"); l != "" && r.status < 300 {
			c.at = l
		}
	}
}

// The answers that clients rely upon, by endpoint. Repositories come into being
// by a push here: pushes know no 404 for their name.
const endpointAnswers = `
end-1 200 401
end-2 200 206 304 400 404 416
end-3 200 304 400 404
end-4a 202 400
end-4b 201 400
end-4c 202 400
end-5 202 400 404 416
end-6 201 400 404 416
end-7a 201 400 404 413
end-7b 201 400
end-8a 200 404 405
end-8b 200 400
end-9 202 400 404 405
end-10 202 400 404 405
end-11 201 202 400
end-12a 200 400
end-12b 200
end-13 204 404
end-14 204 404
catalog 200 400
`

// Every endpoint of the OCI distribution-spec in its four workflows, and the
// catalog.
func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		c := &conformance{site: s, seen: map[string]bool{}}
		c.walk(step{end: "end-1", method: "GET", path: "/v2/", status: 200, has: []string{"Content-Type: application/json; charset=utf-8"}, is: "{}"})
		guard, _ := guarded(t, true)
		c.site = guard
		c.walk(step{end: "end-1", method: "GET", path: "/v2/", status: 401, code: "UNAUTHORIZED", has: []string{"WWW-Authenticate"}})
		c.site = s
		conformPush(c)
		conformChunks(c)
		conformPull(c)
		conformDiscovery(c)
		conformManagement(c)
		dir := t.TempDir()
		c.site = start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) { o.NoDelete = true })
		d := c.push("x", "v1", "layer")
		c.walk(
			step{end: "end-9", method: "DELETE", path: "/v2/x/manifests/" + d, status: 405, code: "UNSUPPORTED"},
			step{end: "end-10", method: "DELETE", path: "/v2/x/blobs/" + digest.FromString("layer").String(), status: 405, code: "UNSUPPORTED"},
		)
		for line := range strings.SplitSeq(strings.TrimSpace(endpointAnswers), "\n") {
			f := strings.Fields(line)
			for _, status := range f[1:] {
				if !c.seen[f[0]+" "+status] {
					t.Errorf("%s has never answered with %s", f[0], status)
				}
				delete(c.seen, f[0]+" "+status)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(c.seen)) {
			t.Errorf("an answer that is not in the table: %s", k)
		}
	})
}

const (
	confBlob  = "hello, conformance"
	confOther = "another blob"
)

func confDigest(text string) string { return digest.FromString(text).String() }

func conformPush(c *conformance) {
	d, none := confDigest(confBlob), confDigest("none")
	m := image("{}", nil, confBlob)
	md := confDigest(m)
	typ := []string{"Content-Type", ociManifest}
	c.walk(
		// POST and PUT; in one request; refused names and digests.
		step{end: "end-4a", method: "POST", path: "/v2/conf/app/blobs/uploads/", status: 202, has: []string{"Location", "Range: 0-0", "Docker-Upload-UUID", "Content-Length: 0"}},
		step{end: "end-6", method: "PUT", path: "@?digest=" + d, body: confBlob, header: []string{"Content-Type", "application/octet-stream"}, status: 201, has: []string{"Location: /v2/conf/app/blobs/" + d, "Docker-Content-Digest: " + d}},
		step{end: "end-2", method: "GET", path: "@", status: 200, is: confBlob},
		step{end: "end-4a", method: "POST", path: "/v2/Conf/app/blobs/uploads/", status: 400, code: "NAME_INVALID"},
		step{end: "end-4b", method: "POST", path: "/v2/conf/app/blobs/uploads/?digest=" + confDigest("{}"), body: "{}", status: 201, has: []string{"Location: /v2/conf/app/blobs/" + confDigest("{}")}},
		step{end: "end-4b", method: "POST", path: "/v2/conf/app/blobs/uploads/?digest=" + none, body: "{}", status: 400, code: "DIGEST_INVALID"},
		step{end: "end-4b", method: "POST", path: "/v2/conf/app/blobs/uploads/?digest=sha256:xyz", body: "{}", status: 400, code: "DIGEST_INVALID"},
		step{end: "end-4c", method: "POST", path: "/v2/conf/app/blobs/uploads/?digest-algorithm=sha512", status: 202, has: []string{"Location"}},
		step{end: "end-6", method: "PUT", path: "@?digest=" + digest.SHA512.FromString(confBlob).String(), body: confBlob, status: 201},
		step{end: "end-4c", method: "POST", path: "/v2/conf/app/blobs/uploads/?digest-algorithm=crc32", status: 400, code: "DIGEST_INVALID"},
		// An upload whose bytes are others, and one without a digest.
		step{end: "end-4a", method: "POST", path: "/v2/conf/app/blobs/uploads/", status: 202},
		step{end: "end-6", method: "PUT", path: "@", body: confBlob, status: 400, code: "DIGEST_INVALID"},
		step{end: "end-6", method: "PUT", path: "@?digest=" + none, body: confBlob, status: 400, code: "DIGEST_INVALID"},
		step{end: "end-6", method: "PUT", path: "@?digest=" + d, body: confBlob, status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		// Mounts.
		step{end: "end-11", method: "POST", path: "/v2/conf/b/blobs/uploads/?from=conf/app&mount=" + d, status: 201, has: []string{"Location: /v2/conf/b/blobs/" + d, "Docker-Content-Digest: " + d}},
		step{end: "end-11", method: "POST", path: "/v2/conf/c/blobs/uploads/?mount=" + d, status: 201},
		step{end: "end-11", method: "POST", path: "/v2/conf/c/blobs/uploads/?from=conf/app&mount=" + none, status: 202, has: []string{"Location", "Docker-Upload-UUID"}},
		step{end: "end-11", method: "POST", path: "/v2/conf/c/blobs/uploads/?from=none/none&mount=" + d + "x", status: 400, code: "DIGEST_INVALID"},
		// Manifests.
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/v1", body: m, header: typ, status: 201, has: []string{"Location: /v2/conf/app/manifests/v1", "Docker-Content-Digest: " + md}},
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/" + md, body: m, header: typ, status: 201, has: []string{"Location: /v2/conf/app/manifests/" + md}},
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/" + none, body: m, header: typ, status: 400, code: "DIGEST_INVALID"},
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/v2", body: "{", header: typ, status: 400, code: "MANIFEST_INVALID"},
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/v2", body: image("{}", nil, "not pushed"), header: typ, status: 404, code: "MANIFEST_BLOB_UNKNOWN"},
		step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/v2", body: strings.Repeat(" ", repo.MaxManifest+1), header: typ, status: 413, code: "SIZE_INVALID"},
		step{end: "end-7b", method: "PUT", path: "/v2/conf/app/manifests/" + md + "?tag=v2&tag=V3", body: m, header: typ, status: 201, has: []string{"OCI-Tag: v2", "Docker-Content-Digest: " + md}},
		step{end: "end-7b", method: "PUT", path: "/v2/conf/app/manifests/v4?tag=v5", body: m, header: typ, status: 400, code: "TAG_INVALID"},
		step{end: "end-3", method: "HEAD", path: "/v2/conf/app/manifests/V3", status: 200, has: []string{"Docker-Content-Digest: " + md}},
	)
}

func conformChunks(c *conformance) {
	d := confDigest(confOther)
	c.walk(
		step{end: "end-4a", method: "POST", path: "/v2/conf/app/blobs/uploads/", header: []string{"Content-Length", "0"}, status: 202},
		// The second chunk first.
		step{end: "end-5", method: "PATCH", path: "@", body: confOther[4:], header: []string{"Content-Range", fmt.Sprintf("4-%d", len(confOther)-1)}, status: 416, code: "RANGE_INVALID", has: []string{"Range: 0-0"}},
		step{end: "end-5", method: "PATCH", path: "@", body: confOther[:4], header: []string{"Content-Range", "0-3"}, status: 202, has: []string{"Location", "Range: 0-3"}},
		// The first one again.
		step{end: "end-5", method: "PATCH", path: "@", body: confOther[:4], header: []string{"Content-Range", "0-3"}, status: 416, has: []string{"Range: 0-3"}},
		step{end: "end-5", method: "PATCH", path: "@", body: confOther[4:6], header: []string{"Content-Range", "4-9"}, status: 400, code: "SIZE_INVALID"},
		step{end: "end-13", method: "GET", path: "@", status: 204, has: []string{"Location", "Range: 0-3", "Docker-Upload-UUID"}},
		step{end: "end-5", method: "PATCH", path: "@", body: confOther[4:8], header: []string{"Content-Range", "4-7"}, status: 202, has: []string{"Range: 0-7"}},
		step{end: "end-6", method: "PUT", path: "@?digest=" + d, body: confOther[8:], header: []string{"Content-Range", "0-3"}, status: 416},
		step{end: "end-6", method: "PUT", path: "@?digest=" + d, body: confOther[8:], header: []string{"Content-Range", fmt.Sprintf("8-%d", len(confOther)-1)}, status: 201, has: []string{"Location: /v2/conf/app/blobs/" + d}},
		step{end: "end-2", method: "GET", path: "@", status: 200, is: confOther},
		// A stream, ended by an empty PUT.
		step{end: "end-4a", method: "POST", path: "/v2/conf/app/blobs/uploads/", status: 202},
		step{end: "end-5", method: "PATCH", path: "@", body: confOther, status: 202, has: []string{fmt.Sprintf("Range: 0-%d", len(confOther)-1)}},
		step{end: "end-6", method: "PUT", path: "@?digest=" + d, status: 201},
		// Cancelled.
		step{end: "end-4a", method: "POST", path: "/v2/conf/app/blobs/uploads/", status: 202},
		step{end: "end-14", method: "DELETE", path: "@", status: 204},
		step{end: "end-14", method: "DELETE", path: "@", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		step{end: "end-13", method: "GET", path: "@", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		step{end: "end-5", method: "PATCH", path: "@", body: "x", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
	)
}

func conformPull(c *conformance) {
	d, none := confDigest(confBlob), confDigest("none")
	m := image("{}", nil, confBlob)
	md := confDigest(m)
	blob := "/v2/conf/app/blobs/" + d
	c.walk(
		step{end: "end-2", method: "HEAD", path: blob, status: 200, has: []string{fmt.Sprintf("Content-Length: %d", len(confBlob)), "Docker-Content-Digest: " + d, "Accept-Ranges: bytes"}},
		step{end: "end-2", method: "GET", path: blob, status: 200, is: confBlob, has: []string{"Content-Type: application/octet-stream"}},
		step{end: "end-2", method: "GET", path: blob, header: []string{"Range", "bytes=0-4"}, status: 206, is: confBlob[:5], has: []string{fmt.Sprintf("Content-Range: bytes 0-4/%d", len(confBlob)), "Content-Length: 5"}},
		step{end: "end-2", method: "GET", path: blob, header: []string{"Range", "bytes=-3"}, status: 206, is: confBlob[len(confBlob)-3:]},
		step{end: "end-2", method: "GET", path: blob, header: []string{"Range", "bytes=7-"}, status: 206, is: confBlob[7:]},
		step{end: "end-2", method: "GET", path: blob, header: []string{"Range", fmt.Sprintf("bytes=%d-", len(confBlob))}, status: 416, has: []string{fmt.Sprintf("Content-Range: bytes */%d", len(confBlob))}},
		step{end: "end-2", method: "GET", path: blob, header: []string{"If-None-Match", `"` + d + `"`}, status: 304},
		step{end: "end-2", method: "GET", path: "/v2/conf/app/blobs/" + none, status: 404, code: "BLOB_UNKNOWN", has: []string{"!Docker-Content-Digest"}},
		step{end: "end-2", method: "HEAD", path: "/v2/conf/app/blobs/" + none, status: 404},
		step{end: "end-2", method: "GET", path: "/v2/conf/app/blobs/sha256:0", status: 400, code: "DIGEST_INVALID"},
		step{end: "end-3", method: "GET", path: "/v2/conf/app/manifests/v1", header: []string{"Accept", ociManifest}, status: 200, is: m, has: []string{"Content-Type: " + ociManifest, "Docker-Content-Digest: " + md}},
		step{end: "end-3", method: "GET", path: "/v2/conf/app/manifests/" + md, status: 200, is: m},
		step{end: "end-3", method: "HEAD", path: "/v2/conf/app/manifests/v1", status: 200, has: []string{fmt.Sprintf("Content-Length: %d", len(m)), "Docker-Content-Digest: " + md, "Content-Type: " + ociManifest}},
		step{end: "end-3", method: "GET", path: "/v2/conf/app/manifests/v1", header: []string{"If-None-Match", `"` + md + `"`}, status: 304},
		step{end: "end-3", method: "GET", path: "/v2/conf/app/manifests/none", status: 404, code: "MANIFEST_UNKNOWN"},
		step{end: "end-3", method: "HEAD", path: "/v2/conf/app/manifests/" + none, status: 404},
		step{end: "end-3", method: "GET", path: "/v2/none/app/manifests/v1", status: 404, code: "MANIFEST_UNKNOWN"},
		step{end: "end-3", method: "GET", path: "/v2/conf/app/manifests/sha1:0", status: 400, code: "DIGEST_INVALID"},
	)
}

func conformDiscovery(c *conformance) {
	m := image("{}", nil, confBlob)
	md := confDigest(m)
	tags := "/v2/conf/app/tags/list"
	c.walk(
		step{end: "end-8a", method: "GET", path: tags, status: 200, is: `{"name":"conf/app","tags":["V3","v1","v2"]}`, has: []string{"Content-Type: application/json; charset=utf-8", "!Link"}},
		step{end: "end-8b", method: "GET", path: tags + "?n=2", status: 200, is: `{"name":"conf/app","tags":["V3","v1"]}`, has: []string{"Link: <" + tags + `?last=v1&n=2>; rel="next"`}},
		step{end: "end-8b", method: "GET", path: tags + "?last=v1&n=2", status: 200, is: `{"name":"conf/app","tags":["v2"]}`, has: []string{"!Link"}},
		step{end: "end-8b", method: "GET", path: tags + "?last=a&n=0", status: 200, is: `{"name":"conf/app","tags":[]}`},
		step{end: "end-8b", method: "GET", path: tags + "?last=u", status: 200, is: `{"name":"conf/app","tags":["v1","v2"]}`},
		step{end: "end-8b", method: "GET", path: tags + "?n=x", status: 400, code: "PAGINATION_NUMBER_INVALID"},
		step{end: "end-8a", method: "GET", path: "/v2/none/app/tags/list", status: 404, code: "NAME_UNKNOWN"},
		step{end: "end-8a", method: "DELETE", path: tags, status: 405, code: "UNSUPPORTED", has: []string{"Allow: GET"}},
		step{end: "catalog", method: "GET", path: "/v2/_catalog", status: 200, is: `{"repositories":["conf/app","conf/b","conf/c"]}`},
		step{end: "catalog", method: "GET", path: "/v2/_catalog?n=2", status: 200, is: `{"repositories":["conf/app","conf/b"]}`, has: []string{`Link: </v2/_catalog?last=conf%2Fb&n=2>; rel="next"`}},
		step{end: "catalog", method: "GET", path: "/v2/_catalog?n=2&last=conf/b", status: 200, is: `{"repositories":["conf/c"]}`, has: []string{"!Link"}},
		step{end: "catalog", method: "GET", path: "/v2/_catalog?n=-2", status: 400, code: "PAGINATION_NUMBER_INVALID"},
	)
	ref := "/v2/conf/app/referrers/"
	empty := `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[]}`
	c.walk(
		step{end: "end-12a", method: "GET", path: ref + confDigest("never pushed"), status: 200, is: empty, has: []string{"Content-Type: " + ociIndex, "!OCI-Filters-Applied"}},
		step{end: "end-12a", method: "GET", path: ref + "latest", status: 400, code: "DIGEST_INVALID"},
	)
	subject := map[string]any{"mediaType": ociManifest, "digest": md, "size": len(m)}
	for _, typ := range []string{"test/sbom", "test/signature"} {
		a := image("{}", map[string]any{"subject": subject, "artifactType": typ})
		c.walk(step{end: "end-7a", method: "PUT", path: "/v2/conf/app/manifests/" + confDigest(a), body: a, header: []string{"Content-Type", ociManifest}, status: 201, has: []string{"OCI-Subject: " + md}})
	}
	c.walk(
		step{end: "end-12b", method: "GET", path: ref + md + "?artifactType=test/sbom", status: 200, has: []string{"OCI-Filters-Applied: artifactType", "Content-Type: " + ociIndex}},
		step{end: "end-12b", method: "GET", path: ref + md + "?artifactType=test/none", status: 200, is: empty, has: []string{"OCI-Filters-Applied: artifactType"}},
	)
	for query, n := range map[string]int{"": 2, "?artifactType=test/sbom": 1} {
		var x struct {
			Manifests []struct{ ArtifactType, Digest string }
		}
		if r := c.do("GET", ref+md+query, ""); json.Unmarshal([]byte(r.body), &x) != nil || len(x.Manifests) != n {
			c.t.Errorf("referrers%s: %s", query, r.body)
		}
	}
}

func conformManagement(c *conformance) {
	d, md := confDigest(confBlob), confDigest(image("{}", nil, confBlob))
	at := "/v2/conf/app/"
	c.walk(
		step{end: "end-9", method: "DELETE", path: at + "manifests/V3", status: 202},
		step{end: "end-3", method: "GET", path: at + "manifests/V3", status: 404, code: "MANIFEST_UNKNOWN"},
		step{end: "end-3", method: "GET", path: at + "manifests/v1", status: 200},
		step{end: "end-9", method: "DELETE", path: at + "manifests/V3", status: 404, code: "MANIFEST_UNKNOWN"},
		step{end: "end-9", method: "DELETE", path: at + "manifests/sha256:0", status: 400, code: "DIGEST_INVALID"},
		step{end: "end-9", method: "DELETE", path: at + "manifests/" + md, status: 202},
		step{end: "end-3", method: "GET", path: at + "manifests/" + md, status: 404},
		step{end: "end-3", method: "GET", path: at + "manifests/v1", status: 404},
		step{end: "end-8a", method: "GET", path: at + "tags/list", status: 200, is: `{"name":"conf/app","tags":[]}`},
		step{end: "end-10", method: "DELETE", path: at + "blobs/" + d, status: 202},
		step{end: "end-2", method: "GET", path: at + "blobs/" + d, status: 404, code: "BLOB_UNKNOWN"},
		step{end: "end-10", method: "DELETE", path: at + "blobs/" + d, status: 404, code: "BLOB_UNKNOWN"},
		step{end: "end-10", method: "DELETE", path: at + "blobs/sha256:0", status: 400, code: "DIGEST_INVALID"},
		step{end: "end-2", method: "GET", path: "/v2/conf/b/blobs/" + d, status: 200, is: confBlob},
	)
}
