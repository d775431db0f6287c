package execute

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/launch"
)

// A file system that BuildKit may hand to several it mounts itself, and gives the
// mount point. An overlay can't be shown with other owners, though, as a daemon
// with --userns-remap has to: there the root, which nobody else has, is taken
// apart again, and launch mounts it in the container's user namespace.

// takeApart returns the directories of the overlay at a mount point, which then
// is none any more; false if there is none.
func takeApart(at string) (launch.Tree, bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return launch.Tree{}, false
	}
	defer f.Close()
	t, ok := overlayAt(f, at)
	if !ok || unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
		return launch.Tree{}, false
	}
	return t, true
}

// overlayAt reads the directories of a writable overlay off a mount table
// (proc_pid_mountinfo(5)). Pure.
func overlayAt(table io.Reader, at string) (t launch.Tree, ok bool) {
	sc := bufio.NewScanner(table)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		before, after, found := strings.Cut(sc.Text(), " - ")
		where, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(where) < 5 || len(kind) < 3 || where[4] != at {
			continue
		}
		t, ok = launch.Tree{}, false
		if kind[0] != "overlay" {
			continue
		}
		t = overlaid(strings.Split(kind[2], ","))
		ok = len(t.Lower) > 0 && filepath.IsAbs(t.Upper) && filepath.IsAbs(t.Work)
		for _, l := range t.Lower {
			ok = ok && filepath.IsAbs(l) && !strings.Contains(l, `\`)
		}
	}
	return t, ok
}
