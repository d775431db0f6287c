package daemon

import (
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/system"

	"gantry/internal/cdi"
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

// cdiDirs are the directories of CDI specifications, none if CDI is switched off.
func cdiDirs(c *config.Config) []string {
	if on, said := c.Features["cdi"]; said && !on {
		return []string{}
	}
	if len(c.CDISpecDirs) > 0 {
		return c.CDISpecDirs
	}
	return cdi.DefaultDirs()
}

// discovered lists the devices that vendors have described, for /info.
func discovered(c *config.Config) []system.DeviceInfo {
	var out []system.DeviceInfo
	for _, name := range cdi.Read(cdiDirs(c)).Names() {
		out = append(out, system.DeviceInfo{Source: "cdi", ID: name})
	}
	return out
}
