package clients_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// A flagCase is one use of flags of run, and what a program in the container
// sees of it, or why it is refused.
type flagCase struct {
	flags  string // separated by blanks
	script string // for sh; empty for true
	want   string // what it prints
	code   int    // if it fails
	text   string // that is said then
}

// group prints files of the process's control group on cgroup v1 (named
// controller/file), or else one of v2.
func group(v1, v2 string) string {
	return "cat /sys/fs/cgroup/" + v1 + " 2>/dev/null || cat /sys/fs/cgroup/" + v2
}

// status prints a line of /proc/self/status.
func status(name string) string { return "grep '^" + name + ":' /proc/self/status | cut -f2" }

// apparmorWarning is what is said of a profile where there is no AppArmor.
func apparmorWarning() string {
	if on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); len(on) > 0 && on[0] == 'Y' {
		return ""
	}
	return "The profile mine does not confine the container."
}

// isolationFlags are the flags of run about what a container may do and have.
var isolationFlags = []flagCase{
	{"", status("CapEff"), "00000000a80425fb", 0, ""},
	{"--cap-drop ALL", status("CapEff"), "0000000000000000", 0, ""},
	{"--cap-drop ALL --cap-add chown --cap-add CAP_KILL", status("CapEff"), "0000000000000021", 0, ""},
	{"--cap-add NOSUCH", "", "", 125, `invalid CapAdd: unknown capability: "CAP_NOSUCH"`},
	{"--cap-add ALL --cap-drop NET_RAW", status("CapEff") + "| tail -c 5", "dfff", 0, ""},
	{"--cap-add SYS_ADMIN -u 1000", status("CapEff"), "0000000000000000", 0, ""},
	{"", status("NoNewPrivs") + ";" + status("Seccomp"), "0\n2", 0, ""},
	{"--security-opt no-new-privileges", status("NoNewPrivs"), "1", 0, ""},
	{"--security-opt no-new-privileges=true", status("NoNewPrivs"), "1", 0, ""},
	{"--security-opt no-new-privileges=false", status("NoNewPrivs"), "0", 0, ""},
	{"--security-opt no-new-privileges=bogus", "", "", 125, `invalid --security-opt`},
	{"--security-opt seccomp=unconfined", status("Seccomp"), "0", 0, ""},
	{"--security-opt seccomp=builtin", status("Seccomp"), "2", 0, ""},
	{"--security-opt seccomp=FILE", "mkdir /x 2>&1 || echo denied", "mkdir: can't create directory '/x': Operation not permitted\ndenied", 0, ""},
	{"--security-opt seccomp=/nonexistent", "", "", 125, "opening seccomp profile (/nonexistent) failed"},
	{"--security-opt label=disable", "echo fine", "fine", 0, ""},
	{"--security-opt apparmor=unconfined", "echo fine", "fine", 0, ""},
	{"--security-opt apparmor=mine", "echo fine", "fine", 0, apparmorWarning()},
	{"--security-opt bogus", "", "", 125, `nvalid --security-opt: "bogus"`},
	{"--security-opt bogus=1", "", "", 125, "invalid --security-opt"},
	{"", "cat /proc/interrupts | wc -c; ls /proc/acpi /sys/firmware | grep -v :; touch /proc/sys/kernel/hostname 2>/dev/null || echo read-only", "0\n\nread-only", 0, ""},
	{"--security-opt systempaths=unconfined", "ls /sys/firmware | head -1 | wc -l; grep -c ' /proc/' /proc/mounts; true", "1\n0", 0, ""},
	{"", "touch /sys/fs/cgroup/x 2>&1 | grep -o Read-only; mkdir /sys/fs/cgroup/pids/x 2>&1 | grep -o Read-only", "Read-only\nRead-only", 0, ""},
	{"--security-opt writable-cgroups=true --cgroupns private", "d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; mkdir $d/x && rmdir $d/x && echo made", "made", 0, ""},
	{"--privileged", status("Seccomp") + "; touch /proc/sys/kernel/hostname && echo writable; ls /dev | wc -l | awk '{print ($1 > 20)}'; grep -c ' /sys sysfs rw' /proc/mounts", "0\nwritable\n1\n1", 0, ""},
	{"--privileged --cap-drop ALL", "[ $(" + status("CapEff") + ") = $(" + status("CapBnd") + ") ] && echo all; " + status("CapEff") + " | tail -c 5", "all\nffff", 0, ""},
	{"--user 5:6", "id -u; id -g; id -G", "5\n6\n6", 0, ""},
	{"-u daemon2", "", "", 125, "unable to find user daemon2: no matching entries in passwd file"},
	{"-u 4294967296", "", "", 125, "uids and gids must be in range 0-2147483647"},
	{"--group-add 42 --group-add 43", "id -G", "0 42 43", 0, ""},
	{"--group-add nosuch", "", "", 125, "unable to find group nosuch"},
	{"--userns host", "cat /proc/self/uid_map | tr -s ' '", " 0 0 4294967295", 0, ""},
	{"--read-only", "touch /x 2>&1; touch /dev/shm/x && echo shm", "touch: /x: Read-only file system\nshm", 0, ""},
	{"--read-only --tmpfs /run:rw,size=1m,mode=711,exec", "touch /run/x && stat -c %a /run; grep ' /run tmpfs' /proc/mounts | grep -c noexec; true", "711\n0", 0, ""},
	{"--tmpfs /t", "grep ' /t ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | grep -E '^no(exec|suid|dev)$' | sort", "nodev\nnoexec\nnosuid", 0, ""},
	{"--tmpfs /t:bogus=1", "", "", 125, `invalid tmpfs option "bogus"`},
	{"--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'", "700\n1024", 0, ""},
	{"--shm-size 3m", "df -k /dev/shm | tail -1 | awk '{print $2}'", "3072", 0, ""},
	{"--shm-size -1", "", "", 125, "invalid"},
	{"", "df -k /dev/shm | tail -1 | awk '{print $2}'", "65536", 0, ""},
	{"--storage-opt bogus=1", "", "", 125, "Unknown option bogus"},
	{"--storage-opt size=1g", "", "", 125, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option: "},
	{"--storage-opt size=x", "", "", 125, "storage option size"},
	{"--workdir /made/here", "pwd", "/made/here", 0, ""},
	{"--entrypoint echo", "said", "-c said", 0, ""},
	{"--runtime nosuch", "", "", 125, "unknown or invalid runtime name: nosuch"},
}

// namespaceFlags are those about what it shares with the host, and sysctls.
var namespaceFlags = []flagCase{
	{"--hostname named --domainname dom.test", "hostname; cat /proc/sys/kernel/domainname; grep -c named /etc/hosts", "named\ndom.test\n1", 0, ""},
	{"--uts host", "hostname", "HOSTNAME", 0, ""},
	{"--uts host --hostname x", "", "", 125, "conflicting options: hostname and the UTS mode"},
	{"--uts bogus", "", "", 125, "--uts: invalid UTS mode"},
	{"--pid host", "[ $$ -gt 1 ] && ls -d /proc/DAEMON", "/proc/DAEMON", 0, ""},
	{"--pid bogus", "", "", 125, "--pid: invalid PID mode"},
	{"", "echo $$", "1", 0, ""},
	{"--init", "cat /proc/1/comm | grep -c sh; [ $$ -gt 1 ] && echo second", "0\nsecond", 0, ""},
	{"--ipc host", "readlink /proc/self/ns/ipc", "IPCNS", 0, ""},
	{"--ipc none", "ls -d /dev/shm 2>/dev/null || echo none; ls /dev/mqueue > /dev/null && echo queue", "none\nqueue", 0, ""},
	{"--ipc private", "ls -d /dev/shm", "/dev/shm", 0, ""},
	{"--ipc bogus", "", "", 125, "invalid IPC mode: bogus"},
	{"--network none", "ls /sys/class/net", "lo", 0, ""},
	{"--network host", "readlink /proc/self/ns/net", "NETNS", 0, ""},
	{"--mac-address 02:00:00:00:12:34", "cat /sys/class/net/eth0/address", "02:00:00:00:12:34", 0, ""},
	{"--cgroupns private", "cat /proc/self/cgroup | cut -d: -f3 | sort -u", "/", 0, ""},
	{"--cgroupns host", "grep -c gantry- /proc/self/cgroup | awk '{print ($1 > 0)}'", "1", 0, ""},
	{"--cgroupns bogus", "", "", 125, "--cgroupns: invalid CGROUP mode"},
	{"--cgroupns host --cgroup-parent /gantry-test-parent", "grep -c /gantry-test-parent/ /proc/self/cgroup | awk '{print ($1 > 0)}'", "1", 0, ""},
	{"--sysctl net.core.somaxconn=77 --sysctl kernel.msgmax=9000 --sysctl fs.mqueue.msg_max=11", "cd /proc/sys; cat net/core/somaxconn kernel/msgmax fs/mqueue/msg_max", "77\n9000\n11", 0, ""},
	{"--sysctl net.ipv4.ip_forward=0", "cat /proc/sys/net/ipv4/ip_forward", "0", 0, ""},
	{"--sysctl kernel.core_pattern=x", "", "", 125, "sysctl 'kernel.core_pattern=x' is not allowed"},
	{"--sysctl fs.mqueue.nosuch=1", "", "", 127, "sysctl fs.mqueue.nosuch: open /proc/sys/fs/mqueue/nosuch: no such file or directory"},
	{"--sysctl net.core.somaxconn=1 --network host", "", "", 125, `sysctl "net.core.somaxconn" not allowed in host network namespace`},
	{"--sysctl kernel.msgmax=1 --ipc host", "", "", 125, `sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace`},
	{"--sysctl net.ipv4.nosuch=1", "", "", 127, "sysctl net.ipv4.nosuch: open /proc/sys/net/ipv4/nosuch: no such file or directory"},
	{"--dns 10.1.2.3 --dns-search a.test --dns-opt ndots:3", "grep -v '^#' /etc/resolv.conf | grep -v '^$' | sort", "nameserver 10.1.2.3\noptions ndots:3\nsearch a.test", 0, ""},
	{"--add-host other:10.9.8.7", "grep other /etc/hosts | tr '\\t' ' '", "10.9.8.7 other", 0, ""},
}

// limitFlags are those about resources and devices.
var limitFlags = []flagCase{
	{"-m 32m --memory-swap 32m", group("memory/memory.limit_in_bytes", "memory.max"), "33554432", 0, ""},
	{"-m 32m --memory-reservation 16m", group("memory/memory.soft_limit_in_bytes", "memory.low"), "16777216", 0, ""},
	{"-m 32m --memory-reservation 64m", "", "", 125, "Minimum memory limit can not be less than memory reservation limit, see usage"},
	{"-m 1m", "", "", 125, "Minimum memory limit allowed is 6MB"},
	{"-m 32m --memory-swap 16m", "", "", 125, "Minimum memoryswap limit should be larger than memory limit, see usage"},
	{"--memory-swap 32m", "", "", 125, "You should always set the Memory limit when using Memoryswap limit, see usage"},
	{"--memory-swappiness 101", "", "", 125, "nvalid value: 101"},
	{"--oom-score-adj 77", "cat /proc/self/oom_score_adj", "77", 0, ""},
	{"--oom-score-adj 2000", "", "", 125, "Invalid value 2000, range for oom score adj is [-1000, 1000]"},
	{"--pids-limit 33", group("pids/pids.max", "pids.max"), "33", 0, ""},
	{"--pids-limit -1", group("pids/pids.max", "pids.max"), "max", 0, ""},
	{"--cpus 0.25", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max", "25000", 0, ""},
	{"--cpus 1000", "", "", 125, "range of CPUs is from 0.01 to"},
	{"--cpu-period 50000 --cpu-quota 10000", "cd /sys/fs/cgroup; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us 2>/dev/null || cat cpu.max)", "10000 50000", 0, ""},
	{"--cpu-shares 512", "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || echo 512", "512", 0, ""},
	{"--cpuset-cpus 0 --cpuset-mems 0", group("cpuset/cpuset.cpus", "cpuset.cpus"), "0", 0, ""},
	{"--cpuset-cpus 999", "", "", 125, "Requested CPUs are not available"},
	{"--ulimit nofile=100:200 --ulimit core=0", "ulimit -n; ulimit -H -n; ulimit -c", "100\n200\n0", 0, ""},
	{"--ulimit nofile=200:100", "", "", 125, "ulimit soft limit must be less than or equal to hard limit"},
	{"--ulimit bogus=1", "", "", 125, "invalid ulimit type: bogus"},
	{"--device /dev/kmsg:/dev/k", "stat -c %t:%T /dev/k", "1:b", 0, ""},
	{"--device /dev/kmsg:/dev/k:w --cap-add SYSLOG", "(exec 3</dev/k) 2>/dev/null && echo r; (exec 3>/dev/k) && echo w", "w", 0, ""},
	{"--device /dev/kmsg:/dev/k:r --cap-add SYSLOG", "(exec 3</dev/k) && echo r; (exec 3>/dev/k) 2>/dev/null || echo denied", "r\ndenied", 0, ""},
	{"--device /dev/nosuch", "", "", 127, `error gathering device information while adding custom device "/dev/nosuch": no such file or directory`},
	{"--device /dev/kmsg:/dev/k:q", "", "", 125, "bad mode specified: q"},
	{"", "mknod /tmp/k c 1 11 && (exec 3>/tmp/k) 2>/dev/null || echo denied", "denied", 0, ""},
	{"--device-cgroup-rule=c_1:11_w", "mknod /tmp/k c 1 11; (exec 3>/tmp/k) && echo w", "w", 0, ""},
	{"--device-cgroup-rule=c_1:*_rwm", "mknod /tmp/k c 1 11; (exec 3>/tmp/k) && echo w", "w", 0, ""},
	{"--device-cgroup-rule=bogus", "", "", 125, "invalid device cgroup format"},
	{"--device-read-bps /dev/nosuch:1m", "", "", 127, "/dev/nosuch: no such file or directory"},
	{"--device-read-bps /dev/loop0:1m --device-write-iops /dev/loop0:50", "cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device 2>/dev/null || echo '7:0 1048576'; true", "7:0 1048576\n7:0 50", 0, ""},
	{"--gpus all", "", "", 125, "failed to discover GPU vendor from CDI: no known GPU vendor found"},
}

// TestRunFlags uses each flag of run that confines a container, and looks from
// inside.
func TestRunFlags(t *testing.T) {
	t.Cleanup(func() { // what --cgroup-parent names stays, being the user's
		left, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-test-parent")
		for _, dir := range append(left, "/sys/fs/cgroup/gantry-test-parent") {
			os.Remove(dir)
		}
	})
	d := testkit.StartBusybox(t)
	s := story{t, clients.CLI{Path: d.Program("gantry"), Env: []string{"GANTRY_HOST=unix://" + d.Socket, "DOCKER_HOST=unix://" + d.Socket, "DOCKER_CONTEXT=", "DOCKER_CONFIG=" + t.TempDir(), "TERM=xterm"}}}
	if path, err := exec.LookPath("docker"); err == nil {
		s.cli.Path = path
	}
	profile := filepath.Join(t.TempDir(), "profile.json")
	s.must(os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600))
	host, err := os.Hostname()
	s.must(err)
	// Those of the daemon: /proc/self is the first thread, which another test may
	// have used up in a namespace of its own.
	ns := fmt.Sprintf("/proc/%d/ns/", d.Pid())
	ipc, err := os.Readlink(ns + "ipc")
	s.must(err)
	net, err := os.Readlink(ns + "net")
	s.must(err)
	fill := strings.NewReplacer("FILE", profile, "HOSTNAME", host, "IPCNS", ipc, "NETNS", net, "DAEMON", strconv.Itoa(d.Pid()))
	for kind, cases := range map[string][]flagCase{"isolation": isolationFlags, "namespaces": namespaceFlags, "limits": limitFlags} {
		t.Run(kind, func(t *testing.T) {
			for _, c := range cases {
				c.run(t, s.cli, fill)
			}
		})
	}
}

func (c flagCase) run(t *testing.T, cli clients.CLI, fill *strings.Replacer) {
	t.Helper()
	args := []string{"run", "--rm"}
	for f := range strings.FieldsSeq(fill.Replace(c.flags)) {
		if strings.HasPrefix(f, "--device-cgroup-rule") {
			f = strings.ReplaceAll(f, "_", " ")
		}
		args = append(args, f)
	}
	script := fill.Replace(c.script)
	if script == "" {
		script = "true"
	}
	if strings.Contains(c.flags, "--entrypoint") {
		args = append(args, "busybox", "-c", script)
	} else {
		args = append(args, "busybox", "sh", "-c", script)
	}
	r, err := cli.Run(nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if want := fill.Replace(c.want); r.Code != c.code || strings.TrimSuffix(r.Stdout, "\n") != want || !strings.Contains(r.Stderr, c.text) {
		t.Errorf("run %s: %s\n\tgot %d, %q, %q\n\twant %d, %q, %q", c.flags, script, r.Code, r.Stdout, r.Stderr, c.code, want, c.text)
	}
}
