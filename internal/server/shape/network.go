package shape

import "gantry/internal/wire"

// Networks forms the answer of a network list, the same at every version: the
// containers and the state of a network are left to inspect.
func Networks(list []wire.NetworkInspect) []wire.NetworkSummary {
	out := make([]wire.NetworkSummary, len(list)) // [] and never null
	for i, n := range list {
		out[i].Network = n.Network
	}
	return out
}

// Network forms the answer of a network inspect.
func Network(n wire.NetworkInspect, v int) wire.NetworkInspect {
	if v < 1052 {
		n.Status = nil
	}
	return n
}
