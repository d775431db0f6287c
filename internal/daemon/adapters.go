package daemon

import (
	"context"

	"gantry/internal/network"
	"gantry/internal/server"
	"gantry/internal/volume"
)

// The adapters here turn one package's words into another's, where two that
// must not know each other meet. They decide nothing.

// volumeAPI are the volumes as the API wants them.
type volumeAPI struct{ *volume.Volumes }

// Remove removes a volume.
func (v volumeAPI) Remove(ctx context.Context, name string, o server.VolumeRemove) error {
	return v.Volumes.Remove(ctx, name, volume.RemoveOptions(o))
}

// launchNetworks are the networks as a launch wants them.
type launchNetworks struct{ *network.Networks }

// Sandbox returns a container's sandbox; false if it has none.
func (n launchNetworks) Sandbox(id string) (*network.Sandbox, bool) {
	s, err := n.Networks.Sandbox(context.Background(), id)
	return s, err == nil
}

// Files renders the files that name hosts.
func (n launchNetworks) Files(s *network.Sandbox, f network.HostFiles) (hosts, resolv []byte, err error) {
	return n.Networks.HostFiles(context.Background(), s, f)
}
