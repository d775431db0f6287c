// Package volume owns named and anonymous volumes: their records and, through
// drivers in its children, their directories. The engine's launch package
// mounts and unmounts by container ID, the API creates, lists and removes.
// It must not know of containers beyond their ids.
package volume

// Mounted is a volume ready to be bound into a container.
type Mounted struct {
	Name   string
	Driver string
	Path   string // directory on the host
	Fresh  bool   // empty and never used: copy the image's content up
}
