// Package classic is the Engine API's own way to build, POST /build: a tar of
// the context comes in, and the lines "Step 1/5 : FROM busybox" go out. It is
// what docker-py, the docker command line without its plugin, and many other
// clients speak.
//
// There is no second builder behind it. A request becomes one solve of the
// BuildKit controller, with a session made in this process that holds the
// context; a translator tells the solve's progress as the classic builder would
// tell its steps:
//
//	tar ─▶ tarFS ─▶ session ─▶ solve ─▶ vertices ─▶ translator ─▶ stream
//
// The daemon calls it with the server's requests. It writes one nameless file
// for each context, and nothing else. It must not know HTTP, nor how a vertex is
// carried out.
//
// Source of the texts: recordings of Docker Engine 29.
package classic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"

	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// Options is what a Builder works with.
type Options struct {
	// Connect returns a client of the controller, to be closed.
	Connect func(ctx context.Context) (*client.Client, error)
	// Begin makes a build known by its ID, to those who cancel builds.
	Begin func(ctx context.Context, id string) (_ context.Context, done func(), _ error)
	Dir   string // for contexts; it exists
	// Limits of what a compressed context may unpack to.
	Limits layer.Limits
	// Fetch opens what is at an http or https address.
	Fetch func(ctx context.Context, url string) (io.ReadCloser, error)
	// Network lets the steps of a build be on a network, a container's too, of
	// the daemon: entry goes into their hosts, until done is called.
	Network func(ctx context.Context, mode string) (entry string, done func(), err error)
	// Triggers are the ONBUILD instructions of an image that is here.
	Triggers func(ctx context.Context, id string) []string
	// Experimental allows Squash.
	Experimental bool
	// Squash makes an image of one that has no name, with a single layer above
	// those of base, gives it the names, and returns its id. base is an image's
	// id, empty for none.
	Squash func(ctx context.Context, id, base string, names []string) (string, error)
}

// A Builder serves classic builds. It is safe for concurrent use, and there is
// nothing to close.
type Builder struct {
	Options
	keys  keys
	known *memory
}

// New returns a Builder.
func New(o Options) *Builder { return &Builder{Options: o, known: newMemory()} }

// maxDockerfile is how large a Dockerfile may be, in bytes.
const maxDockerfile = 16 << 20

// Build reads a context, unless the request says where it is, and builds it.
// tell gets the lines of the answer, but for the error that ends it: *Failure
// if a step failed. Errors before the first line have the kinds of package errs.
func (b *Builder) Build(ctx context.Context, r wire.BuildRequest, body io.Reader, tell func(wire.BuildMessage) error) error {
	names, err := imageNames(r.Tags)
	if err != nil {
		return err
	}
	if r.Squash && !b.Experimental {
		return errs.New(errs.Invalid, "squash is only supported with experimental mode")
	}
	opts, err := attrs(&r)
	if err != nil {
		return err
	}
	ctx, done, err := b.Begin(ctx, r.ID)
	if err != nil {
		return err
	}
	defer done()
	j := &job{b: b, r: &r, attrs: opts, names: names, tell: tell}
	if r.BuildKit && r.Remote == clientSession {
		return j.trace(ctx)
	}
	if err := j.open(ctx, body); err != nil {
		return err
	}
	defer j.files.close()
	if r.BuildKit {
		if _, err := j.dockerfile(); err != nil {
			return err
		}
		return j.trace(ctx)
	}
	text, err := j.dockerfile()
	if err != nil {
		return err
	}
	s, err := parse(text, dialect{file: j.file, target: r.Target, args: r.Args, labels: r.Labels})
	if err != nil {
		return err
	}
	left, err := j.onNetwork(ctx)
	if err != nil {
		return err
	}
	defer left()
	return j.steps(ctx, s)
}

// imageNames completes the names that an image is to have.
func imageNames(tags []string) ([]string, error) {
	var list []string
	for _, t := range tags {
		if t == "" {
			continue
		}
		n, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, err
		}
		if _, ok := n.(reference.Digested); ok {
			return nil, errors.New("build tag cannot contain a digest")
		}
		list = append(list, reference.TagNameOnly(n).String())
	}
	return list, nil
}

// A job is one build.
type job struct {
	b     *Builder
	r     *wire.BuildRequest
	attrs map[string]string
	names []string // in full
	files *tarFS
	file  string // the Dockerfile's name
	tell  func(wire.BuildMessage) error
	gone  error // why the client can't be told any more
}

