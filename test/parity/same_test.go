package parity

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// sameAccepted lists where gantry is meant to say something else than the stock
// command line does of the same daemon.
var sameAccepted = []acceptance{
	{command: "{{json .Config}}", says: `"Labels":{"a":"b"}}`, reason: "types of a newer API: no OnBuild"},
	{command: "{{json .HostConfig}}", says: `"NetworkMode":"bridge"`, reason: "types of a newer API: no KernelMemory"},
	{command: "--cidfile nodir/c", says: "failed to create the container ID file", reason: "127 is for programs that are not there"},
	{command: "--kernel-memory 50m", says: "deprecated", reason: "it has no effect, which is said"},
	{command: "docker images --format json", says: `"Containers":"`, reason: "containers are counted"},
	{command: "docker images --tree", says: "DISK USAGE", reason: "no longer an experiment, and no colours in files"},
	{command: "docker network inspect nn", says: `"Options":null`, reason: "types of a newer API"},
	{command: "docker rmi cm:1 cm:2", says: "Untagged: cm:2", reason: "made by a flag of Docker 29"},
	{command: "--cpu-count 1", says: "linux does not support", reason: "refused by the daemon, as Docker 29's command line leaves it to"},
	{command: "--disable-content-trust", says: "deprecated", reason: "it has no effect, which is said"},
	{command: "--ip6 bogus", says: "failed to parse IP", reason: "said before anything is created"},
	{command: "--detach-keys bogus-key", says: "invalid detach keys", reason: "said before anything is created"},
	{command: "docker commit --no-pause", says: "sha256:", reason: "a flag of Docker 29"},
	{command: "docker update --blkio-weight", says: "Weight discarded", reason: "warnings go to standard error"},
	{command: "docker context inspect cx -f", says: "unix:///y d", reason: "a template sees what the JSON has"},
	{command: "docker context export cx -", says: "meta.json", reason: "no directory for keys that are not there"},
	{command: "docker checkpoint", says: "experimental", reason: "said by the daemon"},
	{command: "docker context use", says: "overrides the active context", reason: "the warning comes first, also for the default context"},
	{command: "docker context rm cx cy nosuch", says: "context not found", reason: "as Docker 29 has it"},
	{command: "docker container ls --size", reason: "an attach that is refused leaves no container behind"},
	{command: "docker volume", says: "clone", reason: "beyond Docker: more commands"},
	{command: "docker version --format json", says: "Gantry", reason: "the programs' own versions"},
}

// TestSame gives the same commands to the stock command line and to gantry, each
// with a daemon of its own, and compares what they print. There is no recording:
// the stock command line is the reference, for the commands of testdata/same.list.
func TestSame(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker command line on this machine to compare with")
	}
	text, err := os.ReadFile("testdata/same.list")
	if err != nil {
		t.Fatal(err)
	}
	commands := strings.Split(strings.TrimSpace(string(text)), "\n")
	theirs, ours := newPlayer(t, docker), newPlayer(t, "")
	var want []Step
	for _, c := range commands { // one after the other, for their ports are the same
		want = append(want, theirs.play(t, c, nil))
	}
	needed := make([]bool, len(sameAccepted))
	for i, c := range commands {
		got := ours.play(t, c, nil)
		if diff := Differences(want[i], got); diff != "" && !accept(sameAccepted, "gantry", got, needed) {
			t.Errorf("$ %s\n%s", c, diff)
		}
	}
	for i, a := range sameAccepted {
		if !needed[i] && !a.machine {
			t.Errorf("accepted, but there is no difference: %s (%s)", a.command, a.reason)
		}
	}
}
