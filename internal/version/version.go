// Package version says which build this is. The Makefile sets the values; a
// plain `go build` leaves them as they are here. It knows nothing else.
package version

// Version is Gantry's own version, without a leading v.
var Version = "0.0.0-dev"

// Commit is the short hash of the source.
var Commit = "unknown"

// Engine is the version of Docker Engine whose behaviour this build follows:
// what /version and /info report, since clients parse and compare it.
const Engine = "29.7.0"
