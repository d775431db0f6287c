package launch

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Resolv brings a running container's /etc/resolv.conf in line with the networks
// that it has changed to. One that is not as it was written is left alone: it is
// the user's.
func (l *Launcher) Resolv(in Input, was, now *Sandbox) error {
	if was == nil || now == nil {
		return nil
	}
	f := hostFiles(in.Plan, in.Plan.Hostname(in.ID))
	_, before, err := l.o.Networks.Files(was, f)
	if err != nil {
		return err
	}
	_, after, err := l.o.Networks.Files(now, f)
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	return exchangeText(filepath.Join(l.dir(in.ID), "resolv.conf"), before, after)
}

// exchangeText replaces what a file says if that is before. The file keeps its
// inode, which is mounted in the container.
func exchangeText(path string, before, after []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has another's
	}
	if err != nil {
		return err
	}
	defer file.Close()
	old, err := io.ReadAll(io.LimitReader(file, int64(len(before))+1))
	if err != nil || !bytes.Equal(old, before) {
		return err
	}
	if _, err := file.WriteAt(after, 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(after)))
}
