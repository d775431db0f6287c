package registry

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

//go:embed browse.html
var browsePage string

//go:embed browse.css
var browseStyle []byte

// view is what a page shows.
type view struct {
	Title        string
	Repositories []string
	Repository   string
	Tags         []tagRow
	Manifest     *manifestView
	Next         string // address of the next page
}

type tagRow struct{ Name, Digest, Type, Size string }

type manifestView struct {
	Digest, Type string
	Size         string
	Entries      []entry
	Referrers    []entry
	Text         string
}

// entry is a line about a blob or manifest.
type entry struct {
	What, Digest, Size, Platform string
	Manifest                     bool
}

// browsePolicy lets a page load nothing but its style from here.
const browsePolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// browse shows repositories, the tags of one, or a manifest, to who may pull
// them: /browse/, /browse/r/<name>, /browse/m/<name>@<digest>.
func (s *pages) browse(r *request) error {
	h := r.w.Header()
	h.Set("Content-Security-Policy", browsePolicy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	path := strings.TrimPrefix(r.URL.Path, "/browse")
	switch {
	case r.URL.Path == "/" || path == "":
		h.Set("Location", "/browse/")
		return r.w.empty(http.StatusFound)
	case path == "/style.css":
		h.Set("Content-Type", "text/css; charset=utf-8")
		r.w.WriteHeader(http.StatusOK)
		_, _ = r.w.Write(browseStyle) // a client that is gone does not read of it
		return nil
	}
	var v *view
	var err error
	if rest, ok := strings.CutPrefix(path, "/r/"); ok {
		v, err = s.viewRepository(r, rest)
	} else if rest, ok := strings.CutPrefix(path, "/m/"); ok {
		v, err = s.viewManifest(r, rest)
	} else if path == "/" {
		v, err = s.viewAll(r)
	} else {
		err = notFound(r)
	}
	if err != nil {
		return err
	}
	t, err := template.New("browse").Parse(browsePage)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	r.w.WriteHeader(http.StatusOK)
	_, _ = r.w.Write(b.Bytes()) // a client that is gone does not read of it
	return nil
}

// pageRows is how many lines a page has.
const pageRows = 200

func (s *pages) viewAll(r *request) (*view, error) {
	if err := s.need(r, "", auth.Catalog); err != nil {
		return nil, err
	}
	list, err := s.Store.Catalog(r.Context())
	if err == nil {
		list, err = s.visible(r, list)
	}
	if err != nil {
		return nil, err
	}
	page, more := repo.Page(list, r.URL.Query().Get("last"), pageRows)
	v := &view{Title: "Repositories", Repositories: page}
	if more {
		v.Next = "/browse/?last=" + url.QueryEscape(page[len(page)-1])
	}
	return v, nil
}

func (s *pages) viewRepository(r *request, name string) (*view, error) {
	if err := repo.CheckName(name); err != nil {
		return nil, err
	}
	if err := s.need(r, name, auth.Pull); err != nil {
		return nil, err
	}
	tags, err := s.Store.Tags(r.Context(), name)
	if err != nil {
		return nil, err
	}
	page, more := repo.Page(tags, r.URL.Query().Get("last"), pageRows)
	v := &view{Title: name, Repository: name}
	for _, tag := range page {
		t, err := s.Store.TagOf(r.Context(), name, tag)
		if errs.Is(err, errs.NotFound) { // deleted meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		row := tagRow{Name: tag, Digest: t.Digest.String(), Type: t.MediaType}
		switch n, err := s.size(r, name, row.Digest, indexDepth); {
		case err == nil:
			row.Size = human(n)
		case !errs.Is(err, errs.NotFound):
			return nil, err
		}
		v.Tags = append(v.Tags, row)
	}
	if more {
		v.Next = "/browse/r/" + name + "?last=" + url.QueryEscape(page[len(page)-1])
	}
	return v, nil
}

// Limits of what is read to tell how large an image is: indexes within indexes,
// and their entries.
const (
	indexDepth = 1
	indexSum   = 32
)

// size returns what an image says that it has, in bytes: configuration and
// layers, of all platforms that are here.
func (s *pages) size(r *request, name, ref string, depth int) (n int64, err error) {
	c, err := s.Store.Manifest(r.Context(), name, ref)
	if err != nil {
		return 0, err
	}
	m, err := repo.ParseManifest(c.Data, c.MediaType)
	if err != nil {
		return 0, err
	}
	for _, b := range m.Blobs() {
		n += b.Size
	}
	for i, x := range m.Manifests {
		if depth == 0 || i == indexSum {
			break
		}
		more, err := s.size(r, name, x.Digest.String(), depth-1)
		if err != nil && !errs.Is(err, errs.NotFound) {
			return 0, err
		}
		n += more
	}
	return n, nil
}

func (s *pages) viewManifest(r *request, rest string) (*view, error) {
	name, ref, _ := strings.Cut(rest, "@")
	if err := repo.CheckName(name); err != nil {
		return nil, err
	}
	if err := s.need(r, name, auth.Pull); err != nil {
		return nil, err
	}
	d, err := repo.ParseDigest(ref)
	if err != nil {
		return nil, err
	}
	c, err := s.Store.Manifest(r.Context(), name, d.String())
	if err != nil {
		return nil, err
	}
	m, err := repo.ParseManifest(c.Data, c.MediaType)
	if err != nil {
		return nil, err
	}
	referrers, err := s.Store.Referrers(r.Context(), name, d)
	if err != nil {
		return nil, err
	}
	out := &manifestView{Digest: d.String(), Type: m.MediaType, Size: human(int64(len(c.Data)))}
	if m.Config != nil {
		out.Entries = append(out.Entries, entryOf("config", *m.Config))
	}
	for _, l := range m.Layers {
		out.Entries = append(out.Entries, entryOf("layer", l))
	}
	for _, x := range m.Manifests {
		e := entryOf("manifest", x)
		e.Manifest = true
		out.Entries = append(out.Entries, e)
	}
	for _, x := range referrers {
		e := entryOf(x.ArtifactType, x)
		e.Manifest = true
		out.Referrers = append(out.Referrers, e)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, c.Data, "", "  "); err != nil {
		return nil, err
	}
	out.Text = pretty.String()
	return &view{Title: name + "@" + d.Encoded()[:12], Repository: name, Manifest: out}, nil
}

func entryOf(what string, d ocispec.Descriptor) entry {
	e := entry{What: what, Digest: d.Digest.String(), Size: human(d.Size)}
	if p := d.Platform; p != nil {
		e.Platform = strings.Trim(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
	}
	return e
}

// human writes a size as people read it.
func human(n int64) string {
	v, unit := float64(n), 0
	units := [...]string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for v >= 1000 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[unit])
}
