package shape

import "gantry/internal/wire"

// Info forms the answer of info.
func Info(info wire.Info, v int) (any, error) {
	if v < 1048 {
		info.Containerd = nil
	}
	if v < 1049 {
		info.FirewallBackend = nil
	}
	if v < 1053 {
		info.NRI = nil
	}
	if v >= 1050 {
		return info, nil
	}
	o, err := toObject(info)
	if err != nil {
		return nil, err
	}
	o["BridgeNfIptables"], o["BridgeNfIp6tables"] = true, true
	if v < 1049 {
		for _, key := range []string{"ContainerdCommit", "RuncCommit", "InitCommit"} {
			if c := o.sub(key); c != nil {
				c["Expected"] = c["ID"]
			}
		}
	}
	if r := o.sub("RegistryConfig"); r != nil && v < 1048 {
		r["AllowNondistributableArtifactsCIDRs"], r["AllowNondistributableArtifactsHostnames"] = nil, nil
	}
	return o, nil
}
