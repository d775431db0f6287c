package extension

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path"
	"strings"

	"gantry/internal/errs"
)

// split reads the tar of a plugin as it is created of: config.json and rootfs. It
// returns the first, and writes what is below the second to w as a tar of its own.
// Names that lead out of rootfs are refused; what they are unpacked to is the
// unpacker's to bound.
func split(r io.Reader, w io.Writer) (config []byte, err error) {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	rootfs := false
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errs.New(errs.Unknown, "failed to read from tar: %w", err)
		}
		name, err := local(h.Name)
		if err != nil {
			return nil, err
		}
		switch rest, below := strings.CutPrefix(name, "rootfs/"); {
		case name == "config.json":
			if config, err = readConfig(in, h, config); err != nil {
				return nil, err
			}
		case name == "rootfs":
			if h.Typeflag != tar.TypeDir {
				return nil, errs.New(errs.Invalid, "rootfs is no directory")
			}
			rootfs = true
		case below:
			rootfs = true
			if err := copyEntry(out, in, h, rest); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case config == nil:
		return nil, errs.New(errs.Invalid, "config not found")
	case !rootfs:
		return nil, errs.New(errs.Invalid, "rootfs not found")
	}
	return config, out.Close()
}

// local makes a name of a tar clean, and refuses one that leads out.
func local(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errs.New(errs.Invalid, "entry %.200q of the tar leads out of it", name)
		}
	}
	return clean, nil
}

func readConfig(in io.Reader, h *tar.Header, before []byte) ([]byte, error) {
	if before != nil || h.Typeflag != tar.TypeReg {
		return nil, errs.New(errs.Invalid, "config.json has to be one regular file")
	}
	data, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return nil, errs.New(errs.Unknown, "failed to read from tar: %w", err)
	}
	return bytes.TrimSpace(data), nil
}

// copyEntry writes one entry under the name that it has in the root.
func copyEntry(out *tar.Writer, in io.Reader, h *tar.Header, name string) error {
	c := *h
	if c.Name = name; h.Typeflag == tar.TypeDir {
		c.Name += "/"
	}
	if h.Typeflag == tar.TypeLink {
		to, err := local(h.Linkname)
		if err != nil {
			return err
		}
		rest, ok := strings.CutPrefix(to, "rootfs/")
		if !ok {
			return errs.New(errs.Invalid, "hard link %.200q leads out of rootfs, to %.200q", h.Name, h.Linkname)
		}
		c.Linkname = rest
	}
	if c.PAXRecords != nil { // names are written anew
		records := map[string]string{}
		for k, v := range c.PAXRecords {
			if k != "path" && k != "linkpath" {
				records[k] = v
			}
		}
		c.PAXRecords = records
	}
	c.Format = tar.FormatPAX
	if err := out.WriteHeader(&c); err != nil {
		return errs.New(errs.Invalid, "entry %.200q of the tar: %w", h.Name, err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return errs.New(errs.Unknown, "failed to read from tar: %w", err)
	}
	return nil
}
