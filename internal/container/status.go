package container

import (
	"fmt"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/wire"
)

// status is Docker's word for the phase.
func (s *snapshot) status() wire.ContainerStatus {
	switch s.state.Phase {
	case Running, Ending:
		return "running"
	case Stopping:
		if s.state.Frozen {
			return "paused"
		}
		return "running"
	case Paused:
		return "paused"
	case Restarting:
		return "restarting"
	case Removing, Removed:
		return "removing"
	case Dead:
		return "dead"
	case Starting:
		switch {
		case s.state.Restarts > 0: // by policy
			return "restarting"
		case !s.state.Ran:
			return "created"
		}
		return "exited"
	case Exited:
		return "exited"
	}
	return "created"
}

// sentence is the status as `docker ps` shows it, at the given moment.
func (s *snapshot) sentence(now time.Time) string {
	st := s.state
	switch s.status() {
	case "created":
		return "Created"
	case "removing":
		return "Removal In Progress"
	case "dead":
		return "Dead"
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s ago", st.ExitCode, units.HumanDuration(now.Sub(st.FinishedAt)))
	case "exited":
		return fmt.Sprintf("Exited (%d) %s ago", st.ExitCode, units.HumanDuration(now.Sub(st.FinishedAt)))
	case "paused":
		return "Up " + units.HumanDuration(now.Sub(st.StartedAt)) + " (Paused)"
	}
	up := "Up " + units.HumanDuration(now.Sub(st.StartedAt))
	if s.health == nil {
		return up
	}
	if s.health.Status == "starting" {
		return up + " (health: starting)"
	}
	return up + " (" + string(s.health.Status) + ")"
}

// wireState is the State of an inspection.
func (s *snapshot) wireState() *wire.ContainerState {
	st := s.state
	up := st.up()
	w := &wire.ContainerState{
		Status: s.status(), Running: up, Paused: st.Frozen, Restarting: s.status() == "restarting",
		OOMKilled: st.OOMKilled, Dead: st.Phase == Dead, Pid: s.pid, ExitCode: st.ExitCode, Error: st.Error,
		StartedAt: stamp(st.StartedAt), FinishedAt: stamp(st.FinishedAt), Health: s.health,
	}
	if st.Phase.live() || st.Phase == Ending {
		w.ExitCode, w.OOMKilled = 0, false
	}
	return w
}

// stamp writes a time as inspect does: in UTC, with as many digits of the
// second's fraction as it has; the zero time is 0001-01-01T00:00:00Z.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
