package build

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"gantry/internal/errs"
)

// newServer returns the gRPC services of BuildKit: Control, the gateway of
// frontends, the content of the build history, traces, and health.
func newServer(c *control.Controller) *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)
	c.Register(s)
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

// Services are the gRPC services that ServeHTTP answers for.
func Services() []string {
	return []string{
		"moby.buildkit.v1.Control", "moby.buildkit.v1.frontend.LLBBridge", "containerd.services.content.v1.Content",
		"opentelemetry.proto.collector.trace.v1.TraceService", "grpc.health.v1.Health",
	}
}

// ServeHTTP answers a gRPC call that came over HTTP/2.
func (b *Builder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := b.open(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	e.server.ServeHTTP(w, r)
}

// ServeGRPC answers gRPC calls on a connection until it ends, or ctx does.
func (b *Builder) ServeGRPC(ctx context.Context, conn net.Conn) error {
	e, err := b.open(ctx)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	only := newPipe()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler: e.server, Protocols: &protocols, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTime,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				only.Close()
			}
		},
	}
	go func() { only.conns <- conn }()
	if err := srv.Serve(only); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// headerTime is how long a client has to begin.
const headerTime = 30 * time.Second

// ServeSession lets a client be asked, over its connection, for what builds need
// of it: files, credentials, secrets. header names the session and what can be
// asked for. It returns when the session ends.
func (b *Builder) ServeSession(ctx context.Context, conn net.Conn, header http.Header) error {
	e, err := b.open(ctx)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return handleSession(ctx, e.sessions, conn, header)
}

// handleSession serves a session until its other side hangs up: the manager alone
// would find that out when it next asks how the session is, seconds later, and log
// an error about what is the usual end.
func handleSession(ctx context.Context, m *session.Manager, conn net.Conn, header http.Header) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return m.HandleConn(ctx, &hangUp{conn, cancel}, header)
}

// hangUp is a connection that tells when it can't be read any more.
type hangUp struct {
	net.Conn
	tell context.CancelFunc
}

// Read is Conn's.
func (h *hangUp) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		h.tell()
	}
	return n, err
}

// Client returns BuildKit's client of this builder: no socket is in between. It
// is the caller's to close.
func (b *Builder) Client(ctx context.Context) (*client.Client, error) {
	e, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	return client.New(ctx, "unix:///in-process", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return e.pipe.dial(ctx)
	}), client.WithSessionDialer(b.sessionDialer(e)))
}

// sessionDialer connects sessions of this process without the detour over gRPC.
func (b *Builder) sessionDialer(e *engine) session.Dialer {
	return func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _ = handleSession(context.WithoutCancel(ctx), e.sessions, theirs, meta) }()
		return ours, nil
	}
}

// pipe is a listener whose connections are made in this process.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipe) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, errs.New(errs.Unavailable, "the builder is closed")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept waits for a connection.
func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr is no address that could be dialled.
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "in-process", Net: "unix"} }
