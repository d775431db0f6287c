package wire

import (
	"bytes"
	"encoding/json"
)

// CreateExtra is what Gantry adds to the body of a request to create a
// container, under the key "Gantry", which stock clients neither send nor see.
type CreateExtra struct {
	// After names containers that must run, or with the suffix ":healthy" be
	// healthy, before this one is started by the daemon: "db", "db:healthy".
	After []string `json:",omitempty"`
	// NetRate bounds the container's network traffic.
	NetRate *NetRate `json:",omitempty"`
	// IDMaps maps the owners of bind mounts, by target path: "user" shows the
	// source's owner as the user that the container runs as, and
	// "HOST:CONTAINER:COUNT[;…]" ranges of ids, of users (with the prefix "u:"),
	// of groups ("g:") or of both.
	IDMaps map[string]string `json:",omitempty"`
}

// ContainerJSON is an inspection of a container: Docker's, and under the key
// "Gantry" what Docker does not have, if the container has any of it.
type ContainerJSON struct {
	InspectResponse
	Gantry *InspectExtra `json:",omitempty"`
}

// InspectExtra is what Gantry adds to an inspection.
type InspectExtra struct {
	CreateExtra
	// WaitingFor are those of After that the start of the container waits for.
	WaitingFor []string `json:",omitempty"`
	// LogLost is how many entries of the container's log, since it was made, could
	// not be written, or were dropped before they could be sent.
	LogLost uint64 `json:",omitempty"`
}

// UpdateExtra is what Gantry adds to the body of a request to update a
// container, under the key "Gantry". A nil field changes nothing.
type UpdateExtra struct {
	// PublishedPorts replaces the published ports, at once if it runs.
	PublishedPorts *PortMap `json:",omitempty"`
	// AddPorts publishes further ports, RemovePorts takes some back: "80/tcp"
	// for all bindings of a container's port, "8080:80/tcp" or
	// "127.0.0.1:8080:80/tcp" for one.
	AddPorts    PortMap  `json:",omitempty"`
	RemovePorts []string `json:",omitempty"`
	// AddMounts and RemoveMounts (by target path) change the mounts, at once
	// if it runs.
	AddMounts    []Mount  `json:",omitempty"`
	RemoveMounts []string `json:",omitempty"`
	// Env sets (KEY=value) and removes (KEY) variables from the next start on.
	Env []string `json:",omitempty"`
	// Labels sets the labels that it names, RemoveLabels removes some.
	Labels       map[string]string `json:",omitempty"`
	RemoveLabels []string          `json:",omitempty"`
	// NetRate replaces the bounds of the network traffic.
	NetRate *NetRate `json:",omitempty"`
}

// UpdateRequest is the body of a request to update a container.
type UpdateRequest struct {
	UpdateConfig
	Gantry *UpdateExtra `json:",omitempty"`
}

// UnmarshalJSON reads the two parts one after the other, so that errors name
// Docker's fields as Docker does.
func (r *UpdateRequest) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &r.UpdateConfig); err != nil {
		return err
	}
	var own struct{ Gantry *UpdateExtra }
	err := json.Unmarshal(data, &own)
	r.Gantry = own.Gantry
	return err
}

// UnmarshalJSON refuses keys that it does not know: they would be changes that
// are silently not made.
func (x *UpdateExtra) UnmarshalJSON(data []byte) error {
	type plain UpdateExtra
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(x))
}

// NetRate bounds network traffic in bits per second; 0 is no bound. In is what
// the container receives, Out what it sends.
type NetRate struct {
	In  int64 `json:",omitempty"`
	Out int64 `json:",omitempty"`
}
