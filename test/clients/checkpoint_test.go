package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// fakeCriu stands for criu(8) where the kernel or the machine has none that
// works: it takes the arguments of the real one and keeps to its manual in what
// they mean here. A dump notes its arguments and kills the process; a restore
// leaves a process behind that has the inherited descriptors.
const fakeCriu = `#!/bin/sh
verb=$1; shift
echo "$verb $*" >>"$FAKE_LOG"
dir= pid= root= pidfile= leave= out=
while [ $# -gt 0 ]; do
	case $1 in
	--images-dir) dir=$2; shift ;;
	--tree) pid=$2; shift ;;
	--root) root=$2; shift ;;
	--pidfile) pidfile=$2; shift ;;
	--leave-running) leave=yes ;;
	--inherit-fd) case $2 in *pipe:*) fd=${2#fd[}; [ -n "$out" ] || out=${fd%%]*} ;; esac; shift ;;
	esac
	shift
done
case $verb in
dump)
	[ ! -e "$dir/../../../../fail" ] || { echo "(00.1) Error (criu/fake.c:1): out of luck" >"$dir/dump.log"; exit 1; }
	: >"$dir/inventory.img"
	[ -n "$leave" ] || kill -STOP "$pid" ;;
restore)
	[ -x "$root/bin/busybox" ] || { echo "(00.1) Error (criu/fake.c:2): no root at $root" >"$dir/restore.log"; exit 1; }
	(echo "back from $(basename "$dir")"; exec sleep 1000) >&"$out" 2>&1 </dev/null &
	echo $! >"$pidfile" ;;
esac
`

