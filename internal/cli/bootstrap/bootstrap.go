// Package bootstrap makes the root file system of a Debian or Ubuntu release
// with the host's mmdebstrap or debootstrap, from the mirrors that the host's apt
// uses, as a tar that is the same for the same packages and date. Package cli
// calls it and hands the tar to a daemon, which may be another machine's.
//
// It runs programs of the host and writes to a temporary directory, which is gone
// when it returns. It must not know the API, and names no mirror itself.
package bootstrap

import (
	"context"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"gantry/internal/errs"
)

// A Plan is what to make.
type Plan struct {
	Release
	Arch    string    // of Debian: amd64; empty for this machine's
	Variant string    // as the programs call it; empty for minbase
	Include []string  // further packages
	Mirrors []string  // addresses or lines of sources.list; empty for the host's
	Date    time.Time // the newest that a file may be
	Tool    string    // Mmdebstrap, Debootstrap, or empty for what is there
}

// The programs.
const (
	Mmdebstrap  = "mmdebstrap"
	Debootstrap = "debootstrap"
)

// Find returns which of the programs to use: want if it is not empty. Without any,
// the error says how to get one.
func Find(want string) (string, error) {
	list := []string{Mmdebstrap, Debootstrap}
	if want != "" {
		list = []string{want}
	}
	for _, t := range list {
		if t != Mmdebstrap && t != Debootstrap {
			return "", errs.New(errs.Invalid, "invalid tool %q: %s or %s", t, Mmdebstrap, Debootstrap)
		}
		if t == Debootstrap && os.Geteuid() != 0 {
			continue
		}
		if _, err := exec.LookPath(t); err == nil {
			return t, nil
		}
	}
	if want == Debootstrap && os.Geteuid() != 0 {
		return "", errs.New(errs.Denied, "debootstrap needs root; mmdebstrap does not: apt-get install --no-install-recommends mmdebstrap")
	}
	if want == "" {
		want = Mmdebstrap
	}
	return "", errs.New(errs.NotFound, "bootstrap needs a program of this host that is not there: run 'apt-get install --no-install-recommends %s'", want)
}

// Make writes the tar of what p says to w. tell gets what the program reports, a
// line at a time. When ctx ends the program is stopped, and what it has made is
// removed.
func Make(ctx context.Context, p Plan, w io.Writer, tell func(line string)) error {
	tool, err := Find(p.Tool)
	if err != nil {
		return err
	}
	if len(p.Mirrors) == 0 {
		p.Mirrors = hostMirrors(ctx, p.Release)
	}
	dir, err := os.MkdirTemp("", "gantry-bootstrap-")
	if err != nil {
		return err
	}
	// mmdebstrap gives its directory to other users where it is not root.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := runner{dir: dir, date: p.Date, proxy: proxies(ctx), tell: tell}
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := r.produce(ctx, tool, p, pw)
		pw.CloseWithError(err)
		done <- err
	}()
	err = Clean(w, pr, p)
	pr.CloseWithError(io.ErrClosedPipe)
	if perr := <-done; perr != nil && (err == nil || ctx.Err() != nil || perr != io.ErrClosedPipe) {
		err = perr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Args returns the command that makes p: for Mmdebstrap one that writes a tar to
// its output, for Debootstrap one that fills the directory root.
func Args(tool string, p Plan, root string) []string {
	variant := p.Variant
	if variant == "" {
		variant = "minbase"
	}
	args := []string{tool, "--variant=" + variant}
	if tool == Debootstrap && variant == "standard" {
		args = args[:1] // what it makes without a variant
	}
	if p.Arch != "" {
		switch tool {
		case Mmdebstrap:
			args = append(args, "--architectures="+p.Arch)
		default:
			args = append(args, "--arch="+p.Arch)
		}
	}
	if len(p.Include) > 0 {
		args = append(args, "--include="+strings.Join(p.Include, ","))
	}
	if tool == Mmdebstrap {
		args = append(args, "--format=tar")
		if p.Distro == "ubuntu" {
			args = append(args, "--components=main,universe")
		}
		args = append(args, "--", p.Suite, "-")
		return append(args, p.Mirrors...)
	}
	if p.Distro == "ubuntu" {
		args = append(args, "--components=main,universe")
	}
	args = append(args, p.Suite, root)
	for _, m := range p.Mirrors { // it knows one, which is an address
		if uri, ok := mirrorAddress(m, p.Suite); ok {
			return append(args, uri)
		}
	}
	return args
}

// mirrorAddress returns the address in a line of sources.list that is for suite.
func mirrorAddress(line, suite string) (string, bool) {
	f := strings.Fields(line)
	if len(f) == 1 {
		return f[0], true
	}
	if len(f) < 3 || f[0] != "deb" {
		return "", false
	}
	f = f[1:]
	if strings.HasPrefix(f[0], "[") {
		for len(f) > 0 && !strings.HasSuffix(f[0], "]") {
			f = f[1:]
		}
		f = f[min(1, len(f)):]
	}
	if len(f) < 2 || f[1] != suite {
		return "", false
	}
	return f[0], true
}

// Platform returns what images call a Debian architecture.
func Platform(arch string) string {
	switch arch {
	case "":
		return "linux/" + runtime.GOARCH
	case "i386":
		return "linux/386"
	case "armhf":
		return "linux/arm/v7"
	case "armel":
		return "linux/arm/v5"
	case "ppc64el":
		return "linux/ppc64le"
	case "mips64el":
		return "linux/mips64le"
	}
	return "linux/" + arch
}
