package api

import (
	"path"
	"strconv"
	"strings"
)

// An acceptance is a difference that is meant.
type acceptance struct {
	section string // pattern of the section's name; empty for all
	request string // part of "METHOD path"; empty for all
	path    string // of the difference; * stands for anything
	numbers bool   // only where both values are numbers
	reason  string
}

// accepted lists every difference that is not a defect.
var accepted = []acceptance{
	{path: "body*", section: "05-*", reason: "clients from API 1.24 on are served, so the minimum in the text differs"},
	{path: "*", section: "05-*", request: "/v1.24/", reason: "API 1.24 is served"},
	{path: "*", section: "05-*", request: "/v1.39/", reason: "API 1.39 is served"},
	{path: "*", request: "/v1.24/containers/", section: "21-*", reason: "API 1.24 is served"},
	{path: "*", request: "/debug/", reason: "the debug endpoints are not served"},
	{path: "*", section: "11-*", request: "name=e104", reason: "a limit of the root file system that can't hold is refused, not forgotten"},
	{path: "*", section: "02-*", reason: "the daemon's own version, components and builder; see the test of /version"},
	{path: "*", section: "03-*", reason: "the machine and the daemon's own parts; see the test of /info"},
	{path: "*HostConfig.Runtime", reason: "the default runtime is our own"},
	{path: "*CgroupnsMode", reason: "follows the machine's control groups"},
	{path: "*.Options.com.docker.network.bridge.name", reason: "the bridge has its own name"},
	{path: "*.Gateway", reason: "the subnet is the daemon's choice"},
	{path: "*.Subnet", reason: "the subnet is the daemon's choice"},
	{path: "*.Subnets*", reason: "the subnet is the daemon's choice"},
	{path: "*Mounts*", section: "2*", reason: "the order of mounts changes from call to call"},
	{path: "*Ports*", section: "2*", reason: "the order of ports changes from call to call"},
	{path: "*escriptor.size", numbers: true, reason: "the image is another one"},
	{path: "*escriptor.annotations*", reason: "the image comes from another program"},
	{path: "*.Comment", section: "55-*", reason: "the image comes from another program"},
	{path: "*.Identity", section: "55-*", reason: "the recorder's image was pulled"},
	{path: "*", request: "/images/bt:", reason: "made by a build"},
	{path: "*.Status", section: "29-*", reason: "the moment of asking"},
	{path: "*", numbers: true, section: "45-*", reason: "measurements"},
	{path: "*.memory_stats.stats.*", section: "45-*", reason: "the kernel counts other things"},
	{path: "*.Processes*", section: "46-*", reason: "measurements"},
	{path: "status", section: "40-*", request: "/kill", reason: "the recorder started the container again in between"},
	{path: "*Size*", numbers: true, reason: "the image is another one"},
	{path: "status", request: "e122", reason: "a wrong hardware address is refused at create"},
	{path: "*.Containers.*", section: "62-*", reason: "the containers' IDs are another run's"},
	{path: "*.Volumes[*", section: "64-*", reason: "where the anonymous volume is in the list depends on its name"},
	{path: "*", request: "/networks/n2", section: "61-*", reason: "its creation names an address that has to be generated"},
	{path: "status", request: "/networks/create", section: "61-*", reason: "it overlaps, or has the bridge of, a network with a name that has to be generated"},
	{path: "body.message", request: "name=e133", reason: "Docker names the networks in no order"},
	{path: "status", request: "/containers/5/json", reason: "another run has other IDs"},
	{path: "body.ExitCode", section: "38-*", reason: "the recorded client has started the exec and left it, which a replay does not; it goes on then, and has not ended with 126"},
	{path: "status", section: "38-*", request: "/exec/", reason: "the same: an exec that never ran is forgotten with its container's end"},
	{path: "body.message", section: "13-*", request: "/bad4/start", reason: "beyond Docker: says why the file is not executable"},
	{path: "body.message", section: "13-*", request: "/p2/start", reason: "beyond Docker: says which container has the port"},
	{path: "body*", section: "47-*", request: "/c1/changes", reason: "Docker lists changes in no order, Gantry by paths"},
	{path: "headers", section: "47-*", request: "/export", reason: "the same headers in another order"},
	{path: "header.X-Docker-Container-Path-Stat", section: "48-*", request: "/c1/archive?path=/tm", reason: "a running container's own tmpfs is shown, not what it covers"},
	{path: "header.X-Docker-Container-Path-Stat", section: "48-*", request: "/c2/archive?path=/tmp", reason: "the image is another one"},
	{path: "status", section: "11-*", request: "name=e56", reason: "clients take 404 for a missing image of the container, and pull that"},
	{path: "status", section: "11-*", request: "name=e59", reason: "clients take 404 for a missing image of the container, and pull that"},
	{path: "body.State.Health.Log*", reason: "how many checks there were by then"},
	{path: "body.SpaceReclaimed", section: "51-*", request: "/images/prune", numbers: true, reason: "the image's configuration is as long as it is"},
	{path: "*.Comment", section: "49-*", reason: "the image comes from another program"},
	{path: "*.order", section: "49-*", reason: "the same keys in another order"},
	{path: "body.Parent", section: "49-*", reason: "the API has had no such field since 1.52"},
	{path: "status", request: "/images/imp:1", reason: "its import is a stream that was not recorded"},
	{path: "status", section: "58-*", request: "DELETE /v1.56/images/busybox", reason: "its load is a stream that was not recorded"},
	{path: "status", section: "58-*", request: "repo=imp3", reason: "beyond Docker: an archive that can't be read is the client's mistake, not the server's"},
	{path: "status", section: "65-*", request: "/swarm/update", reason: "what a node that is no manager is asked is not looked at"},
	{path: "status", section: "65-*", request: "/nodes/x/update", reason: "what a node that is no manager is asked is not looked at"},
	{path: "status", section: "65-*", request: "/services?filters=", reason: "what a node that is no manager is asked is not looked at"},
	{path: "status", section: "65-*", request: "/services/create", reason: "what a node that is no manager is asked is not looked at"},
	{path: "status", section: "65-*", request: "/services/x/update", reason: "what a node that is no manager is asked is not looked at"},
	{path: "status", section: "65-*", request: "/services/x/logs", reason: "what a node that is no manager is asked is not looked at"},
	{path: "*", section: "63-*", request: "/c2/start", reason: "beyond Docker: says that the network does not exist, not that a cluster node is invalid"},
	{path: "body.message", section: "66-*", request: "/plugins/pull", reason: "says besides which reference can't be resolved"},
	{path: "*.SandboxKey", reason: "the file of the namespace has the whole id of its container as its name"},
	{path: "*.Config.MacAddress", reason: "the address that was asked for is in the endpoint's settings"},
}

// isAccepted returns the reason why a difference is meant, or "".
func isAccepted(section, request string, d difference) string {
	if strings.Contains(d.got, "not supported by this version of Gantry") {
		return "the operation is not built"
	}
	for _, a := range accepted {
		if a.section != "" {
			if ok, _ := path.Match(a.section, section); !ok {
				continue
			}
		}
		if !strings.Contains(request, a.request) || !glob(a.path, d.path) || a.numbers && !(isNumber(d.want) && isNumber(d.got)) {
			continue
		}
		return a.reason
	}
	return ""
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// glob matches a pattern in which * stands for anything.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}
