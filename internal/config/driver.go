package config

import (
	"fmt"
	"slices"
	"strings"
)

// storageDrivers are the drivers by all names that they have, or had in Docker and
// containerd.
var storageDrivers = map[string]string{
	"overlayfs": "overlayfs", "overlay2": "overlayfs", "overlay": "overlayfs", "": "",
	"vfs": "vfs", "native": "vfs", "btrfs": "btrfs", "erofs": "erofs",
}

// formerDrivers are those that Docker or containerd have or had, and what became
// of them.
var formerDrivers = map[string]string{
	"aufs":           "no kernel has it any more",
	"devicemapper":   "Docker has removed it",
	"devmapper":      "a pool of blocks for each container is slower than an overlay",
	"blockfile":      "a file with a file system for each container is slower than an overlay",
	"zfs":            "overlayfs works on zfs since version 2.2 of that",
	"fuse-overlayfs": "every kernel that Gantry runs on has overlayfs itself",
	"windowsfilter":  "it is for Windows",
	"lcow":           "it is for Windows",
	"stargz":         "images of that form are unpacked by any driver",
	"soci":           "images of that form are unpacked by any driver",
}

// StorageDriver returns the storage driver that a name means; empty for the
// default. The error of a former one says what to choose.
func StorageDriver(name string) (string, error) {
	if d, ok := storageDrivers[name]; ok {
		return d, nil
	}
	if why, ok := formerDrivers[name]; ok {
		return "", fmt.Errorf("storage driver %s is not supported: %s. Use overlayfs, the default; to take images along, save them with the old daemon and load them here", name, why)
	}
	known := []string{}
	for n := range storageDrivers {
		if n != "" {
			known = append(known, n)
		}
	}
	slices.Sort(known)
	return "", fmt.Errorf("there is no storage driver %q; known are %s", name, strings.Join(known, ", "))
}

// storageDriver reads the setting.
func storageDriver(c *Config, s string) (err error) {
	c.StorageDriver, err = StorageDriver(s)
	return err
}
