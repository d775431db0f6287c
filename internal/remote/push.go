package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// PushOptions says what to push.
type PushOptions struct {
	Name     reference.Named   // without a tag: all tags of the repository
	Platform *ocispec.Platform // only this one of an image for several
	Auth     apiwire.RegistryAuth
}

// Push sends an image to the registry of its name. tell gets Docker's messages
// of the way there.
func (c *Client) Push(ctx context.Context, o PushOptions, tell func(apiwire.Progress)) error {
	t := newTeller(tell)
	defer t.close()
	t.say("", "The push refers to repository ["+o.Name.Name()+"]")
	tags, err := c.Names.Tags(ctx, o.Name.Name())
	if err != nil {
		return err
	}
	var list []string
	if tagged, ok := o.Name.(reference.Tagged); ok {
		if _, ok := tags[tagged.Tag()]; !ok {
			return errs.New(errs.NotFound, "tag does not exist: %s", reference.FamiliarString(o.Name))
		}
		list = []string{tagged.Tag()}
	} else {
		for tag := range tags {
			list = append(list, tag)
		}
		slices.Sort(list)
		if len(list) == 0 {
			return errs.New(errs.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(o.Name))
		}
	}
	for _, tag := range list {
		n, err := reference.WithTag(reference.TrimNamed(o.Name), tag)
		if err != nil {
			return errs.With(errs.Invalid, err)
		}
		if err := c.pushOne(ctx, n, tags[tag], o, t); err != nil {
			return err
		}
	}
	return nil
}

// A parcel is what one push sends: blobs first, then manifests, each before
// those that name it.
type parcel struct {
	target    ocispec.Descriptor
	layers    []ocispec.Descriptor
	configs   []ocispec.Descriptor
	manifests []ocispec.Descriptor // target is the last
	missing   bool                 // something that target leads to is not here
}

func (c *Client) pushOne(ctx context.Context, name reference.NamedTagged, target ocispec.Descriptor, o PushOptions, t *teller) error {
	held, release, err := c.Content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := c.Content.Keep(held, target.Digest); err != nil {
		return err
	}
	send, err := c.choose(held, name, target, o.Platform)
	if err != nil {
		return err
	}
	s, err := c.open(name, o.Auth)
	if err != nil {
		return err
	}
	defer s.close()
	w, h := s.registry()
	w.base.ResponseHeaderTimeout = storeTime
	p := &push{session: s, t: t, tracker: docker.NewInMemoryTracker()}
	ref := name.String() + "@" + send.target.Digest.String()
	if p.pusher, err = resolver([]docker.RegistryHost{h}, p.tracker).Pusher(held, ref); err != nil {
		return err
	}
	if err := p.run(held, send); err != nil {
		return pushError(name, err)
	}
	t.say("", fmt.Sprintf("%s: digest: %s size: %d", name.Tag(), send.target.Digest, send.target.Size))
	t.aux(struct {
		Tag    string
		Digest string
		Size   int64
	}{name.Tag(), send.target.Digest.String(), send.target.Size})
	if send.target.Digest != target.Digest && o.Platform == nil {
		t.aux(apiwire.PushedInstead{ManifestPushedInsteadOfIndex: true, OriginalIndex: target, SelectedManifest: send.target})
	}
	if err := c.intake.AddOrigin(held, target.Digest, originOf(name)); err != nil {
		c.Log.Warn("where an image went was not noted", "image", name.String(), "err", err)
	}
	c.Names.Moved("push", name.String())
	return nil
}

// choose decides what a push of target sends: all of it, or, if a platform is
// asked for or not all of it is here, one manifest.
func (c *Client) choose(ctx context.Context, name reference.Named, target ocispec.Descriptor, want *ocispec.Platform) (parcel, error) {
	var all parcel
	err := c.collect(ctx, target, 0, &all)
	if err != nil {
		return all, err
	}
	all.target = target
	if !image.IsIndex(target.MediaType) {
		if all.missing {
			return all, errs.New(errs.Corrupt, "content of %s is missing: pull or load it again", reference.FamiliarString(name))
		}
		return all, nil
	}
	if want == nil && !all.missing {
		return all, nil
	}
	here := []ocispec.Descriptor{}
	for _, m := range all.manifests {
		if !image.IsManifest(m.MediaType) {
			continue
		}
		var one parcel
		if err := c.collect(ctx, m, 0, &one); err == nil && !one.missing {
			here = append(here, m)
		}
	}
	i, ok := image.Best(here, want)
	if !ok && want == nil {
		i, ok = 0, len(here) == 1
	}
	if !ok {
		return all, errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", reference.FamiliarString(name), image.FormatPlatform(want))
	}
	one := parcel{target: plain(here[i])}
	return one, c.collect(ctx, one.target, 0, &one)
}

