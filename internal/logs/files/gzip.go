package files

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// compress replaces path by path.gz, whose gzip header has the identity of the
// original as its comment. Log files that can't be compressed stay as they
// are, which costs room but no entry, so there is nothing to report. At every
// moment at least one of the two forms is there and complete.
func compress(path string) {
	in, err := os.Open(path)
	if err != nil {
		return
	}
	defer in.Close()
	id, err := identify(in)
	if err != nil {
		return
	}
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return
	}
	defer os.Remove(tmp) // fails once it is renamed
	defer out.Close()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return
	}
	z.Comment = id
	if _, err = io.Copy(z, in); err != nil {
		return
	}
	if z.Close() != nil || out.Close() != nil {
		return
	}
	unlock := lockNames(path, unix.LOCK_EX)
	defer unlock()
	if os.Rename(tmp, path+".gz") == nil {
		os.Remove(path)
	}
}

// identify returns what tells a log file from all others of its log, before and
// after: inode numbers are used again, so the time of its creation goes with it
// where the file system keeps one.
func identify(f *os.File) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", os.NewSyscallError("statx", err)
	}
	return statxID(&st), nil
}

func statxID(st *unix.Statx_t) string {
	b := strconv.AppendUint(nil, st.Ino, 10)
	b = strconv.AppendInt(append(b, '@'), st.Btime.Sec, 10)
	return string(strconv.AppendUint(append(b, '.'), uint64(st.Btime.Nsec), 10))
}
