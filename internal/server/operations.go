package server

import "strings"

// A class says how much an operation may do. Policies of scoped sockets allow
// operations by name or by class.
type class string

// The classes, from the harmless to those whose content no policy can read.
const (
	classRead   class = "read"   // what is there, and what containers say
	classData   class = "data"   // contents of file systems and images, taken out
	classWrite  class = "write"  // changes to what is there
	classRun    class = "run"    // new containers and processes
	classAdmin  class = "admin"  // the daemon itself
	classOpaque class = "opaque" // a protocol of its own inside the connection
)

// An operation is what a route does, as policies and metrics call it.
type operation struct {
	name  string // "container.create"
	class class
}

// kind is the part of the name before the dot: what the operation is about.
func (o operation) kind() string {
	kind, _, _ := strings.Cut(o.name, ".")
	return kind
}

// operationOf returns the operation of a route; false if nobody has said what
// it is, and no policy allows it then.
func operationOf(method, pattern string) (operation, bool) {
	o, ok := operations[method+" "+unnamed(pattern)]
	return o, ok
}

// unnamed returns a pattern without the names of its wildcards.
func unnamed(pattern string) string {
	var b strings.Builder
	for {
		head, rest, found := cutWild(pattern)
		b.WriteString(head)
		if !found {
			return b.String()
		}
		b.WriteString("{}")
		pattern = rest
	}
}

