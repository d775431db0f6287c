package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// escape percent-encodes all but the characters that the signature leaves alone,
// and the slashes of a path.
func escape(s string, path bool) string {
	const hexes = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~", c) >= 0 || path && c == '/' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hexes[c>>4], hexes[c&15]})
	}
	return b.String()
}

// canonicalQuery writes a query as it is signed and sent.
func canonicalQuery(q url.Values) string {
	var list []string
	for k, vs := range q {
		for _, v := range vs {
			list = append(list, escape(k, false)+"="+escape(v, false))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "&")
}

// sign adds the headers of signature version 4 to a request whose URL has a
// canonical path and query. sum is the digest of its body, in hex.
func sign(req *http.Request, o Options, sum string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	day := stamp[:8]
	req.Header.Set("X-Amz-Date", stamp)
	req.Header.Set("X-Amz-Content-Sha256", sum)
	names := []string{"host"}
	values := map[string]string{"host": req.URL.Host}
	for k, v := range req.Header {
		k = strings.ToLower(k)
		if strings.HasPrefix(k, "x-amz-") || k == "range" || k == "if-match" {
			names = append(names, k)
			values[k] = strings.TrimSpace(v[0])
		}
	}
	slices.Sort(names)
	var head strings.Builder
	for _, n := range names {
		head.WriteString(n + ":" + values[n] + "\n")
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{req.Method, req.URL.EscapedPath(), req.URL.RawQuery, head.String(), signed, sum}, "\n")
	digest := sha256.Sum256([]byte(canonical))
	scope := day + "/" + o.Region + "/s3/aws4_request"
	text := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(digest[:])
	key := []byte("AWS4" + o.SecretKey)
	for _, part := range []string{day, o.Region, "s3", "aws4_request", text} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+o.AccessKey+"/"+scope+",SignedHeaders="+signed+",Signature="+hex.EncodeToString(key))
}
