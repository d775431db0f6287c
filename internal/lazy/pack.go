package lazy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// packChunk is into how large parts Pack divides files, in bytes: what a read
// fetches at least.
const packChunk = 1 << 20

// Packed reports whether a manifest says that a layer can be shown before it is
// here.
func Packed(d ocispec.Descriptor) bool {
	return digest.Digest(d.Annotations[TOCAnnotation]).Validate() == nil && strings.HasSuffix(d.MediaType, "gzip")
}

// Pack packs a plain tar with gzip so that Packed layers come of it. It returns the
// digest of what the gzip unpacks to, which is not in, and the annotations that the
// layer needs. errs.Invalid if in is packed.
func Pack(w io.Writer, in io.Reader) (diffID digest.Digest, annotations map[string]string, err error) {
	tar := bufio.NewReaderSize(in, 64<<10)
	// A first file of such a name would be taken for a packed tar.
	if head, err := tar.Peek(2); err == nil && bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return "", nil, errs.New(errs.Invalid, "the layer is packed twice")
	}
	z := estargz.NewWriterLevel(w, gzip.DefaultCompression)
	z.ChunkSize = packChunk
	if err := z.AppendTar(tar); err != nil {
		return "", nil, err
	}
	// What comes behind the end of the tar counts for its limits alone.
	if _, err := io.Copy(io.Discard, tar); err != nil {
		return "", nil, err
	}
	toc, err := z.Close()
	if err != nil {
		return "", nil, err
	}
	return digest.Digest(z.DiffID()), map[string]string{TOCAnnotation: toc.String()}, nil
}