// operations classifies every route of the API. A route that is not here works
// on the full socket alone; a test finds it.
var operations = map[string]operation{
	"GET /containers/json":                            {"container.list", classRead},
	"POST /containers/create":                         {"container.create", classRun},
	"GET /containers/{}/json":                         {"container.inspect", classRead},
	"GET /containers/{}/top":                          {"container.top", classRead},
	"GET /containers/{}/logs":                         {"container.logs", classRead},
	"GET /containers/{}/changes":                      {"container.diff", classRead},
	"GET /containers/{}/export":                       {"container.export", classData},
	"GET /containers/{}/stats":                        {"container.stats", classRead},
	"POST /containers/{}/resize":                      {"container.resize", classWrite},
	"POST /containers/{}/start":                       {"container.start", classRun},
	"POST /containers/{}/stop":                        {"container.stop", classWrite},
	"POST /containers/{}/restart":                     {"container.restart", classRun},
	"POST /containers/{}/kill":                        {"container.kill", classWrite},
	"POST /containers/{}/update":                      {"container.update", classWrite},
	"POST /containers/{}/rename":                      {"container.rename", classWrite},
	"POST /containers/{}/pause":                       {"container.pause", classWrite},
	"POST /containers/{}/unpause":                     {"container.unpause", classWrite},
	"POST /containers/{}/attach":                      {"container.attach", classRun},
	"GET /containers/{}/attach/ws":                    {"container.attach", classRun},
	"POST /containers/{}/wait":                        {"container.wait", classRead},
	"DELETE /containers/{}":                           {"container.remove", classWrite},
	"HEAD /containers/{}/archive":                     {"container.stat", classRead},
	"GET /containers/{}/archive":                      {"container.copyout", classData},
	"PUT /containers/{}/archive":                      {"container.copyin", classWrite},
	"POST /containers/prune":                          {"container.prune", classWrite},
	"GET /containers/{}/checkpoints":                  {"checkpoint.list", classRead},
	"POST /containers/{}/checkpoints":                 {"checkpoint.create", classAdmin},
	"DELETE /containers/{}/checkpoints/{}":            {"checkpoint.remove", classAdmin},
	"POST /containers/{}/exec":                        {"exec.create", classRun},
	"POST /exec/{}/start":                             {"exec.start", classRun},
	"POST /exec/{}/resize":                            {"exec.resize", classWrite},
	"GET /exec/{}/json":                               {"exec.inspect", classRead},
	"GET /images/json":                                {"image.list", classRead},
	"POST /images/create":                             {"image.pull", classWrite},
	"GET /images/{}/json":                             {"image.inspect", classRead},
	"GET /images/{}/attestations":                     {"image.inspect", classRead},
	"GET /images/{}/history":                          {"image.inspect", classRead},
	"POST /images/{}/push":                            {"image.push", classData},
	"POST /images/{}/tag":                             {"image.tag", classWrite},
	"DELETE /images/{}":                               {"image.remove", classWrite},
	"GET /images/search":                              {"image.search", classRead},
	"POST /images/prune":                              {"image.prune", classWrite},
	"POST /commit":                                    {"container.commit", classWrite},
	"GET /images/{}/get":                              {"image.save", classData},
	"GET /images/get":                                 {"image.save", classData},
	"POST /images/load":                               {"image.load", classWrite},
	"POST /build":                                     {"build.run", classRun},
	"POST /build/prune":                               {"build.prune", classWrite},
	"POST /build/cancel":                              {"build.cancel", classWrite},
	"GET /networks":                                   {"network.list", classRead},
	"GET /networks/":                                  {"network.list", classRead},
	"GET /networks/{}":                                {"network.inspect", classRead},
	"DELETE /networks/{}":                             {"network.remove", classWrite},
	"POST /networks/create":                           {"network.create", classWrite},
	"POST /networks/{}/connect":                       {"network.connect", classWrite},
	"POST /networks/{}/disconnect":                    {"network.disconnect", classWrite},
	"POST /networks/prune":                            {"network.prune", classWrite},
	"GET /volumes":                                    {"volume.list", classRead},
	"POST /volumes/create":                            {"volume.create", classWrite},
	"GET /volumes/{}":                                 {"volume.inspect", classRead},
	"PUT /volumes/{}":                                 {"volume.update", classWrite},
	"DELETE /volumes/{}":                              {"volume.remove", classWrite},
	"POST /volumes/prune":                             {"volume.prune", classWrite},
	"POST /auth":                                      {"system.login", classRead},
	"GET /info":                                       {"system.info", classRead},
	"GET /version":                                    {"system.version", classRead},
	"GET /_ping":                                      {"system.ping", classRead},
	"HEAD /_ping":                                     {"system.ping", classRead},
	"GET /events":                                     {"system.events", classRead},
	"GET /system/df":                                  {"system.df", classRead},
	"GET /debug/vars":                                 {"system.debug", classAdmin},
	"GET /debug/pprof/":                               {"system.debug", classAdmin},
	"GET /debug/pprof/cmdline":                        {"system.debug", classAdmin},
	"GET /debug/pprof/profile":                        {"system.debug", classAdmin},
	"GET /debug/pprof/symbol":                         {"system.debug", classAdmin},
	"GET /debug/pprof/trace":                          {"system.debug", classAdmin},
	"GET /debug/pprof/{}":                             {"system.debug", classAdmin},
	"OPTIONS /{}":                                     {"system.options", classRead},
	"POST /session":                                   {"build.session", classOpaque},
	"POST /grpc":                                      {"build.grpc", classOpaque},
	"POST /moby.buildkit.v1.Control/{}":               {"build.grpc", classOpaque},
	"POST /moby.buildkit.v1.frontend.LLBBridge/{}":    {"build.grpc", classOpaque},
	"POST /containerd.services.content.v1.Content/{}": {"build.grpc", classOpaque},
	"POST /opentelemetry.proto.collector.trace.v1.TraceService/{}": {"build.grpc", classOpaque},
	"POST /grpc.health.v1.Health/{}":                               {"build.grpc", classOpaque},
	"GET /distribution/{}/json":                                    {"image.distribution", classRead},
	"GET /gantry/doctor":                                           {"system.doctor", classRead},
	"GET /gantry/containers/{}/why":                                {"system.why", classAdmin},
	"POST /gantry/doctor":                                          {"system.mend", classAdmin},
	"GET /gantry/disk":                                             {"system.df", classRead},
	"GET /gantry/jobs":                                             {"job.list", classRead},
	"GET /gantry/jobs/{}":                                          {"job.inspect", classRead},
	"GET /gantry/jobs/{}/progress":                                 {"job.inspect", classRead},
	"POST /gantry/jobs":                                            {"job.start", classAdmin}, // what it works on is in the body, which no policy reads
	"DELETE /gantry/jobs/{}":                                       {"job.cancel", classAdmin},
	"GET /gantry/images/diff":                                      {"image.diff", classAdmin}, // the images are in the query, which no policy reads
	"POST /gantry/images/convert":                                  {"image.convert", classAdmin},
	"POST /gantry/images/verify":                                   {"image.verify", classAdmin},
	"POST /gantry/images/{}/pin":                                   {"image.pin", classWrite},
	"DELETE /gantry/images/{}/pin":                                 {"image.unpin", classWrite},
	"GET /gantry/volumes/{}/export":                                {"volume.export", classAdmin},
	"POST /gantry/volumes/{}/import":                               {"volume.import", classAdmin},
	"POST /gantry/volumes/{}/clone":                                {"volume.clone", classAdmin},
	"GET /gantry/upgrade":                                          {"system.upgrade.status", classRead},
	"POST /gantry/upgrade":                                         {"system.upgrade", classAdmin},
	"GET /swarm":                                                   {"swarm.inspect", classRead},
	"POST /swarm/init":                                             {"swarm.init", classAdmin},
	"POST /swarm/join":                                             {"swarm.join", classAdmin},
	"POST /swarm/leave":                                            {"swarm.leave", classAdmin},
	"POST /swarm/update":                                           {"swarm.update", classAdmin},
	"GET /swarm/unlockkey":                                         {"swarm.unlockkey", classAdmin},
	"POST /swarm/unlock":                                           {"swarm.unlock", classAdmin},
	"GET /nodes":                                                   {"node.list", classRead},
	"GET /nodes/{}":                                                {"node.inspect", classRead},
	"DELETE /nodes/{}":                                             {"node.remove", classAdmin},
	"POST /nodes/{}/update":                                        {"node.update", classAdmin},
	"GET /services":                                                {"service.list", classRead},
	"POST /services/create":                                        {"service.create", classAdmin},
	"GET /services/{}":                                             {"service.inspect", classRead},
	"DELETE /services/{}":                                          {"service.remove", classAdmin},
	"POST /services/{}/update":                                     {"service.update", classAdmin},
	"GET /services/{}/logs":                                        {"service.logs", classRead},
	"GET /tasks":                                                   {"task.list", classRead},
	"GET /tasks/{}":                                                {"task.inspect", classRead},
	"GET /tasks/{}/logs":                                           {"task.logs", classRead},
	"GET /secrets":                                                 {"secret.list", classRead},
	"POST /secrets/create":                                         {"secret.create", classAdmin},
	"GET /secrets/{}":                                              {"secret.inspect", classRead},
	"DELETE /secrets/{}":                                           {"secret.remove", classAdmin},
	"POST /secrets/{}/update":                                      {"secret.update", classAdmin},
	"GET /configs":                                                 {"config.list", classRead},
	"POST /configs/create":                                         {"config.create", classAdmin},
	"GET /configs/{}":                                              {"config.inspect", classRead},
	"DELETE /configs/{}":                                           {"config.remove", classAdmin},
	"POST /configs/{}/update":                                      {"config.update", classAdmin},
	"GET /plugins":                                                 {"plugin.list", classRead},
	"GET /plugins/privileges":                                      {"plugin.privileges", classAdmin},
	"POST /plugins/pull":                                           {"plugin.install", classAdmin},
	"GET /plugins/{}/json":                                         {"plugin.inspect", classRead},
	"DELETE /plugins/{}":                                           {"plugin.remove", classAdmin},
	"POST /plugins/{}/enable":                                      {"plugin.enable", classAdmin},
	"POST /plugins/{}/disable":                                     {"plugin.disable", classAdmin},
	"POST /plugins/{}/upgrade":                                     {"plugin.upgrade", classAdmin},
	"POST /plugins/create":                                         {"plugin.create", classAdmin},
	"POST /plugins/{}/push":                                        {"plugin.push", classAdmin},
	"POST /plugins/{}/set":                                         {"plugin.set", classAdmin},
}
