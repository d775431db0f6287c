// Package container owns the containers of this daemon: their records, their
// names and the goroutine that is each one's only writer. It decides with pure
// functions (plan, next) and acts through package launch and the shim.
//
// The API calls it; it calls image, network, volume and launch, and publishes
// events. It must not know HTTP.
package container
