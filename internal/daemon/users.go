package daemon

import (
	"os"
	"path/filepath"

	"gantry/internal/config"
	"gantry/internal/userns"
)

// remaps says whether the configuration has containers run in user namespaces.
func remaps(c *config.Config) bool { return c.UsernsRemap != "" && c.UsernsRemap != "host" }

// userNamespaces gives out user namespaces as the configuration wants. It is
// read once: what runs can't change its ids.
func userNamespaces(c *config.Config) (*userns.Namespaces, error) {
	m, err := userns.Remap(c.UsernsRemap, userns.HostFiles())
	if err != nil {
		return nil, err
	}
	runs := func(id string) bool {
		_, err := os.Lstat(filepath.Join(c.Run, "c", id))
		return err == nil
	}
	return userns.NewNamespaces(m, filepath.Join(c.Run, "userns"), runs), nil
}
