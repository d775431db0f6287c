package classic

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerui"

	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

type registryAuth = wire.RegistryAuth

// fetch gets the context from where the request says: a tar of any compression,
// a Dockerfile, or a git repository.
func (j *job) fetch(ctx context.Context) error {
	url := j.r.Remote
	if isGit(url) {
		return j.clone(ctx)
	}
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return errs.New(errs.Invalid, "remoteURL (%s) could not be recognized as URL", url)
	}
	body, err := j.b.Fetch(ctx, url)
	if err != nil {
		return fmt.Errorf("error downloading remote context %s: %w", url, err)
	}
	defer body.Close()
	plain, _, err := layer.Decompress(body, j.b.Limits)
	if err != nil {
		return err
	}
	defer plain.Close()
	in := bufio.NewReaderSize(plain, 64<<10)
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return fmt.Errorf("error downloading remote context %s: %w", url, err)
	}
	if isTar(head) {
		j.files, err = spool(ctx, in, j.b.Dir)
		return err
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDockerfile))
	if err != nil {
		return fmt.Errorf("error downloading remote context %s: %w", url, err)
	}
	j.r.Dockerfile = ""
	j.files, err = spool(ctx, archive("Dockerfile", text), j.b.Dir)
	return err
}

// isGit says whether an address is a git repository's, as Docker decides it.
func isGit(url string) bool {
	if strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://") {
		path, _, _ := strings.Cut(url, "#")
		path, _, _ = strings.Cut(path, "?")
		return strings.HasSuffix(path, ".git")
	}
	for _, p := range []string{"git://", "git@", "ssh://", "github.com/"} {
		if strings.HasPrefix(url, p) {
			return true
		}
	}
	return false
}

func isTar(head []byte) bool {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil && len(head) == 512
}

// archive is a tar of one file. What is written to memory can't fail.
func archive(name string, data []byte) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg})
	_, _ = w.Write(data)
	_ = w.Close()
	return &buf
}

// clone has the controller fetch a git repository, and takes the tree over.
func (j *job) clone(ctx context.Context) error {
	st, ok, err := dockerui.DetectGitContext(j.r.Remote, nil)
	if err != nil || !ok {
		return errs.New(errs.Invalid, "%s is no git repository: %w", j.r.Remote, err)
	}
	def, err := st.Marshal(ctx)
	if err != nil {
		return err
	}
	c, err := j.b.Connect(ctx)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() {
		defer c.Close()
		_, err := c.Solve(ctx, def, client.SolveOpt{Exports: []client.ExportEntry{{
			Type: client.ExporterTar, Output: func(map[string]string) (io.WriteCloser, error) { return keepOpen{w}, nil },
		}}}, nil)
		w.CloseWithError(err)
	}()
	j.files, err = spool(ctx, r, j.b.Dir)
	r.CloseWithError(context.Canceled)
	if err != nil {
		return fmt.Errorf("error downloading remote context %s: %w", j.r.Remote, err)
	}
	return nil
}

// keepOpen is closed by the solve's end, which may be an error.
type keepOpen struct{ io.Writer }

// Close does nothing.
func (keepOpen) Close() error { return nil }
