package solve

import (
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"sync"

	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gantry/internal/wire"
)

// offer offers local directories to the daemon: as BuildKit's clients do, to any
// daemon, and by their checksums to one that asks for them.
type offer struct {
	filesync.UnimplementedFileSyncServer
	dirs map[string]fsutil.FS

	mu   sync.Mutex
	told map[string]told // by what was asked, as JSON
}

// told is what the daemon was told of a directory.
type told struct {
	list listing // to be sent
	sum  string
	sent bool
}

// newOffer offers dirs.
func newOffer(dirs map[string]fsutil.FS) *offer {
	return &offer{dirs: maps.Clone(dirs), told: map[string]told{}}
}

// Register is session.Attachable's.
func (o *offer) Register(s *grpc.Server) {
	filesync.RegisterFileSyncServer(s, o)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: wire.ContextService, HandlerType: (*summed)(nil),
		Methods: []grpc.MethodDesc{method("Sum", wire.ContextSum, summed.sum), method("Sent", wire.ContextSent, summed.lastSent)},
	}, o)
}

// summed answers for wire.ContextService.
type summed interface {
	sum(context.Context, string) string
	lastSent(context.Context, string) string
}

// method is one of that service.
func method(name, full string, f func(summed, context.Context, string) string) grpc.MethodDesc {
	answer := func(srv any) grpc.UnaryHandler {
		return func(ctx context.Context, in any) (any, error) {
			return &filesync.BytesMessage{Data: []byte(f(srv.(summed), ctx, string(in.(*filesync.BytesMessage).Data)))}, nil
		}
	}
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, between grpc.UnaryServerInterceptor) (any, error) {
		in := new(filesync.BytesMessage)
		if err := decode(in); err != nil {
			return nil, err
		}
		if between == nil {
			return answer(srv)(ctx, in)
		}
		return between(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, answer(srv))
	}}
}

// sum answers wire.ContextSum. What a listing can't have, sending finds out and says.
func (o *offer) sum(ctx context.Context, asked string) string {
	var ask wire.ContextAsk
	if json.Unmarshal([]byte(asked), &ask) != nil {
		return ""
	}
	d, ok := o.dirs[ask.Name].(*localDir)
	if !ok {
		return ""
	}
	list, err := d.list(ctx, filter(ask))
	if err != nil {
		return ""
	}
	t := told{list: list, sum: list.sum()}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told[key(ask)] = t
	return t.sum
}

// lastSent answers wire.ContextSent.
func (o *offer) lastSent(_ context.Context, asked string) string {
	var ask wire.ContextAsk
	if json.Unmarshal([]byte(asked), &ask) != nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.told[key(ask)]; t.sent {
		return t.sum
	}
	return ""
}

// DiffCopy sends what the daemon wants of a directory.
func (o *offer) DiffCopy(stream filesync.FileSync_DiffCopyServer) error {
	ask := requested(stream.Context())
	dir, ok := o.dirs[ask.Name]
	if !ok {
		return status.Errorf(codes.NotFound, "no access allowed to dir %q", ask.Name)
	}
	opt := filter(ask)
	src, err := fsutil.NewFilterFS(rooted{dir}, &opt)
	if err != nil {
		return err
	}
	o.mu.Lock()
	t := o.told[key(ask)]
	delete(o.told, key(ask))
	o.mu.Unlock()
	if t.list != nil {
		src = listed{t.list, src}
	}
	if err := fsutil.Send(stream.Context(), stream, src, nil); err != nil {
		return err
	}
	if t.list != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.told[key(ask)] = told{sum: t.sum, sent: true}
	}
	return nil
}

// key tells one question from another.
func key(ask wire.ContextAsk) string {
	b, _ := json.Marshal(ask) // of strings: never fails
	return string(b)
}

func filter(ask wire.ContextAsk) fsutil.FilterOpt {
	return fsutil.FilterOpt{IncludePatterns: ask.Include, ExcludePatterns: ask.Exclude, FollowPaths: ask.Follow}
}

// requested reads the question from the headers of a call. Source: BuildKit,
// session/filesync/filesync.go.
func requested(ctx context.Context) wire.ContextAsk {
	head, _ := metadata.FromIncomingContext(ctx) // none: nothing is asked for
	values := func(key string) []string {
		list := slices.Clone(head.Get(key))
		if on := head.Get(key + "-encoded"); len(on) > 0 && isTrue(on[0]) {
			for i, v := range list {
				list[i], _ = url.QueryUnescape(v)
			}
		}
		return list
	}
	ask := wire.ContextAsk{Include: values("include-patterns"), Exclude: values("exclude-patterns"), Follow: values("followpaths")}
	if name := values("dir-name"); len(name) > 0 {
		ask.Name = name[0]
	}
	return ask
}

// rooted is a directory all of whose files belong to root.
type rooted struct{ fsutil.FS }

// Walk is FS's.
func (r rooted) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return r.FS.Walk(ctx, target, func(p string, e fs.DirEntry, err error) error {
		if e != nil {
			e = rootedEntry{e}
		}
		return fn(p, e, err)
	})
}

type rootedEntry struct{ fs.DirEntry }

// Info is DirEntry's.
func (e rootedEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	if s, ok := fi.Sys().(*types.Stat); ok {
		s.Uid, s.Gid = 0, 0
	}
	return fi, nil
}
