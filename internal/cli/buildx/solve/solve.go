// Package solve runs one build on the daemon with BuildKit's client: it turns a
// Request, which is plain values, into a session (files, credentials, secrets,
// ssh agents), the frontend's attributes and the exporters, shows the progress
// and gives back what the daemon answered. Packages buildx and bake call it. It
// writes only where the request's outputs say, and reads only the contexts,
// secrets and keys that the request names. It must not know flags or commands.
package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/tonistiigi/fsutil"

	"gantry/internal/cli/buildx/grammar"
)

// Request is one build.
type Request struct {
	Context    string // a directory, a URL, or - for standard input
	Dockerfile string // relative to the current directory; "" is Context/Dockerfile; - is standard input
	Inline     string // the Dockerfile itself, instead of Dockerfile

	Contexts      map[string]string // named contexts
	Links         map[string]*Link  // named contexts that are other builds' results
	Args, Labels  map[string]string
	Tags          []string
	Platforms     []string
	Hosts         []string // name:ip
	Allow         []string
	Annotations   []string
	Attests       []string
	Ulimits       []string
	NoCacheFilter []string
	CacheFrom     []grammar.Entry
	CacheTo       []grammar.Entry
	Outputs       []grammar.Entry
	Secrets       []grammar.Secret
	SSH           []grammar.SSH
	Resources     map[string]string // attributes of the frontend: memory, cpushares, …

	Target, Network, CgroupParent string
	ShmSize                       int64 // bytes
	NoCache, Pull, Push, Load     bool
	Call                          grammar.Call
}

// Env is what a build takes from around it.
type Env struct {
	In     io.Reader // for a context or Dockerfile of -
	Out    *os.File  // for an output of -
	Proxy  map[string]string
	Auth   Credentials
	Lookup func(string) (string, bool) // of the environment
	// Watch, if set, sees what is read of each local context.
	Watch func(name, dir string) Watcher
	// Share, if set, is given the result for other builds, which need it
	// until it returns.
	Share func(context.Context, *Link) error
}

// Result is what a build left.
type Result struct {
	Response map[string]string // the exporters' answers
	Call     map[string]string // the frontend's answer to a call
	// Source and Name are the Dockerfile as the user knows it and as the
	// frontend does.
	Source, Name string
}

// ID returns what identifies the image: of several digests, the one that the
// exporter names as the image's own.
func (r Result) ID() string {
	if d := r.Response["containerimage.config.digest"]; d != "" {
		return d
	}
	return r.Response["containerimage.digest"]
}

// Run builds r. Statuses go to ch, which is closed at the end. An error carries
// the places in the Dockerfile that it is about.
func Run(ctx context.Context, c *client.Client, r Request, env Env, ch chan *client.SolveStatus) (Result, error) {
	closed := false
	defer func() {
		if !closed {
			close(ch)
		}
	}()
	b := builder{req: r, env: env, so: client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}}}
	defer b.close()
	if err := b.prepare(ctx, c); err != nil {
		return Result{}, err
	}
	closed = true // the client closes it
	res := Result{Source: b.source, Name: b.so.FrontendAttrs["filename"]}
	if r.Call.Name != "" {
		return b.call(ctx, c, res, ch)
	}
	if env.Share != nil {
		res, err := b.share(ctx, c, res, ch)
		return res, errors.Join(err, b.endOutputs(err == nil))
	}
	out, err := c.Solve(ctx, nil, b.so, ch)
	if err != nil {
		return res, errors.Join(err, b.endOutputs(false))
	}
	res.Response = out.ExporterResponse
	return res, b.endOutputs(true)
}

// builder gathers the parts of one solve.
type builder struct {
	req    Request
	env    Env
	so     client.SolveOpt
	source string
	dirs   map[string]fsutil.FS // that the daemon may read
	closes []func() error
	outs   []*outFile
}

func (b *builder) close() {
	for _, f := range b.closes {
		_ = f() // roots and temporary files: nothing is lost
	}
}

func (b *builder) prepare(ctx context.Context, c *client.Client) error {
	attrs, err := Attributes(b.req, b.env, func() (string, error) { return hostGateway(ctx, c) })
	if err != nil {
		return err
	}
	b.so.FrontendAttrs = attrs
	if attrs["source"] != "" {
		b.so.Frontend = "gateway.v0"
	}
	allow, mayDelete, err := grammar.Entitlements(b.req.Allow)
	if err != nil {
		return err
	}
	b.so.AllowedEntitlements = allow
	if b.req.Network == "host" {
		b.so.AllowedEntitlements = append(b.so.AllowedEntitlements, "network.host")
	}
	for _, f := range []func() error{b.caches, func() error { return b.outputs(mayDelete) }, b.session, func() error { return b.inputs(ctx) }} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// checkCache refuses the types of cache that the daemon has not.
func checkCache(flag, kind string) error {
	switch kind {
	case "registry", "local":
		return nil
	case "inline":
		if flag == "--cache-to" {
			return nil
		}
		return fmt.Errorf("%s: an image with an inline cache is read as type=registry,ref=IMAGE", flag)
	}
	return fmt.Errorf("%s: cache type %s is not supported by this builder: use registry, local or inline", flag, kind)
}

// caches sets where the cache comes from and goes to.
func (b *builder) caches() error {
	for _, e := range b.req.CacheFrom {
		if err := checkCache("--cache-from", e.Type); err != nil {
			return err
		}
	}
	for _, e := range b.req.CacheTo {
		if err := checkCache("--cache-to", e.Type); err != nil {
			return err
		}
	}
	for _, e := range b.req.CacheFrom {
		b.so.CacheImports = append(b.so.CacheImports, client.CacheOptionsEntry{Type: e.Type, Attrs: maps.Clone(e.Attrs)})
	}
	for _, e := range b.req.CacheTo {
		b.so.CacheExports = append(b.so.CacheExports, client.CacheOptionsEntry{Type: e.Type, Attrs: maps.Clone(e.Attrs)})
	}
	if isTrue(b.req.Args["BUILDKIT_INLINE_CACHE"]) {
		b.so.CacheExports = append(b.so.CacheExports, client.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	return nil
}

// call asks the frontend a question.
func (b *builder) call(ctx context.Context, c *client.Client, res Result, ch chan *client.SolveStatus) (Result, error) {
	attrs := b.so.FrontendAttrs
	attrs["requestid"] = "frontend." + b.req.Call.Name
	caps := "moby.buildkit.frontend.subrequests+forward"
	if have := attrs["frontend.caps"]; have != "" {
		caps = have + "," + caps
	}
	attrs["frontend.caps"] = caps
	frontend := b.so.Frontend
	b.so.Internal = true
	ask := func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
		r, err := b.request(ctx, frontend)
		if err != nil {
			return nil, err
		}
		out, err := gw.Solve(ctx, r)
		if err != nil {
			return nil, err
		}
		res.Call = map[string]string{}
		for k, v := range out.Metadata {
			res.Call[k] = string(v)
		}
		return out, nil
	}
	out, err := c.Build(ctx, b.so, "gantry", ask, ch)
	if err != nil {
		return res, err
	}
	res.Response = out.ExporterResponse
	for k, v := range res.Response {
		if _, ok := res.Call[k]; !ok {
			res.Call[k] = v
		}
	}
	return res, nil
}
