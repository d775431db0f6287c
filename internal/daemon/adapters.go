package daemon

import (
	"context"
	"os"
	"path/filepath"

	"gantry/internal/network"
	"gantry/internal/server"
	"gantry/internal/shim"
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

// shimKeeper has containers' shims hold files; it is the directory of their
// directories.
type shimKeeper string

// Keep gives the shim of a container files to hold.
func (k shimKeeper) Keep(ctx context.Context, container string, files []*os.File) error {
	return shim.Keep(ctx, filepath.Join(string(k), container), files)
}

// Kept returns what the shim of a container holds.
func (k shimKeeper) Kept(ctx context.Context, container string) ([]*os.File, error) {
	return shim.Kept(ctx, filepath.Join(string(k), container))
}