// plain is a descriptor without what an index says of it besides.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// collect adds what d leads to, and d, to p.
func (c *Client) collect(ctx context.Context, d ocispec.Descriptor, depth int, p *parcel) error {
	if depth > image.MaxDepth {
		return errs.New(errs.Invalid, "index %s leads to indexes more than %d times", d.Digest, image.MaxDepth)
	}
	data, err := c.Content.Read(ctx, d, image.MaxManifest)
	if errs.Is(err, errs.NotFound) {
		p.missing = true
		return nil
	} else if err != nil {
		return err
	}
	body, err := image.ReadContents(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, m := range body.Manifests {
		if err := c.collect(ctx, m, depth+1, p); err != nil {
			return err
		}
	}
	if body.Config != nil {
		p.configs = c.add(ctx, p, p.configs, *body.Config)
		for _, l := range body.Layers {
			p.layers = c.add(ctx, p, p.layers, l)
		}
	}
	if !slices.ContainsFunc(p.manifests, func(m ocispec.Descriptor) bool { return m.Digest == d.Digest }) {
		p.manifests = append(p.manifests, d)
	}
	return nil
}

func (c *Client) add(ctx context.Context, p *parcel, list []ocispec.Descriptor, d ocispec.Descriptor) []ocispec.Descriptor {
	if slices.ContainsFunc(list, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }) {
		return list
	}
	if _, err := c.Content.Info(ctx, d.Digest); err != nil {
		p.missing = true
	}
	return append(list, plain(d))
}

// A push is one image on its way out.
type push struct {
	*session
	t       *teller
	tracker docker.StatusTracker
	pusher  remotes.Pusher
}

// run sends layers beside each other, then configurations, then manifests.
func (p *push) run(ctx context.Context, send parcel) error {
	for _, l := range send.layers {
		p.t.step(short(l.Digest), "Waiting", apiwire.ProgressDetail{})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, p.cfg.Uploads)
	var wg sync.WaitGroup
	for _, l := range send.layers {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-slots }()
			if err := p.blob(ctx, l, short(l.Digest)); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, d := range slices.Concat(send.configs, send.manifests) {
		if err := p.blob(ctx, plain(d), ""); err != nil {
			return err
		}
	}
	return nil
}

// blob sends one blob or manifest, and tells of it under id if that is not empty.
func (p *push) blob(ctx context.Context, d ocispec.Descriptor, id string) error {
	wait := backoff
	for attempt := 1; ; attempt++ {
		status, err := p.send(ctx, d, id)
		if err == nil {
			if id != "" {
				p.t.step(id, status, apiwire.ProgressDetail{})
			}
			if id == "" {
				return nil
			}
			return p.c.intake.AddSource(ctx, d.Digest, hostName(reference.Domain(p.name)), reference.Path(p.name))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if attempt >= p.cfg.Attempts || !again(err) {
			return err
		}
		p.c.Log.Debug("push failed, another try follows", "blob", d.Digest, "err", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// again reports whether to try once more may help: the connection was cut, or
// the registry is not well.
func again(err error) bool {
	if s := statusOf(err); s != 0 {
		return s >= 500 || s == 408 || s == 429
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled) || isReset(err) || isTimeout(err)
}

// send makes one attempt, and returns what became of it.
func (p *push) send(ctx context.Context, d ocispec.Descriptor, id string) (status string, err error) {
	host := reference.Domain(p.name)
	if !image.IsManifest(d.MediaType) && !image.IsIndex(d.MediaType) {
		if d.Annotations, err = p.c.intake.Sources(ctx, d.Digest); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w, err := p.pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		st, serr := p.tracker.GetStatus(remotes.MakeRefKey(ctx, d))
		if from := st.MountedFrom; serr == nil && from != "" {
			return "Mounted from " + trimHost(from, host), nil
		}
		return "Layer already exists", nil
	} else if err != nil {
		return "", err
	}
	defer w.Close()
	ra, err := p.c.Content.Blobs().ReaderAt(content.Namespaced(ctx), ocispec.Descriptor{Digest: d.Digest})
	if err != nil {
		return "", err
	}
	defer ra.Close()
	r := &countedReader{SectionReader: io.NewSectionReader(ra, 0, ra.Size())}
	if id != "" {
		defer every(ctx, tick, func() {
			p.t.step(id, "Pushing", apiwire.ProgressDetail{Current: r.n.Load(), Total: d.Size})
		})()
	}
	defer watchPush(ctx, p.cfg.Stall, cancel, r, d.Size)()
	if err := blobs.Copy(ctx, w, r, d.Size, d.Digest); err != nil {
		return "", stalledOr(ctx, err)
	}
	return "Pushed", nil
}

// watchPush ends a push that does not get on. When all is sent, the registry has
// the time of the transport to answer.
func watchPush(ctx context.Context, window time.Duration, cancel context.CancelCauseFunc, r *countedReader, size int64) (stop func()) {
	last := int64(-1)
	return every(ctx, window, func() {
		now := r.n.Load()
		if now == last && now < size {
			cancel(errStalled)
		}
		last = now
	})
}

// countedReader counts how far it was read.
type countedReader struct {
	*io.SectionReader
	n atomic.Int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func (r *countedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.SectionReader.Seek(offset, whence)
	r.n.Store(at)
	return at, err
}
