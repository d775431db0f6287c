package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/container"
	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/extension"
	"gantry/internal/image"
	"gantry/internal/lazy"
	"gantry/internal/plan"
	"gantry/internal/remote"
	"gantry/internal/wire"
)

// LazyName is the name by which gantryd is the process that shows an image; see
// package lazy.
const LazyName = "gantry-lazyfs"

// lazyPrefix is that of the pins of images that are being shown.
const lazyPrefix = "lazy-"

// lazyMemory is what the process keeps to if it can, in bytes.
const lazyMemory = 64 << 20

// lazyInput is what the process is told on its standard input, and nowhere else:
// credentials are among it.
type lazyInput struct {
	Name   string
	Auth   wire.RegistryAuth
	Config remote.Config
}

// ShowLazy is the process that shows an image whose directory is args[0].
func ShowLazy(ctx context.Context, args []string, stdin io.Reader, stdout io.WriteCloser) error {
	if len(args) != 1 {
		return errors.New("it is the daemon that runs this program by this name")
	}
	var in lazyInput
	if err := json.NewDecoder(stdin).Decode(&in); err != nil {
		return err
	}
	name, err := remote.ParseName(in.Name, "")
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(lazyMemory)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	client := remote.New(remote.Options{Config: func() remote.Config { return in.Config }, Agent: agent()})
	blobs, err := client.Blobs(name, in.Auth)
	if err != nil {
		return err
	}
	defer blobs.Close()
	return lazy.Serve(ctx, args[0], lazySource{blobs}, cmp.Or(in.Config.Downloads, 3), stdout)
}

// lazySource reads blobs from registries.
type lazySource struct{ blobs *remote.Blobs }

func (s lazySource) OpenBlob(ctx context.Context, l lazy.Layer, off, n int64) (io.ReadCloser, error) {
	return s.blobs.Open(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: l.Digest, Size: l.Size}, off, n)
}

// lazyMemo is what is remembered of an image that is shown.
type lazyMemo struct{ Target, Manifest, Config ocispec.Descriptor }

// lazyPulls pulls images by showing them first.
type lazyPulls struct {
	images *imageStore
	client *remote.Client
	config func() remote.Config
	always func() bool // not only who asks for it gets it
	log    *slog.Logger
	ctx    context.Context // of the daemon
	work   sync.WaitGroup
}

// A lazyPull is one that shows its image first.
type lazyPull struct {
	remote.PullOptions
	asked bool // for this one; why not is told
}

