package server

import (
	"slices"
	"strings"
	"testing"
)

// The arguments are those of criu(8); what they do is tried with the real
// program in test/vm.
func TestCriuArguments(t *testing.T) {
	f := &frozen{Stdio: [3]string{"file[1a:2b]", "pipe:[77]", "pipe:[78]"}, Net: 4026532000, Mounts: []string{"/data", "/proc/kcore"}}
	dump := strings.Join(f.dumpArgs(42, "/cp", true), " ")
	if want := "dump --tree 42 --images-dir /cp --log-file dump.log -v2 --manage-cgroups=ignore --tcp-established --ext-unix-sk --file-locks --network-lock nftables --leave-running" +
		" --external mnt[/data]:/data --external mnt[/proc/kcore]:/proc/kcore --external file[1a:2b] --external net[4026532000]:gantry-net"; dump != want {
		t.Errorf("%s\nwant\n%s", dump, want)
	}
	if stop := f.dumpArgs(42, "/cp", false); !slices.Contains(stop, "--leave-stopped") {
		t.Error("it is not left stopped:", stop)
	}
	restore := strings.Join(f.restoreArgs("/cp", "/root", "/pid", map[string]string{"/data": "/host/data", "/proc/kcore": "/dev/null"}), " ")
	if want := "restore --images-dir /cp --log-file restore.log -v2 --root /root --pidfile /pid --manage-cgroups=ignore --restore-detached --tcp-established --ext-unix-sk --file-locks" +
		" --external mnt[/data]:/host/data --external mnt[/proc/kcore]:/dev/null --inherit-fd fd[3]:file[1a:2b] --inherit-fd fd[4]:pipe:[77] --inherit-fd fd[5]:pipe:[78] --inherit-fd fd[6]:gantry-net"; restore != want {
		t.Errorf("%s\nwant\n%s", restore, want)
	}
	closed := &frozen{Stdio: [3]string{"", "pipe:[1]", ""}}
	if got := closed.restoreArgs("/cp", "/r", "/p", nil); got[len(got)-1] != "fd[3]:pipe:[1]" {
		t.Error(got)
	}
}

func TestCriuErrors(t *testing.T) {
	log := "(00.01) Warn  (a.c:1): careful\n(00.02) Error (b.c:2): first\nError (c.c:3): second\n(00.03) fine\n"
	if got := strings.Join(criuErrors(log), "|"); got != "Error (b.c:2): first|Error (c.c:3): second" {
		t.Error(got)
	}
}

func TestOutside(t *testing.T) {
	has := &mounts{at: map[string]madeMount{"/data": {bind: true}, "/mem": {}}}
	info := `1 0 0:50 / / rw - overlay overlay rw
2 1 8:1 /v/_data /data rw - ext4 /dev/sda rw
3 1 0:60 / /mem rw - tmpfs tmpfs rw
4 1 0:5 /null /proc/kcore ro - devtmpfs udev rw
5 1 0:30 /x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
6 1 8:1 /other /mine rw - ext4 /dev/sda rw
short
`
	if got := outside(info, has); !slices.Equal(got, []string{"/data", "/proc/kcore", "/sys/fs/cgroup/memory"}) {
		t.Error(got)
	}
}
