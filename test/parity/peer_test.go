package parity

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestPeer gives the same commands of one stock command line to Debian's
// docker.io and to Gantry, both asked for the API version that docker.io knows,
// and compares what is printed and the exit codes. peerAccepted lists what is
// meant to be different.
func TestPeer(t *testing.T) {
	text, err := os.ReadFile("testdata/peer.list")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testkit.RemoveGroups(t, "parity-x") }) // who names a parent keeps it
	commands := strings.Split(strings.TrimSpace(string(text)), "\n")
	want, program := playPeer(t, commands)
	ours := newPlayer(t, program)
	ours.env = append(ours.env, peerAPI)
	needed := make([]bool, len(peerAccepted))
	for i, c := range commands {
		got := ours.play(t, c, nil)
		if diff := Differences(want[i], got); diff != "" && !accept(peerAccepted, "", got, needed) {
			t.Errorf("$ %s\n%s", c, diff)
		}
	}
	for i, a := range peerAccepted {
		if !needed[i] && !a.machine {
			t.Errorf("accepted, but there is no difference: %s (%s)", a.command, a.reason)
		}
	}
}

// peerAPI is the newest version of the API that docker.io 20.10 knows.
const peerAPI = "DOCKER_API_VERSION=1.41"

// playPeer plays the commands to docker.io, and returns what it did and the
// command line that was used: the machine's docker, or else docker.io's.
func playPeer(t *testing.T, commands []string) (steps []Step, program string) {
	t.Helper()
	t.Run("docker.io", func(t *testing.T) { // its end stops docker.io
		peer := testkit.StartPeer(t)
		program = peer.CLI
		if docker, err := exec.LookPath("docker"); err == nil {
			program = docker
		}
		p := settle(t, program, Places{Root: peer.Root, Socket: peer.Socket})
		p.env = append(p.env, peerAPI)
		for _, c := range commands {
			steps = append(steps, p.play(t, c, nil))
		}
	})
	if len(steps) != len(commands) {
		t.FailNow()
	}
	return steps, program
}
