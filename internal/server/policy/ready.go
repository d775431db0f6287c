package policy

import (
	"maps"
	"slices"
)

// ready are the policies that need no file.
var ready = map[string]string{
	// Who looks and touches nothing: dashboards, monitoring.
	"read-only": `{"operations": ["@read"]}`,
	// What a reverse proxy needs to find its backends.
	"traefik": `{"operations": ["system.ping", "system.version", "system.info", "system.events",
		"container.list", "container.inspect", "network.list", "network.inspect",
		"service.list", "task.list", "node.list"]}`,
	// A runner of builds and tests that sees its own containers alone.
	"ci": `{
		"operations": ["system.ping", "system.version", "system.info", "system.events", "system.login",
			"container.*", "exec.*", "image.list", "image.inspect", "image.pull", "image.push", "image.tag", "image.distribution",
			"build.run", "build.cancel", "network.list", "network.inspect", "network.create",
			"volume.list", "volume.inspect", "volume.create"],
		"deny": ["container.prune", "container.update"],
		"labels": {"gantry.scope": "ci"},
		"create": {"memory": "4g", "cpus": 4, "pids": 4096}
	}`,
}

// Ready returns a ready policy; false if none has that name.
func Ready(name string) (data []byte, ok bool) {
	text, ok := ready[name]
	return []byte(text), ok
}

// ReadyNames lists the ready policies.
func ReadyNames() []string { return slices.Sorted(maps.Keys(ready)) }
