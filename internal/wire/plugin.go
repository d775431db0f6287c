package wire

import "github.com/moby/moby/api/types/plugin"

// Plugins that are installed as images.
type (
	Plugin          = plugin.Plugin
	PluginConfig    = plugin.Config
	PluginSettings  = plugin.Settings
	PluginMount     = plugin.Mount
	PluginDevice    = plugin.Device
	PluginEnv       = plugin.Env
	PluginType      = plugin.CapabilityID
	PluginRootFS    = plugin.RootFS
	PluginPrivilege = plugin.Privilege
)
