package daemon

import (
	"context"
	"net/http"
	"strings"
	"time"

	"gantry/internal/daemon/telemetry"
	"gantry/internal/launch"
	"gantry/internal/server"
	"gantry/internal/version"
)

// The families that are counted as things happen.
var (
	containerActions = telemetry.Family{Name: "engine_daemon_container_actions_seconds", Help: "The number of seconds it takes to process each container action", Label: "action"}
	networkActions   = telemetry.Family{Name: "engine_daemon_network_actions_seconds", Help: "The number of seconds it takes to process each network action", Label: "action"}
	imageActions     = telemetry.Family{Name: "engine_daemon_image_actions_seconds", Help: "The number of seconds it takes to process each image action", Label: "action"}
	infoFunctions    = telemetry.Family{Name: "engine_daemon_host_info_functions_seconds", Help: "The number of seconds it takes to call functions gathering info about the host", Label: "function"}
	eventsTotal      = telemetry.Family{Name: "engine_daemon_events_total", Help: "The number of events logged"}
	healthChecks     = telemetry.Family{Name: "engine_daemon_health_checks_total", Help: "The total number of health checks"}
	healthFailed     = telemetry.Family{Name: "engine_daemon_health_checks_failed_total", Help: "The total number of failed health checks"}
	healthTook       = telemetry.Family{Name: "gantry_health_check_seconds", Help: "How long health checks took."}
	logEntriesLost   = telemetry.Family{Name: "gantry_log_entries_lost_total", Help: "Entries of containers' logs that could not be written (unwritten) or were dropped before they could be sent (unsent).", Label: "why"}
	eventKinds       = telemetry.Family{Name: "gantry_events_total", Help: "Events by type and action.", Label: "type,action"}
	launchSteps      = telemetry.Family{Name: "gantry_launch_step_seconds", Help: "How long each step of starting a container took.", Label: "step"}
	requests         = telemetry.Family{Name: "gantry_api_request_seconds", Help: "How long requests took, streams and waits included.", Label: "operation,result"}
)

// measure has the metrics ask for what is, and counts events.
func (d *Daemon) measure(a *about) {
	m := d.metrics
	telemetry.Process(m, time.Now())
	one := func(name, help string, read func() float64) {
		m.Gauge(telemetry.Family{Name: name, Help: help}, func() map[string]float64 { return map[string]float64{"": read()} })
	}
	one("engine_daemon_engine_cpus_cpus", "The number of cpus that the host system of the engine has", func() float64 { return float64(a.host.CPUs) })
	one("engine_daemon_engine_memory_bytes", "The number of bytes of memory that the host system of the engine has", func() float64 { return float64(a.host.Memory) })
	one("engine_daemon_events_subscribers_total", "The number of current subscribers to events", func() float64 { return float64(a.bus.Listeners()) })
	m.Gauge(telemetry.Family{
		Name: "engine_daemon_engine_info", Help: "The information related to the engine and the OS it is running on",
		Label: "architecture,commit,daemon_id,graphdriver,kernel,os,os_type,os_version,version",
	}, func() map[string]float64 {
		h := a.host
		return map[string]float64{telemetry.Labels(h.Architecture, version.Commit, a.id, a.driver, h.Kernel, h.OS, "linux", h.OSVersion, version.Engine): 1}
	})
	m.Gauge(telemetry.Family{Name: "engine_daemon_container_states_containers", Help: "The count of containers in various states", Label: "state"},
		func() map[string]float64 {
			n := a.counts()
			return map[string]float64{"running": float64(n.Running), "paused": float64(n.Paused), "stopped": float64(n.Stopped)}
		})
	for _, f := range []telemetry.Family{eventsTotal, healthChecks, healthFailed} {
		m.Add(f, "", 0)
	}
	over := make(chan struct{})
	_, sub := d.bus.Subscribe(time.Time{})
	go func() {
		defer close(over)
		for e := range sub.C {
			m.Add(eventsTotal, "", 1)
			action, _, _ := strings.Cut(string(e.Action), ":")
			m.Add(eventKinds, telemetry.Labels(string(e.Type), action), 1)
		}
	}()
	d.later("event count", func(context.Context) error { sub.Close(); <-over; return nil })
}

// A meter is told what happens, and counts it.
type meter struct{ *Daemon }

// launched notes how long the steps of a start took.
func (d meter) launched(id string, steps []launch.Timing) {
	t := telemetry.Trace{ID: id, At: time.Now()}
	for _, s := range steps {
		d.metrics.Time(launchSteps, s.Step, s.Took)
		t.Steps = append(t.Steps, telemetry.Step{Name: s.Step, Took: s.Took})
	}
	d.tracer.Add(t)
}

// dockersActions are the operations that Docker's daemon times, by the names
// that it has for them.
var dockersActions = map[string]string{
	"container.create": "create", "container.start": "start", "container.remove": "delete", "container.commit": "commit", "container.diff": "changes",
}

// answered notes how long an operation took.
func (d meter) answered(operation string, err error, took time.Duration) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	if server.Endless(operation) {
		took = 0
	}
	d.metrics.Time(requests, telemetry.Labels(operation, result), took)
	kind, action, _ := strings.Cut(operation, ".")
	switch {
	case dockersActions[operation] != "":
		d.metrics.Time(containerActions, dockersActions[operation], took)
	case kind == "network":
		d.metrics.Time(networkActions, action, took)
	case kind == "image":
		d.metrics.Time(imageActions, action, took)
	case operation == "system.info":
		d.metrics.Time(infoFunctions, "system_info", took)
	}
}

// probed notes how a health check ended.
func (d meter) probed(code int, took time.Duration) {
	d.metrics.Add(healthChecks, "", 1)
	if code != 0 {
		d.metrics.Add(healthFailed, "", 1)
	}
	d.metrics.Time(healthTook, "", took)
}

// logLost notes that entries of a log are lost.
func (d meter) logLost(entries uint64, why string) {
	d.metrics.Add(logEntriesLost, why, float64(entries))
}

// profiler serves /debug on the API while the daemon is in debug mode.
func (d *Daemon) profiler() http.Handler {
	if !d.config.Load().Debug {
		return nil
	}
	return telemetry.Profiler()
}
