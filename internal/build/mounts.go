package build

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// sweepMounts takes away what is mounted below dir, and removes it with all in
// it: what builds of a process that is no more have left. A directory that does
// not exist is no error.
func sweepMounts(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var all []error
	for _, at := range slices.Backward(points) {
		all = append(all, unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	if err := errors.Join(all...); err != nil {
		return err // nothing of a mount may be removed
	}
	return os.RemoveAll(dir)
}

// mountsBelow returns the mount points below dir in the order they were made.
func mountsBelow(dir string) ([]string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if fields := strings.Fields(sc.Text()); len(fields) > 4 {
			if at := unescape.Replace(fields[4]); strings.HasPrefix(at, real+"/") {
				list = append(list, at)
			}
		}
	}
	return list, sc.Err()
}