// pull shows an image; false if it is pulled faster, or at all, as a whole.
func (l *lazyPulls) pull(ctx context.Context, o lazyPull, tell func(wire.Progress)) (bool, error) {
	say := func(format string, args ...any) { tell(wire.Progress{Status: fmt.Sprintf(format, args...)}) }
	whole := func(why string) {
		if o.asked {
			say("Pulling as a whole: %s", why)
		}
	}
	o.Name = reference.TagNameOnly(o.Name)
	held, release, err := l.images.content.Hold(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	p, err := l.client.Plan(held, o.PullOptions)
	if err != nil {
		return false, err
	}
	if why := l.eager(ctx, p); why != "" {
		if why != "present" {
			whole(why)
		}
		return false, nil
	}
	job := lazy.Job{Name: o.Name.String(), Target: p.Target.Digest}
	if !o.asked {
		job.Eager = lazy.EagerTime
	}
	if d, ok := o.Name.(reference.Digested); ok {
		job.Name = reference.TrimNamed(o.Name).String() + "@" + d.Digest().String()
	}
	for _, d := range p.Layers {
		job.Layers = append(job.Layers, lazy.Layer{Digest: d.Digest, Size: d.Size, TOC: digest.Digest(d.Annotations[lazy.TOCAnnotation])})
	}
	if job.Memo, err = json.Marshal(lazyMemo{p.Target, p.Manifest, p.Config}); err != nil {
		return false, err
	}
	if err := l.images.content.Pin(ctx, lazyPrefix+job.Target.Encoded(), p.Target.Digest, p.Manifest.Digest, p.Config.Digest); err != nil {
		return false, err
	}
	if err := l.start(ctx, job, o.Auth); err != nil {
		whole(err.Error())
		return false, l.images.content.Unpin(context.WithoutCancel(ctx), lazyPrefix+job.Target.Encoded())
	}
	say("Digest: %s", p.Target.Digest)
	say("Status: Containers of %s can start; the rest is fetched in the background", reference.FamiliarString(o.Name))
	return true, nil
}

// eager says why an image is not shown; "present" if it is here.
func (l *lazyPulls) eager(ctx context.Context, p *remote.Plan) string {
	if _, ok := l.images.Find(ctx, p.Target.Digest.String()); ok {
		return "present"
	}
	if l.images.lazy == nil || l.images.content.Layout().Whole {
		return "the storage driver keeps whole trees"
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		return "the kernel has no FUSE (modprobe fuse)"
	} else {
		f.Close()
	}
	total := int64(0)
	for _, d := range p.Layers {
		if !lazy.Packed(d) {
			return "not every layer is in eStargz form"
		}
		if _, err := l.images.content.Info(ctx, d.Digest); err != nil {
			total += d.Size
		}
	}
	if total < lazy.EagerSize {
		return "that is faster"
	}
	return ""
}

// start has the process started, and the image completed when all of it is here.
func (l *lazyPulls) start(ctx context.Context, job lazy.Job, auth wire.RegistryAuth) error {
	in, err := json.Marshal(lazyInput{job.Name, auth, l.config()})
	if err != nil {
		return err
	}
	if err := l.images.lazy.Start(ctx, job, "/proc/self/exe", []string{LazyName}, in); err != nil {
		return err
	}
	l.follow(job)
	return nil
}

// takeAtOnce is how many layers are taken in beside each other.
const takeAtOnce = 2

// follow completes an image when all of it is here. Each layer is taken in and
// unpacked when it is here, so that little is left to do then.
func (l *lazyPulls) follow(job lazy.Job) {
	l.work.Go(func() {
		if err := l.gather(l.ctx, job); err != nil && l.ctx.Err() == nil {
			l.log.Warn("an image is not complete: pull it again", "image", job.Name, "error", err)
		}
	})
}

func (l *lazyPulls) gather(ctx context.Context, job lazy.Job) error {
	var memo lazyMemo
	if err := json.Unmarshal(job.Memo, &memo); err != nil {
		return err
	}
	held, release, err := l.images.content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	var early sync.WaitGroup
	slots := make(chan struct{}, takeAtOnce)
	err = l.images.lazy.Wait(held, job, func(n int) {
		early.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			// What is wrong with it, if something is, shows again when all is here.
			_ = l.stage(held, job, memo, n)
		})
	})
	early.Wait()
	if err != nil {
		return err
	}
	return l.complete(held, job, memo)
}

// stage takes in a layer and unpacks it ahead of its image.
func (l *lazyPulls) stage(ctx context.Context, job lazy.Job, memo lazyMemo, n int) error {
	store := l.images.content
	if err := take(ctx, store, l.images.lazy.Blob(job, n), job.Layers[n].Digest); err != nil {
		return err
	}
	ids, _, err := l.readConfig(ctx, memo)
	if err != nil {
		return err
	}
	if len(ids) != len(job.Layers) {
		return errs.New(errs.Invalid, "%d layers for %d", len(ids), len(job.Layers))
	}
	layers := make([]content.Layer, n+1)
	for i := range layers {
		layers[i] = content.Layer{Blob: ocispec.Descriptor{Digest: job.Layers[i].Digest, Size: job.Layers[i].Size}, DiffID: ids[i]}
	}
	return store.Stage(ctx, layers)
}

// complete makes an image like any other of what the process has fetched.
func (l *lazyPulls) complete(ctx context.Context, job lazy.Job, memo lazyMemo) error {
	store := l.images.content
	for n, layer := range job.Layers {
		if err := take(ctx, store, l.images.lazy.Blob(job, n), layer.Digest); err != nil {
			return err
		}
	}
	name, err := remote.ParseName(job.Name, "")
	if err != nil {
		return err
	}
	if err := l.client.Complete(ctx, remote.PullOptions{Name: name}, memo.Target); err != nil {
		return err
	}
	dirs, err := l.dirs(ctx, memo)
	if err != nil {
		return err
	}
	if err := l.images.lazy.Settle(job, dirs); err != nil {
		return err
	}
	return store.Unpin(ctx, lazyPrefix+job.Target.Encoded())
}

