package plan

import "gantry/internal/wire"

// userMode is the user namespace of a container: with a daemon that remaps ids
// one with other ids, unless the container opts out. As with Docker, a word that
// nobody knows says nothing; "auto" is ours.
func userMode(hc *wire.HostConfig, d Defaults) Mode {
	switch {
	case hc.UsernsMode.IsHost():
		return Host
	case string(hc.UsernsMode) == string(Auto):
		return Auto
	case d.UsernsRemap:
		return Private
	}
	return Host
}

// UserMode is the user namespace for a start by a daemon that remaps ids, or
// does not: it may have been set up anew since the container was made, and
// nothing on the disk depends on it. The error says what can't be shared with
// the host.
func (p *Plan) UserMode(remaps bool) (Mode, error) { //nolint:revive // a fact of the daemon
	d := Defaults{UsernsRemap: remaps}
	return userMode(&p.HostConfig, d), checkRemapped(&p.HostConfig, d)
}
