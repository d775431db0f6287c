package solve

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/moby/buildkit/client"

	api "gantry/internal/client"
)

// Dialer makes connections of the API that became another protocol.
type Dialer interface {
	Upgrade(ctx context.Context, proto string, r api.Request) (*api.Conn, error)
}

// Connect returns BuildKit's client over the daemon's API. Nothing is dialled
// before the first call.
func Connect(ctx context.Context, d Dialer) (*client.Client, error) {
	return client.New(ctx, "",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return upgrade(ctx, d, "/grpc", "h2c", nil)
		}),
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			conn, err := upgrade(ctx, d, "/session", proto, meta)
			if err != nil {
				return nil, err
			}
			return gather(conn), nil
		}))
}

func upgrade(ctx context.Context, d Dialer, path, proto string, meta http.Header) (net.Conn, error) {
	conn, err := d.Upgrade(ctx, proto, api.Request{Method: http.MethodPost, Path: path, Header: meta})
	if err != nil {
		return nil, err // not conn: a nil pointer is no nil interface
	}
	return conn, nil
}

// gatewayLabel is the worker's label with the address of host-gateway.
const gatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

func hostGateway(ctx context.Context, c *client.Client) (string, error) {
	workers, err := c.ListWorkers(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range workers {
		if ip := w.Labels[gatewayLabel]; ip != "" {
			return ip, nil
		}
	}
	return "", errors.New("host-gateway IP not found")
}
