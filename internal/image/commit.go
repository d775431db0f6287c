package image

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	blobs "github.com/containerd/containerd/v2/core/content"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// CommitOptions say what to make of a container's changes.
type CommitOptions struct {
	// ParentID is the image that the container was made of, and Manifest
	// what its layers are; empty and nil for none.
	ParentID  string
	Manifest  *ocispec.Descriptor
	Repo, Tag string // of the new image; empty for none
	Author    string
	Comment   string
	CreatedBy string // how its history tells of it
	Config    dockerspec.DockerOCIImageConfig
	// Layer writes the changes as the tar of a layer and returns the number
	// of its entries: none makes an image of the parent's layers alone.
	Layer func(w io.Writer) (entries int, err error)
}

// parentLabel on a manifest's blob is the id of the image it was made of.
const parentLabel = "gantry.image/parent"

// CheckName finds what is wrong with the name of a new image.
func CheckName(repo, tag string) error {
	_, err := newName(repo, tag)
	return err
}

// Commit makes an image of another one and a layer of changes. It returns the
// new image's id, and its short name if it got one. An error leaves nothing
// behind. What is wrong with the name is found first.
func (s *Images) Commit(ctx context.Context, o CommitOptions) (digest.Digest, string, error) {
	name := ""
	var err error
	if o.Repo != "" {
		if name, err = newName(o.Repo, o.Tag); err != nil {
			return "", "", err
		}
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return "", "", err
	}
	defer release()
	i, layers, err := s.parent(held, o.Manifest)
	if err != nil {
		return "", "", err
	}
	added, err := s.changesLayer(held, o.Layer)
	if err != nil {
		return "", "", err
	}
	now := s.now().UTC()
	step := ocispec.History{Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment, EmptyLayer: added == nil}
	i.Created, i.Author, i.Config, i.History = &now, o.Author, o.Config, append(slices.Clone(i.History), step)
	if added != nil {
		layers = append(slices.Clone(layers), *added)
	}
	target, err := s.assemble(held, i, layers)
	if err != nil {
		return "", "", err
	}
	if o.ParentID != "" {
		_, err := s.store.Blobs().Update(held, blobs.Info{Digest: target.Digest, Labels: map[string]string{parentLabel: o.ParentID}}, "labels."+parentLabel)
		if err != nil {
			return "", "", err
		}
	}
	if err := s.setName(held, name, target); err != nil {
		return "", "", err
	}
	s.publish("create", target.Digest, target.Digest.String())
	if name != "" {
		name = familiar(name)
		s.publish("tag", target.Digest, name)
	}
	return target.Digest, name, nil
}

// parent is what a new image begins with.
func (s *maker) parent(ctx context.Context, m *ocispec.Descriptor) (dockerspec.DockerOCIImage, []content.Layer, error) {
	if m == nil {
		return dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: host()}}, nil, nil
	}
	c, err := s.read(ctx, *m)
	if err != nil {
		return dockerspec.DockerOCIImage{}, nil, err
	}
	return c.config, c.layers, nil
}

// changesLayer stores what write gives as a layer; nil if it has no entries.
func (s *maker) changesLayer(ctx context.Context, write func(io.Writer) (int, error)) (*content.Layer, error) {
	pr, pw := io.Pipe()
	type result struct {
		entries int
		err     error
	}
	done := make(chan result, 1)
	go func() {
		n, err := write(pw)
		pw.CloseWithError(err)
		done <- result{n, err}
	}()
	blob, diffID, err := s.packLayer(ctx, pr)
	pr.CloseWithError(errs.New(errs.Unknown, "stored layer is incomplete"))
	r := <-done
	if r.err != nil {
		err = r.err // the cause of the other
	}
	if err != nil || r.entries == 0 {
		return nil, err
	}
	return &content.Layer{Blob: blob, DiffID: diffID}, nil
}

// parentOf returns the id of the image that one was committed from, "" if it was
// not, or nobody remembers.
func (s *catalog) parentOf(ctx context.Context, i *Image) string {
	info, err := s.store.Blobs().Info(content.Namespaced(ctx), i.Target.Digest)
	if err != nil {
		return ""
	}
	return info.Labels[parentLabel]
}

// CommitConfig is the configuration of an image made of a container with the
// configuration own: body's, or else own, with the lines of a Dockerfile applied
// (Change), and what it leaves open as the container has it.
func CommitConfig(own wire.ContainerConfig, body *wire.ContainerConfig, changes []string) (dockerspec.DockerOCIImageConfig, error) {
	base := imageConfig(own)
	c := base
	if body != nil {
		c = imageConfig(*body)
	}
	c.Env, c.Labels, c.Volumes = slices.Clone(c.Env), maps.Clone(c.Labels), maps.Clone(c.Volumes)
	c.ExposedPorts, c.OnBuild = maps.Clone(c.ExposedPorts), slices.Clone(c.OnBuild)
	if err := Change(&c, changes); err != nil {
		return c, err
	}
	if c.User == "" {
		c.User = base.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = base.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = base.StopSignal
	}
	for _, kv := range base.Env {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(c.Env, func(e string) bool { k, _, _ := strings.Cut(e, "="); return k == key }) {
			c.Env = append(c.Env, kv)
		}
	}
	c.Labels = under(c.Labels, base.Labels)
	c.Volumes = under(c.Volumes, base.Volumes)
	c.ExposedPorts = under(c.ExposedPorts, base.ExposedPorts)
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = base.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = base.Entrypoint
		}
	}
	if c.Healthcheck == nil {
		c.Healthcheck = base.Healthcheck
	}
	if len(c.Shell) == 0 {
		c.Shell = base.Shell
	}
	return c, nil
}

// under adds those of low that top lacks.
func under[V any](top, low map[string]V) map[string]V {
	out := maps.Clone(low)
	if out == nil {
		return top
	}
	maps.Copy(out, top)
	return out
}

// imageConfig is what of a container's configuration an image can have.
func imageConfig(c wire.ContainerConfig) dockerspec.DockerOCIImageConfig {
	var i dockerspec.DockerOCIImageConfig
	i.User, i.Env, i.Entrypoint, i.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	i.Volumes, i.WorkingDir, i.Labels, i.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	for p := range c.ExposedPorts {
		if i.ExposedPorts == nil {
			i.ExposedPorts = map[string]struct{}{}
		}
		i.ExposedPorts[p.String()] = struct{}{}
	}
	i.Healthcheck, i.OnBuild, i.Shell = c.Healthcheck, c.OnBuild, c.Shell
	return i
}
