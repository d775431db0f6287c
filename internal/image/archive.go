package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/layer"
)

// loader reads archives of images.
type loader struct{ *maker }

// archive is what an archive of images holds, after it has been read once from
// start to end: the small files that describe, and the rest as blobs.
type archive struct {
	texts map[string][]byte             // index.json, oci-layout, manifest.json
	blobs map[string]ocispec.Descriptor // by path in the archive
	links map[string]string             // path → path
	packs map[digest.Digest]layer.Compression
}

// Bounds of an archive.
const (
	maxText    = maxManifest
	maxMembers = 1_000_000
)

// readArchive takes the files of a tar, of any compression, into the store. ctx
// must be one of Hold.
func (s *loader) readArchive(ctx context.Context, r io.Reader) (*archive, error) {
	plain, _, err := layer.Decompress(r, s.store.Limits())
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &archive{texts: map[string][]byte{}, blobs: map[string]ocispec.Descriptor{}, links: map[string]string{}, packs: map[digest.Digest]layer.Compression{}}
	tr := tar.NewReader(plain)
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			// What follows is padding. A client that is still writing it
			// shall not see its connection break.
			_, _ = io.Copy(io.Discard, io.LimitReader(plain, 1<<20))
			return a, nil
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader):
			return nil, errs.With(errs.Invalid, err)
		case err != nil:
			return nil, err
		case n > maxMembers:
			return nil, errs.New(errs.Invalid, "archive has more than %d members", maxMembers)
		}
		if err := s.takeMember(ctx, a, hdr, tr); err != nil {
			return nil, fmt.Errorf("archive member %.200q: %w", hdr.Name, err)
		}
	}
}

// takeMember takes one file of an archive. Names are only keys: nothing is
// written under them.
func (s *loader) takeMember(ctx context.Context, a *archive, hdr *tar.Header, r io.Reader) error {
	name := memberName(hdr.Name)
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		a.links[name] = memberName(path.Join(path.Dir(name), hdr.Linkname))
		return nil
	case tar.TypeLink:
		a.links[name] = memberName(hdr.Linkname)
		return nil
	case tar.TypeReg, 0:
	default:
		return nil
	}
	switch {
	case name == ocispec.ImageIndexFile || name == ocispec.ImageLayoutFile || name == "manifest.json":
		if hdr.Size > maxText {
			return errs.New(errs.Invalid, "has %d bytes, more than %d", hdr.Size, maxText)
		}
		data, err := io.ReadAll(r)
		a.texts[name] = data
		return err
	case hdr.Size == 0, name == "repositories", path.Base(name) == "VERSION", path.Base(name) == "json":
		return nil // of formats before manifest.json
	}
	head := make([]byte, 64)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	d, err := s.store.Write(ctx, io.MultiReader(bytes.NewReader(head[:n]), r), blobDigest(name))
	if err != nil {
		return err
	}
	a.blobs[name], a.packs[d.Digest] = d, layer.Detect(head[:n])
	return nil
}

func memberName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// blobDigest returns the digest that a member of an OCI layout promises by its
// name, or none.
func blobDigest(name string) digest.Digest {
	rest, ok := strings.CutPrefix(name, "blobs/")
	algorithm, hex, ok2 := strings.Cut(rest, "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if !ok || !ok2 || d.Validate() != nil {
		return ""
	}
	return d
}

// maxHops is how many links a member may lead through.
const maxHops = 8

// blob returns the blob of a member, through links.
func (a *archive) blob(name string) (ocispec.Descriptor, error) {
	at := memberName(name)
	for range maxHops {
		if d, ok := a.blobs[at]; ok {
			return d, nil
		}
		next, ok := a.links[at]
		if !ok {
			break
		}
		at = next
	}
	return ocispec.Descriptor{}, errs.New(errs.Invalid, "archive has no %.200q", name)
}
