package shim

import (
	"context"

	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

func (c *client) Mounts(ctx context.Context) (map[string]string, error) {
	r, err := c.call(ctx, protocol.OpMounts, target(""))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for range r.U32() {
		at := r.String()
		if at == "" { // it ends early, which Done reports
			break
		}
		out[at] = r.String()
	}
	return out, r.Done()
}

func (c *client) Mount(ctx context.Context, tag string, m *job.Mount) error {
	wire := m.Encode()
	b := protocol.AppendString(target(""), tag)
	return c.do(ctx, protocol.OpMount, append(protocol.AppendU32(b, uint32(len(wire))), wire...))
}

func (c *client) Unmount(ctx context.Context, mountPoint string) error {
	return c.do(ctx, protocol.OpUnmount, protocol.AppendString(target(""), mountPoint))
}

func (c *client) Checkpoint(ctx context.Context, p Checkpoint) error {
	return c.do(ctx, protocol.OpCheckpoint, p.Append(target("")))
}
