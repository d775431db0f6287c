package solve

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
)

// layout offers an image of an OCI layout directory: path[:tag][@digest].
func (b *builder) layout(name, ref string) error {
	dir, tag, dgst := splitLayout(ref)
	if dgst == "" {
		idx := ociindex.NewStoreIndex(dir)
		desc, err := idx.Get(tag)
		if err == nil && desc == nil {
			desc, err = idx.GetSingle()
		}
		if err != nil {
			return fmt.Errorf("oci-layout reference %q could not be resolved: %w", "oci-layout://"+ref, err)
		}
		if desc == nil {
			return fmt.Errorf("oci-layout reference %q could not be resolved: failed to resolve digest", "oci-layout://"+ref)
		}
		dgst = desc.Digest.String()
	}
	if _, err := digest.Parse(dgst); err != nil {
		return fmt.Errorf("invalid digest %s: %w", dgst, err)
	}
	store, err := local.NewStore(dir)
	if err != nil {
		return fmt.Errorf("invalid store at %s: %w", dir, err)
	}
	id := identity.NewID()
	if b.so.OCIStores == nil {
		b.so.OCIStores = map[string]content.Store{}
	}
	b.so.OCIStores[id] = store
	out := "oci-layout://" + id
	if tag != "" {
		out += ":" + tag
	}
	b.so.FrontendAttrs["context:"+name] = out + "@" + dgst
	return nil
}

// splitLayout parts path[:tag][@digest]; the tag of none is latest.
func splitLayout(s string) (dir, tag, dgst string) {
	dir, dgst, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, filepath.Separator) {
		dir, tag = dir[:i], dir[i+1:]
	}
	if tag == "" && dgst == "" {
		tag = "latest"
	}
	return dir, tag, dgst
}
