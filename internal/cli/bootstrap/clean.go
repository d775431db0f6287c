package bootstrap

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
)

// Clean copies the tar of a root file system from r to w without what differs from
// one making to the next, or belongs to the machine it was made on: ids, logs,
// caches, devices, and times after p's date. Entries stay in their order.
func Clean(w io.Writer, r io.Reader, p Plan) error {
	c := cleaner{date: p.Date, slim: p.Slim, tw: tar.NewWriter(w), gone: map[string]bool{}, seen: map[string]bool{}}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = c.entry(h, tr)
		}
		if err != nil {
			return err
		}
	}
	if err := c.additions(); err != nil {
		return err
	}
	if err := c.tw.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r) // what pads a tar
	return err
}

type cleaner struct {
	date time.Time
	slim bool
	tw   *tar.Writer
	gone map[string]bool // what was left out, for links to it
	seen map[string]bool // directories and files that additions depend on
}

func (c *cleaner) entry(h *tar.Header, body io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name != "" && c.drops(name, h) || h.Typeflag == tar.TypeLink && c.gone[linkTarget(h)] {
		c.gone[name] = true
		return nil
	}
	c.seen[name] = true
	out := &tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o7777,
		Uid: h.Uid, Gid: h.Gid, ModTime: c.clamp(h.ModTime), Devmajor: h.Devmajor, Devminor: h.Devminor,
	}
	switch {
	case name == "":
		out.Name = "./"
	case h.Typeflag == tar.TypeDir:
		out.Name += "/"
	case h.Typeflag == tar.TypeLink:
		out.Linkname = linkTarget(h)
	}
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			if out.PAXRecords == nil {
				out.PAXRecords = map[string]string{}
			}
			out.PAXRecords[k] = v
		}
	}
	switch {
	case h.Typeflag != tar.TypeReg:
	case empties(name):
		out.Size, body = 0, bytes.NewReader(nil)
	case name == "etc/shadow":
		data, err := io.ReadAll(io.LimitReader(body, 1<<20))
		if err != nil {
			return err
		}
		data = shadow(data, c.date)
		out.Size, body = int64(len(data)), bytes.NewReader(data)
	}
	if err := c.tw.WriteHeader(out); err != nil {
		return err
	}
	if out.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(c.tw, body)
	return err
}

func linkTarget(h *tar.Header) string { return strings.TrimPrefix(path.Clean("/"+h.Linkname), "/") }

func (c *cleaner) clamp(t time.Time) time.Time {
	if t = t.Truncate(time.Second); t.After(c.date) {
		t = c.date
	}
	return t
}

// hollow are directories that keep nothing.
var hollow = []string{"dev/", "proc/", "sys/", "run/", "tmp/", "var/tmp/", "var/lib/apt/lists/", "var/cache/apt/", "var/cache/ldconfig/", "var/cache/man/"}

// drops reports whether an entry is left out.
func (c *cleaner) drops(name string, h *tar.Header) bool {
	for _, d := range hollow {
		if strings.HasPrefix(name, d) {
			// Below var the directories themselves are parts of packages.
			return h.Typeflag != tar.TypeDir || !strings.HasPrefix(name, "var/")
		}
	}
	switch name {
	case "etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "root/.bash_history":
		return true
	}
	switch {
	case h.Typeflag == tar.TypeDir:
		return path.Base(name) == "__pycache__"
	case strings.HasPrefix(name, "var/log/"):
		return !accounts(name)
	case strings.HasPrefix(name, "var/lib/dpkg/") || strings.HasPrefix(name, "var/cache/debconf/"):
		return strings.HasSuffix(name, "-old")
	case strings.HasSuffix(name, ".pyc"):
		return strings.HasPrefix(name, "usr/")
	}
	return c.slim && slimDrops(name)
}

// accounts reports whether name is a record of logins, which programs expect.
func accounts(name string) bool {
	switch name {
	case "var/log/btmp", "var/log/wtmp", "var/log/lastlog", "var/log/faillog":
		return true
	}
	return false
}

// empties reports whether a file stays, with nothing in it. An empty machine-id
// has the first start make one.
func empties(name string) bool {
	return name == "etc/machine-id" || accounts(name)
}

// slimDrops is slimConfig for what is installed already.
func slimDrops(name string) bool {
	rest, ok := strings.CutPrefix(name, "usr/share/")
	if !ok {
		return false
	}
	dir, file, _ := strings.Cut(rest, "/")
	switch dir {
	case "doc":
		return path.Base(file) != "copyright"
	case "man", "info", "lintian", "linda", "groff":
		return true
	case "locale":
		return file != "locale.alias"
	}
	return false
}

// shadow cuts the days at which passwords were changed to date.
func shadow(data []byte, date time.Time) []byte {
	limit := date.Unix() / 86400
	lines := strings.SplitAfter(string(data), "\n")
	for i, l := range lines {
		f := strings.Split(l, ":")
		if len(f) < 3 {
			continue
		}
		if day, err := strconv.ParseInt(f[2], 10, 64); err == nil && day > limit {
			f[2] = strconv.FormatInt(limit, 10)
			lines[i] = strings.Join(f, ":")
		}
	}
	return []byte(strings.Join(lines, ""))
}

const (
	// noServices has packages that are installed start nothing: policy-rc.d of
	// Debian's invoke-rc.d.
	noServices = "#!/bin/sh\n# Packages start no services in a container.\nexit 101\n"
	// smallApt has apt keep no packages and no second copy of its lists.
	smallApt = `Binary::apt::APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
`
	slimConfig = `path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/groff/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/locale/*
path-include /usr/share/locale/locale.alias
`
)

// additions writes what a container wants otherwise than a machine, where its
// directory is there and no package has brought it.
func (c *cleaner) additions() error {
	list := []struct {
		name, text string
		mode       int64
		want       bool
	}{
		{"usr/sbin/policy-rc.d", noServices, 0o755, true},
		{"etc/apt/apt.conf.d/99container", smallApt, 0o644, true},
		{"etc/dpkg/dpkg.cfg.d/slim", slimConfig, 0o644, c.slim},
	}
	for _, f := range list {
		if !f.want || c.seen[f.name] || !c.seen[path.Dir(f.name)] {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.text)), ModTime: c.date}
		if err := c.tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(c.tw, f.text); err != nil {
			return err
		}
	}
	return nil
}
