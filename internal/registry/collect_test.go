package registry_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry"
	"gantry/internal/registry/repo"
)

// stored returns the bytes of all blobs in a directory of a local registry.
func stored(t *testing.T, dir string) (n int64) {
	err := filepath.WalkDir(filepath.Join(dir, "objects", "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			n += fi.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Clients push, retag, delete and push the same layers again while garbage is
// collected without any grace: a push may be told that a blob has gone and then
// sends it again, but what was answered with 201 is there, with all that it needs.
func TestCollectWhilePushing(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, func(_ *registry.Options, o *repo.Options) { o.Grace = 0 })
	end := time.Now().Add(4 * time.Second)
	var wg, gc sync.WaitGroup
	stop := make(chan struct{})
	runs := 0
	gc.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.store.Collect(t.Context(), repo.CollectOptions{Untagged: true}); err != nil {
				t.Errorf("collect: %v", err)
			}
			runs++
		}
	})
	var pushed, again int
	var mu sync.Mutex
	for c := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 1))
			for i := 0; time.Now().Before(end); i++ {
				name := fmt.Sprint("team/app", r.IntN(2)) // shared with others
				layers := []string{fmt.Sprint("layer", r.IntN(6)), fmt.Sprint("own", c, r.IntN(3))}
				m := image("{}", nil, layers...)
				d := digest.FromString(m).String()
				tag := fmt.Sprint("c", c)
				for {
					for _, b := range append(layers, "{}") {
						if s.do("HEAD", "/v2/"+name+"/blobs/"+digest.FromString(b).String(), "").status != 200 {
							s.blob(name, b)
						}
					}
					p := s.do("PUT", "/v2/"+name+"/manifests/"+tag, m, "Content-Type", ociManifest)
					if p.status == 201 {
						break
					}
					if p.status != 404 || !strings.Contains(p.body, "MANIFEST_BLOB_UNKNOWN") {
						t.Errorf("push: %d %s", p.status, p.body)
						return
					}
					mu.Lock()
					again++
					mu.Unlock()
				}
				// The tag is this client's alone: it and all of it must be there.
				if g := s.want(200, "", "GET", "/v2/"+name+"/manifests/"+tag, ""); digest.FromString(g.body).String() != d {
					t.Errorf("the tag means another manifest")
				}
				for _, b := range append(layers, "{}") {
					if g := s.want(200, "", "GET", "/v2/"+name+"/blobs/"+digest.FromString(b).String(), ""); g.body != b {
						t.Errorf("blob %q is %q", b, g.body)
					}
				}
				if r.IntN(3) == 0 {
					s.want(202, "", "DELETE", "/v2/"+name+"/manifests/"+tag, "")
				}
				mu.Lock()
				pushed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(stop)
	gc.Wait()
	if pushed < 20 || runs < 5 {
		t.Errorf("%d pushes and %d collections are no test", pushed, runs)
	}
	t.Logf("%d pushes, %d of them sent a blob again, %d collections", pushed, again, runs)
	// All space comes back.
	for n := range 2 {
		for c := range 4 {
			s.do("DELETE", fmt.Sprintf("/v2/team/app%d/manifests/c%d", n, c), "")
		}
	}
	for range 2 {
		if _, err := s.store.Collect(t.Context(), repo.CollectOptions{Untagged: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n := stored(t, dir); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	if r := s.want(200, "", "GET", "/v2/_catalog", ""); r.body != `{"repositories":[]}` {
		t.Errorf("%s", r.body)
	}
}

func TestCollectKeeps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		d := s.push("x", "v1", "layer")
		m := image("{}", map[string]any{"subject": map[string]any{"mediaType": ociManifest, "digest": d, "size": 1}}, "layer")
		s.want(201, "", "PUT", "/v2/x/manifests/"+digest.FromString(m).String(), m, "Content-Type", ociManifest)
		s.blob("x", "young")
		young := digest.FromString("young").String()
		if _, err := s.store.Collect(t.Context(), repo.CollectOptions{Untagged: true}); err != nil {
			t.Fatal(err)
		}
		s.want(200, "", "GET", "/v2/x/blobs/"+young, "")
		s.store.Grace = 0
		time.Sleep(1100 * time.Millisecond) // S3 tells whole seconds
		got, err := s.store.Collect(t.Context(), repo.CollectOptions{Untagged: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.Blobs != 1 || got.Bytes != 5 || got.Links != 1 || got.Manifests != 0 {
			t.Errorf("%+v", got)
		}
		s.want(404, "", "GET", "/v2/x/blobs/"+young, "")
		if r := s.want(200, "", "GET", "/v2/x/referrers/"+d, ""); strings.Count(r.body, "artifactType") != 1 {
			t.Errorf("%s", r.body)
		}
		s.want(202, "", "DELETE", "/v2/x/manifests/v1", "")
		for range 2 {
			if _, err := s.store.Collect(t.Context(), repo.CollectOptions{Untagged: true}); err != nil {
				t.Fatal(err)
			}
		}
		s.want(404, "", "GET", "/v2/x/manifests/"+d, "")
		if list, err := s.store.Catalog(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%q, %v", list, err)
		}
	})
}