// take brings a file into the store.
func take(ctx context.Context, store *content.Store, path string, d digest.Digest) error {
	if _, err := store.Info(ctx, d); err == nil {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = store.Write(ctx, f, d)
	return err
}

// dirs returns the unpacked layers of an image, lowest first.
func (l *lazyPulls) dirs(ctx context.Context, memo lazyMemo) ([]string, error) {
	ids, _, err := l.readConfig(ctx, memo)
	if err != nil {
		return nil, err
	}
	layers := make([]content.Layer, len(ids))
	for i, id := range ids {
		layers[i].DiffID = id
	}
	var out []string
	for n := range layers {
		list, err := l.images.content.Dirs(ctx, content.Chain(layers, n+1))
		if err != nil {
			return nil, err
		}
		out = append(out, list[0])
	}
	return out, nil
}

func (l *lazyPulls) readConfig(ctx context.Context, memo lazyMemo) ([]digest.Digest, dockerspec.DockerOCIImage, error) {
	return readLazyConfig(ctx, l.images.content, memo)
}

func readLazyConfig(ctx context.Context, store *content.Store, memo lazyMemo) ([]digest.Digest, dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	data, err := store.Read(ctx, memo.Config, image.MaxConfig)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c.RootFS.DiffIDs, c, err
}

// lazily finds an image that is being shown; false if there is none.
func (s *imageStore) lazily(ctx context.Context, ref string) (*plan.Image, container.Image, bool, error) {
	if s.lazy == nil {
		return nil, container.Image{}, false, nil
	}
	full := ""
	if n, err := remote.ParseName(ref, ""); err == nil {
		full = reference.TagNameOnly(n).String()
	}
	job, ok := s.lazy.Find(func(j lazy.Job) bool { return j.Name == full || j.Target.String() == ref })
	if !ok {
		return nil, container.Image{}, false, nil
	}
	var memo lazyMemo
	if err := json.Unmarshal(job.Memo, &memo); err != nil {
		return nil, container.Image{}, true, err
	}
	_, c, err := readLazyConfig(ctx, s.content, memo)
	if err != nil {
		return nil, container.Image{}, true, err
	}
	id, m := memo.Target.Digest.String(), memo.Manifest
	m.Platform = &ocispec.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	return &plan.Image{Digest: id, Config: c.Config},
		container.Image{ID: id, Platform: c.OS, Manifest: &m, Lower: s.lazy.Lower(job), Driver: s.content.Layout().Driver}, true, nil
}

// Pinned returns the containers that images are pinned for.
func (s *imageStore) Pinned(ctx context.Context) ([]string, error) {
	list, err := s.Images.Pinned(ctx)
	var out []string
	for _, owner := range list {
		if !strings.HasPrefix(owner, lazyPrefix) && !extension.IsPin(owner) {
			out = append(out, owner)
		}
	}
	return out, err
}

// openLazy finds the images that are being shown, and goes on with them.
func openLazy(ctx context.Context, d *Daemon, dir string, images *imageStore, r registryAPI) (err error) {
	used := func(j lazy.Job) bool { return images.uses != nil && len(images.uses(j.Target.String())) > 0 }
	if images.lazy, err = lazy.Open(dir, used); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.lazy.ctx = ctx
	d.later("images being shown", func(context.Context) error {
		cancel()
		r.lazy.work.Wait()
		var all []error
		for _, j := range images.lazy.Jobs() {
			if !d.upgrading && !used(j) { // nobody would end it
				all = append(all, images.lazy.Remove(j))
			}
		}
		return errors.Join(all...)
	})
	pins, err := images.Images.Pinned(ctx)
	if err != nil {
		return err
	}
	for _, owner := range pins {
		hex, ok := strings.CutPrefix(owner, lazyPrefix)
		is := func(j lazy.Job) bool { return j.Target.Encoded() == hex }
		if _, found := images.lazy.Find(is); ok && !found && !containsJob(images.lazy.Dead(), is) {
			if err := images.content.Unpin(ctx, owner); err != nil {
				return err
			}
		}
	}
	for _, j := range images.lazy.Jobs() {
		r.lazy.follow(j)
	}
	for _, j := range images.lazy.Dead() {
		r.lazy.work.Go(func() {
			// Whoever may pull it without credentials gets it back.
			if err := r.lazy.start(r.lazy.ctx, j, wire.RegistryAuth{}); err != nil {
				d.log.Warn("containers of an image can't start: pull it again", "image", j.Name, "error", err)
			}
		})
	}
	return nil
}

func containsJob(list []lazy.Job, is func(lazy.Job) bool) bool {
	for _, j := range list {
		if is(j) {
			return true
		}
	}
	return false
}
