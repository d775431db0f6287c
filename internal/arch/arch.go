// Package arch holds the architecture of Gantry as tests: which package may
// import which, what the shim may link, and how large things may get. It reads
// the source of the module and nothing else; see docs/architecture.md.
package arch
