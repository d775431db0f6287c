package security

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gantry/internal/testkit"
)

// CVE-2021-21284: root of a container in a user namespace, with all that a
// container can be given, is nobody on the host: neither from inside nor, once
// it is out, through the engine's own files.
func TestRemappedRootIsNobody(t *testing.T) {
	d := testkit.StartBusybox(t)
	canary := t.TempDir()
	secret := filepath.Join(canary, "secret")
	if err := os.WriteFile(secret, []byte("host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, canary)
	auto := []string{"run", "--rm", "--userns", "auto", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "-v", canary + ":/c"}
	for name, script := range map[string]string{
		"read a file of the host's root":   "cat /c/secret",
		"take it over":                     "chown 0 /c/secret || chmod 666 /c/secret",
		"write beside it":                  "touch /c/new",
		"make a device":                    "mknod /tmp/d c 1 11 || mknod /tmp/b b 7 0",
		"set a switch of the kernel":       "echo 1 > /proc/sys/kernel/sysrq || echo x > /proc/sys/kernel/core_pattern",
		"press a key":                      "echo h > /proc/sysrq-trigger",
		"write to a control group":         "mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x",
		"mount what the kernel has":        "mkdir /tmp/m; mount -t debugfs x /tmp/m || mount -t cgroup -o pids x /tmp/m || mount -t bpf x /tmp/m && ls /tmp/m/kprobes",
		"lower its own score":              "echo -1000 > /proc/self/oom_score_adj",
		"become a user that is not mapped": "busybox chpst -u :70000:70000 true",
		"set the clock":                    "date -s 2001-01-01; [ $(date +%Y) = 2001 ]",
	} {
		if out, err := d.Gantry(append(auto, "busybox", "sh", "-c", script)...); err == nil {
			t.Errorf("it can %s: %s", name, out)
		}
	}
	if after := snapshot(t, canary); after != before {
		t.Errorf("the host's directory was %s, is %s", before, after)
	}

	// What it leaves on the disk, and where its processes live.
	d.OK(t, "run", "-d", "--name", "box", "--userns", "auto", "-v", "kept:/v", "busybox", "sh", "-c", "cp /bin/busybox /su; chmod 4755 /su; cp /su /v/su; chmod 4755 /v/su; exec sleep 300")
	pid := strings.TrimSpace(d.OK(t, "inspect", "-f", "{{.State.Pid}}", "box"))
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/"+pid, &st); err != nil || st.Uid < 1<<30 {
		t.Fatalf("its process is of user %d, %v", st.Uid, err)
	}
	as := func(uid uint32, args ...string) ([]byte, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.CombinedOutput()
	}
	for _, uid := range []uint32{st.Uid, 65534} {
		for _, root := range []string{d.Root, d.Run} {
			out, _ := as(uid, "find", root, "-mindepth", "1")
			if seen := strings.TrimSpace(strings.ReplaceAll(string(out), "find: ‘"+root+"’: Permission denied", "")); seen != "" && !strings.Contains(seen, "Permission denied") {
				t.Errorf("user %d sees in %s:\n%s", uid, root, seen)
			}
		}
		for _, su := range []string{filepath.Join(d.Root, "volumes/kept/_data/su"), filepath.Join(d.Root, "containers")} {
			if _, err := as(uid, "ls", su); err == nil {
				t.Errorf("user %d reaches %s", uid, su)
			}
		}
	}
	// Another container's processes are not its, whatever it may do inside.
	d.OK(t, "run", "-d", "--name", "other", "--userns", "auto", "--pid", "container:box", "busybox", "sleep", "300")
	if a, b := uidOf(t, d, "box"), uidOf(t, d, "other"); a != b {
		t.Errorf("containers that share pids are of users %d and %d", a, b)
	}
	d.OK(t, "run", "-d", "--name", "apart", "--userns", "auto", "busybox", "sleep", "300")
	if uidOf(t, d, "apart") == st.Uid {
		t.Error("two containers have one range of ids")
	}
	d.OK(t, "rm", "-f", "other", "apart", "box")
}

func uidOf(t *testing.T, d *testkit.Daemon, name string) uint32 {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(d.OK(t, "inspect", "-f", "{{.State.Pid}}", name)))
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/"+strconv.Itoa(pid), &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}
