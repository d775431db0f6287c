package config

import (
	"strings"
	"testing"
)

// TestStorageDriverNames: names that Docker has or had mean a driver of ours, or say
// what to use instead.
func TestStorageDriverNames(t *testing.T) {
	for name, want := range map[string]string{"": "", "overlay2": "overlayfs", "overlay": "overlayfs", "overlayfs": "overlayfs", "native": "vfs", "vfs": "vfs", "btrfs": "btrfs", "erofs": "erofs"} {
		if got, err := StorageDriver(name); err != nil || got != want {
			t.Errorf("%q means %q, %v", name, got, err)
		}
		c, _, err := Load([]string{"--config-file", "", "--storage-driver", name})
		if err != nil || c.StorageDriver != want {
			t.Errorf("--storage-driver %q: %v", name, err)
		}
	}
	for name, why := range map[string]string{
		"aufs":         "storage driver aufs is not supported: no kernel has it any more. Use overlayfs, the default; to take images along, save them with the old daemon and load them here",
		"devicemapper": "storage driver devicemapper is not supported: Docker has removed it. Use overlayfs, the default",
		"zfs":          "overlayfs works on zfs since version 2.2 of that. Use overlayfs",
		"floppy":       `there is no storage driver "floppy"; known are btrfs, erofs, native, overlay, overlay2, overlayfs, vfs`,
	} {
		if _, _, err := Load([]string{"--config-file", "", "--storage-driver", name}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("--storage-driver %s: %v", name, err)
		}
	}
}
