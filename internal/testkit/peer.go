package testkit

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A Peer is Debian's docker.io, unpacked and not installed, running in network,
// mount and process namespaces of its own, so that its end leaves nothing but
// empty control groups behind, which StartPeer's clean-up removes.
type Peer struct {
	Socket string // path of its API socket
	Root   string // data root
	CLI    string // its command line
	Pid    int    // of a process in its namespaces
	log    string
}

// peerScript runs in the new namespaces. /run is fresh, so that the containerd
// of the peer has a place of its own. What other tests have mounted is theirs: as
// long as there is a copy of a mount, its file system and its disk stay in use.
const peerScript = `set -e
while read -r _ _ _ _ at _; do
	case $at in /tmp/?*) umount -l "$at" || : ;; esac
done </proc/self/mountinfo
ip link set lo up
mount -t tmpfs tmpfs /run
exec dockerd --data-root "$1/lib" --exec-root "$1/run" --pidfile "$1/pid" -H "unix://$1/s.sock" \
	--storage-driver overlay2 --cgroup-parent "$2" >"$1/log" 2>&1`

// StartPeer starts Debian's docker.io and stops it when the test ends. Where it
// is not unpacked (see test/deps.sh) the test is skipped, and fails if CI is set.
func StartPeer(t testing.TB) *Peer {
	t.Helper()
	tree := filepath.Join(cache, "docker.io")
	if _, err := os.Stat(filepath.Join(tree, "usr/sbin/dockerd")); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("docker.io is not unpacked, or this is not root: %v", err)
		}
		t.Skip("docker.io is not unpacked, or this is not root: run `make deps`")
	}
	dir, err := os.MkdirTemp("", "peer-")
	if err != nil {
		t.Fatal(err)
	}
	group := filepath.Base(dir)
	p := &Peer{Socket: filepath.Join(dir, "s.sock"), Root: filepath.Join(dir, "lib"), CLI: filepath.Join(tree, "usr/bin/docker"), log: filepath.Join(dir, "log")}
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", peerScript, "peer", dir, group)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(tree, "bin")+":"+filepath.Join(tree, "usr/bin")+":"+filepath.Join(tree, "usr/sbin")+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill() // its child, the first process of the namespace, goes with it
		<-ended
		RemoveGroups(t, group)
		removeTree(t, dir)
	})
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("unix", p.Socket); err == nil {
			c.Close()
			return p
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("docker.io has ended: %v\n%s", err, p.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker.io does not answer:\n%s", p.Log())
		}
	}
}

// Log returns the end of what the peer has logged.
func (p *Peer) Log() string {
	text, _ := os.ReadFile(p.log)
	return tail(string(text), 40)
}

// Enter returns a command line that runs args in the peer's network namespace,
// where its published ports are.
func (p *Peer) Enter(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(p.Pid), "--net"}, args...)
}

// RemoveGroups removes the empty control groups of that name, in all hierarchies.
func RemoveGroups(t testing.TB, name string) {
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	more, _ := filepath.Glob("/sys/fs/cgroup/" + name)
	for _, g := range append(found, more...) {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			exec.Command("find", g, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
			if _, err := os.Stat(g); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("control group %s is still in use", g)
				break
			}
		}
	}
}

// removeTree removes a directory whose mounts are about to go with their
// namespace.
func removeTree(t testing.TB, dir string) {
	var err error
	for range 100 {
		if err = os.RemoveAll(dir); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("remove %s: %v", dir, err)
}
