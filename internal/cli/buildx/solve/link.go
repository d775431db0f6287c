package solve

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// Link is the result of a build as a context of another one. It can be used
// while the build that made it has not ended.
type Link struct {
	states map[string]llb.State // by platform; "" if there is one result for all
	config map[string][]byte
}

// Nothing is the result of a build that makes no files.
func Nothing() *Link {
	return &Link{states: map[string]llb.State{"": empty()}, config: map[string][]byte{}}
}

// empty has no files. It is no scratch: a definition of nothing is refused as an input.
func empty() llb.State {
	return llb.Scratch().File(llb.Mkdir("/", 0o755, llb.WithParents(true)), llb.WithCustomName("[internal] no files"))
}

func newLink(out *gateway.Result) (*Link, error) {
	l := &Link{states: map[string]llb.State{}, config: map[string][]byte{}}
	add := func(platform, key string, ref gateway.Reference) error {
		st := empty()
		if ref != nil {
			var err error
			if st, err = ref.ToState(); err != nil {
				return err
			}
		}
		l.states[platform], l.config[platform] = st, out.Metadata[key]
		return nil
	}
	if len(out.Refs) == 0 {
		return l, add("", exptypes.ExporterImageConfigKey, out.Ref)
	}
	for platform, ref := range out.Refs {
		if err := add(platform, exptypes.ExporterImageConfigKey+"/"+platform, ref); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// linked sets a named context to the result of another build.
func (b *builder) linked(name string, l *Link) error {
	for platform, st := range l.states {
		key := name
		if platform != "" {
			key += "::" + platform
		}
		if b.so.FrontendInputs == nil {
			b.so.FrontendInputs = map[string]llb.State{}
		}
		b.so.FrontendInputs[key] = st
		b.so.FrontendAttrs["context:"+key] = "input:" + key
		if c := l.config[platform]; len(c) > 0 {
			meta, err := json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: c})
			if err != nil {
				return err
			}
			b.so.FrontendAttrs["input-metadata:"+key] = string(meta)
		}
	}
	return nil
}

// request is what the gateway is asked for: the same as a plain solve asks.
func (b *builder) request(ctx context.Context, frontend string) (gateway.SolveRequest, error) {
	r := gateway.SolveRequest{Frontend: frontend, FrontendOpt: b.so.FrontendAttrs, FrontendInputs: map[string]*pb.Definition{}}
	for _, e := range b.so.CacheImports {
		r.CacheImports = append(r.CacheImports, gateway.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	for k, st := range b.so.FrontendInputs {
		def, err := st.Marshal(ctx)
		if err != nil {
			return r, err
		}
		r.FrontendInputs[k] = def.ToPB()
	}
	return r, nil
}

// share builds, and hands the result to other builds before it ends.
func (b *builder) share(ctx context.Context, c *client.Client, res Result, ch chan *client.SolveStatus) (Result, error) {
	out, err := c.Build(ctx, b.so, "gantry", func(ctx context.Context, gw gateway.Client) (*gateway.Result, error) {
		r, err := b.request(ctx, b.so.Frontend)
		if err != nil {
			return nil, err
		}
		out, err := gw.Solve(ctx, r)
		if err != nil {
			return nil, err
		}
		l, err := newLink(out)
		if err != nil {
			return nil, fmt.Errorf("failed to link the result: %w", err)
		}
		return out, b.env.Share(ctx, l)
	}, ch)
	if err != nil {
		return res, err
	}
	res.Response = out.ExporterResponse
	return res, nil
}