func TestCheckpoint(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "criu"), []byte(strings.ReplaceAll(fakeCriu, "$FAKE_LOG", bin+"/log")), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	d := testkit.StartBusybox(t, "--experimental")
	docker := func(args ...string) string { t.Helper(); return d.OK(t, args...) }
	fails := func(text string, args ...string) {
		t.Helper()
		if _, err := d.Gantry(args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", args, err, text)
		}
	}
	docker("run", "-d", "--name", "box", "--restart", "always", "-v", "data:/data", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo begun; sleep 1000")
	if got := docker("checkpoint", "create", "--leave-running", "box", "one"); got != "one" {
		t.Errorf("create: %q", got)
	}
	if got := docker("inspect", "-f", "{{.State.Status}}", "box"); got != "running" {
		t.Errorf("left running: %s", got)
	}
	fails("checkpoint with name one already exists for container box", "checkpoint", "create", "box", "one")
	fails("Invalid checkpoint ID (a/b)", "checkpoint", "create", "box", "a/b")
	fails("checkpoint two does not exist for container box", "checkpoint", "rm", "box", "two")
	docker("checkpoint", "create", "box", "two")
	if got := docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "box"); got != "exited 137 0" {
		t.Errorf("after a checkpoint: %s", got)
	}
	if got := docker("checkpoint", "ls", "box"); got != "CHECKPOINT NAME\none\ntwo" {
		t.Errorf("ls: %q", got)
	}
	fails("is not running", "checkpoint", "create", "box", "three")
	fails("checkpoint three does not exist for container box", "start", "--checkpoint", "three", "box")
	docker("start", "--checkpoint", "two", "box")
	for deadline := time.Now().Add(20 * time.Second); docker("logs", "box") != "begun\nback from two"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("logs: %q", docker("logs", "box"))
		}
	}
	log, err := os.ReadFile(filepath.Join(bin, "log"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(log), "\n")
	if dump := lines[1]; !strings.HasPrefix(dump, "dump --tree ") || !strings.Contains(dump, "--external mnt[/data]:/data") || !strings.Contains(dump, "mnt[/etc/hosts]:/etc/hosts") || !strings.Contains(dump, "]:gantry-net") {
		t.Errorf("dump: %s", dump)
	}
	if restore := lines[2]; !strings.Contains(restore, "--external mnt[/data]:"+d.Root+"/volumes/data/_data") || !strings.Contains(restore, "]:gantry-net") || !strings.Contains(restore, "]:pipe:[") {
		t.Errorf("restore: %s", restore)
	}
	// It is the shim's: its end is noticed, and its group is the container's.
	fails("can not be changed", "update", "--mount-rm", "/data", "box")
	docker("kill", "box")
	for deadline := time.Now().Add(20 * time.Second); docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box") != "exited 137"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its end was not noticed")
		}
	}
	docker("start", "box") // afresh
	docker("checkpoint", "rm", "box", "one")
	if err := os.WriteFile(filepath.Join(d.Root, "fail"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fails("Cannot checkpoint container box: criu dump: exit status 1: Error (criu/fake.c:1): out of luck", "checkpoint", "create", "box", "bad")
	if got := docker("inspect", "-f", "{{.State.Status}}", "box") + " " + docker("checkpoint", "ls", "box"); got != "running CHECKPOINT NAME\ntwo" {
		t.Errorf("after a failure: %q", got)
	}
	dir := t.TempDir()
	os.Remove(filepath.Join(d.Root, "fail"))
	docker("checkpoint", "create", "--checkpoint-dir", dir, "box", "away")
	if _, err := os.Stat(filepath.Join(dir, "away", "inventory.img")); err != nil {
		t.Error(err)
	}
	docker("start", "--checkpoint-dir", dir, "--checkpoint", "away", "box")
	docker("rm", "-f", "box")
	docker("create", "-t", "--name", "late", "busybox", "sleep", "100")
	fails("checkpoint not support on containers with tty", "start", "--checkpoint-dir", dir, "--checkpoint", "away", "late")
}

// TestCheckpointRefusals: what criu can't make again is refused before it is asked
// to dump anything, and goes on.
func TestCheckpointRefusals(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "criu"), []byte(strings.ReplaceAll(fakeCriu, "$FAKE_LOG", bin+"/log")), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	d := testkit.StartBusybox(t, "--experimental")
	for _, c := range []struct{ name, flag, want string }{
		{"tty", "--tty", "Cannot checkpoint container tty: checkpoint not support on containers with tty"},
		{"reaped", "--init", "Cannot checkpoint container reaped: checkpoints of containers with --init are not supported"},
		{"own", "--userns=auto", "Cannot checkpoint container own: checkpoints of containers in a user namespace (userns-remap, --userns) are not supported"},
	} {
		id := d.OK(t, "run", "-d", c.flag, "--name", c.name, "busybox", "sleep", "100")
		if _, err := d.Gantry("checkpoint", "create", c.name, "one"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.flag, err)
		}
		if got := d.OK(t, "inspect", "-f", "{{.State.Status}}", c.name) + d.OK(t, "checkpoint", "ls", c.name); got != "runningCHECKPOINT NAME" {
			t.Errorf("%s: afterwards %q", c.flag, got)
		}
		if _, err := os.Stat(filepath.Join(d.Root, "containers", id, "checkpoints")); err == nil {
			t.Errorf("%s: something was written", c.flag)
		}
	}
	if log, err := os.ReadFile(filepath.Join(bin, "log")); err == nil {
		t.Errorf("criu was asked: %s", log)
	}
}

// TestCheckpointGate: without experimental features there are no checkpoints, and
// without criu there is an error that says so.
func TestCheckpointGate(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "100")
	for _, args := range [][]string{{"checkpoint", "ls", "box"}, {"checkpoint", "create", "box", "one"}, {"checkpoint", "rm", "box", "x"}} {
		if _, err := d.Gantry(args...); err == nil || !strings.Contains(err.Error(), "experimental") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := d.Gantry("start", "--checkpoint", "x", "box"); err == nil || !strings.Contains(err.Error(), "checkpoint is only supported in experimental mode") {
		t.Errorf("start: %v", err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir()) // in which there is no criu
	e := testkit.StartDaemon(t, "--experimental")
	t.Setenv("PATH", path)
	e.LoadBusybox(t)
	e.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "100")
	if _, err := e.Gantry("checkpoint", "create", "box", "one"); err == nil || !strings.Contains(err.Error(), "checkpoints need the program criu, which is not installed on this host") {
		t.Errorf("without criu: %v", err)
	}
}
