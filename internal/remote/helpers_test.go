package remote_test

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/image"
	"gantry/internal/layer"
	"gantry/internal/remote"
	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
	"gantry/internal/wire"
)

// A host is a machine with images and a client.
type host struct {
	t      *testing.T
	dir    string
	store  *content.Store
	images *image.Images
	client *remote.Client
	config remote.Config
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("layers are unpacked as root")
		}
		t.Skip("layers are unpacked as root")
	}
	h := &host{t: t, dir: t.TempDir()}
	h.open()
	t.Cleanup(func() {
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) open() {
	h.t.Helper()
	s, err := content.Open(h.t.Context(), content.Options{Root: h.dir, Limits: layer.Limits{RatioFrom: 64 << 20, Ratio: 200}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.store, h.images = s, image.New(image.Options{Content: s})
	h.client = remote.New(remote.Options{Content: s, Names: h.images, Config: func() remote.Config { return h.config }, Agent: "test", Log: slog.New(slog.DiscardHandler)})
}

// reopen is a restart of the daemon.
func (h *host) reopen() {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

// A told is what a client was told, for later.
type told struct {
	mu   sync.Mutex
	list []wire.Progress
}

func (t *told) tell(m wire.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, m)
}

// text is the messages without their numbers, each once.
func (t *told) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	last := ""
	for _, m := range t.list {
		line := strings.TrimPrefix(m.ID+": "+m.Status, ": ")
		if m.Aux != nil {
			line = string(*m.Aux)
		}
		if line != last {
			b.WriteString(line + "\n")
		}
		last = line
	}
	return b.String()
}

func (h *host) pullCtx(ctx context.Context, name string, o remote.PullOptions) (string, error) {
	n, err := remote.ParseName(name, "")
	if err != nil {
		h.t.Fatal(err)
	}
	o.Name = n
	var out told
	err = h.client.Pull(ctx, o, out.tell)
	return out.text(), err
}

func (h *host) pull(name string) (string, error) {
	return h.pullCtx(h.t.Context(), name, remote.PullOptions{})
}

func (h *host) mustPull(name string) string {
	h.t.Helper()
	out, err := h.pull(name)
	if err != nil {
		h.t.Fatalf("pull %s: %v\n%s", name, err, out)
	}
	return out
}

func (h *host) push(name string, o remote.PushOptions) (string, error) {
	n, err := remote.ParseName(name, "")
	if err != nil {
		h.t.Fatal(err)
	}
	o.Name = n
	var out told
	err = h.client.Push(h.t.Context(), o, out.tell)
	return out.text(), err
}

// file reads a file of an image's uppermost layer that has it.
func (h *host) file(name, path string) string {
	h.t.Helper()
	return h.fileFor(name, path, nil)
}

func (h *host) fileFor(name, path string, p *ocispec.Platform) string {
	h.t.Helper()
	img, err := h.images.Resolve(h.t.Context(), name, p)
	if err != nil {
		h.t.Fatal(err)
	}
	dirs, err := h.images.Lower(h.t.Context(), img)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range dirs {
		if data, err := os.ReadFile(d + "/" + path); err == nil {
			return string(data)
		}
	}
	h.t.Fatalf("%s has no %s", name, path)
	return ""
}

// small is an image of two layers.
func small(text string) registry.Image {
	return registry.Image{Layers: [][]byte{
		testkit.Layer(testkit.File{Name: "base", Data: []byte("base")}),
		testkit.Layer(testkit.File{Name: "text", Data: []byte(text)}),
	}}
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}