// open reads the context.
func (j *job) open(ctx context.Context, body io.Reader) error {
	if j.r.Remote != "" && j.r.Remote != clientSession {
		return j.fetch(ctx)
	}
	plain, _, err := layer.Decompress(body, j.b.Limits)
	if err != nil {
		return err
	}
	defer plain.Close()
	if j.files, err = spool(ctx, plain, j.b.Dir); err != nil {
		return err
	}
	// Clients show that they have sent everything when it has been read.
	if _, err := io.Copy(io.Discard, io.MultiReader(plain, body)); err != nil {
		return errors.Join(err, j.files.close())
	}
	return nil
}

// dockerfile returns the Dockerfile's text. One that is not named may be
// written small.
func (j *job) dockerfile() ([]byte, error) {
	name := j.r.Dockerfile
	if name == "" {
		name = "Dockerfile"
		if j.files.at(name) == nil && j.files.at("dockerfile") != nil {
			name = "dockerfile"
		}
	}
	if clean := inside(name); strings.HasPrefix(strings.TrimPrefix(name, "./"), "..") {
		return nil, fmt.Errorf("forbidden path outside the build context: %s (%s)", name, strings.TrimPrefix(clean, "x"))
	}
	text, err := j.files.file(name, maxDockerfile)
	if err != nil {
		return nil, fmt.Errorf("Cannot locate specified Dockerfile: %s", name)
	}
	j.file, j.attrs["filename"] = name, inside(name)
	return text, nil
}

// say tells a text.
func (j *job) say(text string) { j.send(wire.BuildMessage{Stream: text}) }

func (j *job) send(m wire.BuildMessage) {
	if j.gone == nil {
		j.gone = j.tell(m)
	}
}

// steps builds and tells of it in steps. A quiet one tells its steps only if it
// fails.
func (j *job) steps(ctx context.Context, s *script) error {
	var quiet []string
	say := j.say
	if j.r.Quiet {
		say = func(text string) { quiet = append(quiet, text) }
	}
	t := newTranslator(s, j.b.known, say)
	t.triggers = func(id string) []string { return j.b.Triggers(ctx, id) }
	t.keep, t.fresh, t.salt = j.r.KeepContainers, j.r.NoCache, j.attrs["platform"]
	if !nothing(s) {
		t.advance()
	}
	res, err := j.solve(ctx, t.status)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		f := failure(err, t.stop())
		for _, text := range quiet {
			j.say(text)
		}
		return f
	}
	id := res[imageDigest]
	if nothing(s) || id == "" {
		t.finish("")
		return errNothing
	}
	if j.r.Squash {
		if id, err = j.b.Squash(ctx, id, t.base(), j.names); err != nil {
			return err
		}
	}
	t.finish(id)
	if j.r.Quiet {
		j.say(id + "\n")
		return nil
	}
	j.done(id, s)
	return nil
}

// nothing says whether a Dockerfile makes no image: it takes no base and does
// nothing.
func nothing(s *script) bool {
	last := s.steps[len(s.steps)-1]
	return last.kind == fromScratch
}

// done tells the end of a build.
func (j *job) done(id string, s *script) {
	aux, err := json.Marshal(struct{ ID string }{id})
	if err == nil {
		j.send(wire.BuildMessage{Aux: aux})
	}
	if len(s.ignore) > 0 {
		j.say(fmt.Sprintf("[Warning] One or more build-args %v were not consumed\n", s.ignore))
	}
	j.say("Successfully built " + short(strings.TrimPrefix(id, "sha256:")) + "\n")
	for _, n := range j.names {
		if named, err := reference.ParseNormalizedNamed(n); err == nil {
			j.say("Successfully tagged " + reference.FamiliarString(named) + "\n")
		}
	}
}

// trace builds and tells of it as BuildKit does.
func (j *job) trace(ctx context.Context) error {
	res, err := j.solve(ctx, nil)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return errors.New(inFront.ReplaceAllString(err.Error(), ""))
	}
	if id := res[imageDigest]; id != "" {
		aux, err := json.Marshal(struct{ ID string }{id})
		if err != nil {
			return err
		}
		j.send(wire.BuildMessage{ID: "moby.image.id", Aux: aux})
	}
	return nil
}

// raw tells a piece of BuildKit's trace, which clients of BuildKit read.
func (j *job) raw(s *controlapi.StatusResponse) error {
	data, err := s.MarshalVT()
	if err != nil {
		return err
	}
	aux, err := json.Marshal(data)
	if err != nil {
		return err
	}
	j.send(wire.BuildMessage{ID: "moby.buildkit.trace", Aux: aux})
	return nil
}
