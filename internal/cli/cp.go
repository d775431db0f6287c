package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"gantry/internal/cli/copytar"
	"gantry/internal/client"
)

// pathStat is the X-Docker-Container-Path-Stat header.
type pathStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       fs.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"`
}

type cpOptions struct{ follow, archive, quiet bool }

func cpCommand(a *App) *cobra.Command {
	var o cpOptions
	cmd := leaf("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t"+a.name+" cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", "Copy files/folders between a container and the local filesystem", exactArgs(2), func(cmd *cobra.Command, args []string) error {
		return copyFiles(cmd.Context(), a, args[0], args[1], &o)
	})
	cmd.Long = "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout."
	cmd.Flags().BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

// splitCp cuts CONTAINER:PATH. A path that begins with / or . is local even with
// a colon in it.
func splitCp(arg string) (container, p string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	name, rest, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, rest
}

func copyFiles(ctx context.Context, a *App, from, to string, o *cpOptions) error {
	srcName, src := splitCp(from)
	dstName, dst := splitCp(to)
	if src == "" {
		return errors.New("source can not be empty")
	}
	if dst == "" {
		return errors.New("destination can not be empty")
	}
	if _, err := a.client(); err != nil {
		return err
	}
	switch {
	case srcName != "" && dstName != "":
		return errors.New("copying between containers is not supported")
	case srcName != "":
		return cpFrom(ctx, a, srcName, src, dst, o)
	case dstName != "":
		return cpTo(ctx, a, src, dstName, dst, o)
	}
	return errors.New("must specify at least one container source")
}

func statIn(ctx context.Context, a *App, name, p string) (pathStat, error) {
	var s pathStat
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodHead, Path: containerPath(name, "archive"), Query: url.Values{"path": {p}}})
	if err != nil {
		var e *client.Error
		if errors.As(err, &e) {
			// HEAD has no body: the text comes from a GET.
			g, gerr := a.api.Stream(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "archive"), Query: url.Values{"path": {p}}})
			if gerr != nil {
				return s, gerr
			}
			g.Body.Close()
		}
		return s, err
	}
	res.Body.Close()
	return s, decodeStat(res.Header, &s)
}

func decodeStat(h http.Header, s *pathStat) error {
	b, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	if err != nil {
		return fmt.Errorf("unable to decode container path stat header: %w", err)
	}
	return nil
}

func cpFrom(ctx context.Context, a *App, name, src, dst string, o *cpOptions) error {
	if o.follow {
		if s, err := statIn(ctx, a, name, src); err == nil && s.Mode&fs.ModeSymlink != 0 {
			target := s.LinkTarget
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(src), target)
			}
			if strings.HasSuffix(src, "/") || strings.HasSuffix(src, "/.") {
				target += "/."
			}
			src = target
		}
	}
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodGet, Path: containerPath(name, "archive"), Query: url.Values{"path": {src}}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if dst == "-" {
		if a.outIsTerminal() {
			return errors.New("cowardly refusing to write a tar archive to a terminal")
		}
		_, err := io.Copy(a.Out, res.Body)
		return err
	}
	var s pathStat
	if err := decodeStat(res.Header, &s); err != nil {
		return err
	}
	tar := &counted{r: res.Body}
	_, err = copytar.Extract(tar, copytar.Target{Source: src, SourceIsDir: s.Mode.IsDir(), Path: dst, KeepOwner: o.archive})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tar); err != nil { // what pads the tar
		return err
	}
	cpDone(a, o, tar.n, dst)
	return nil
}

// counted counts what is read through it.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// cpDone says on a terminal what was copied.
func cpDone(a *App, o *cpOptions, n int64, where string) {
	if !o.quiet && a.outIsTerminal() {
		fmt.Fprintln(a.Err, "Successfully copied", units.HumanSizeWithPrecision(float64(n), 3), "to", where)
	}
}

func cpTo(ctx context.Context, a *App, src, name, dst string, o *cpOptions) error {
	how := copytar.Options{FollowLink: o.follow, KeepOwner: o.archive}
	if src != "-" { // what can be told without the daemon comes first
		if _, err := copytar.Find(src, how); err != nil {
			return err
		}
	}
	d, err := findDestination(ctx, a, name, dst)
	if err != nil {
		return err
	}
	q := url.Values{"noOverwriteDirNonDir": {"true"}}
	if o.archive {
		q.Set("copyUIDGID", "1")
	}
	var body io.Reader = a.In
	var size func() int64
	if src == "-" {
		if !d.IsDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", name, dst)
		}
		q.Set("path", d.Path)
	} else {
		p, err := copytar.Plan(src, d, how)
		if err != nil {
			return err
		}
		q.Set("path", p.Dir)
		r := p.Stream()
		defer r.Close()
		body, size = r, r.Bytes
	}
	res, err := a.api.Stream(ctx, client.Request{
		Method: http.MethodPut, Path: containerPath(name, "archive"), Query: q, Body: io.NopCloser(body), Header: http.Header{"Content-Type": {"application/x-tar"}},
	})
	if err != nil {
		return err
	}
	res.Body.Close()
	if size != nil {
		cpDone(a, o, size(), name+":"+dst)
	}
	return nil
}

// destination asks what dst is in the container, following a last link by hand so
// that copying onto a link writes where it leads.
func findDestination(ctx context.Context, a *App, name, dst string) (copytar.Destination, error) {
	d := copytar.Destination{Path: dst}
	s, err := statIn(ctx, a, name, dst)
	if err == nil && s.Mode&fs.ModeSymlink != 0 {
		target := s.LinkTarget
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(dst), target)
		}
		d.Path = target
		s, err = statIn(ctx, a, name, target)
	}
	switch {
	case err == nil:
		d.Exists, d.IsDir = true, s.Mode.IsDir()
	case client.IsNotFound(err) && !strings.Contains(err.Error(), "No such container"):
	default:
		return d, err
	}
	return d, nil
}
