// Package job is the flat description of a process to isolate: what the parent
// half of the runtime sends to the child half. FromSpec makes one from an OCI
// runtime spec, purely; Encode and Decode are the wire form (no JSON, no
// reflection, since every container's init pays for what it links).
//
// It must not touch the kernel and must import nothing but the standard
// library, x/sys and runtime-spec.
package job

// Overlay says which directories make a container's root file system
// (overlayfs, Documentation/filesystems/overlayfs.rst).
type Overlay struct {
	Lower []string // read-only layers, topmost first
	Upper string   // the container's own writable layer
	Work  string   // overlayfs's scratch directory, on Upper's file system
	// Options are further mount options, such as "index=off".
	Options []string
}

// Job describes a container's first process and its isolation.
type Job struct{}

// Process describes one process.
type Process struct{}
