package container

import (
	"context"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// CommitOptions say what to make of a container.
type CommitOptions struct {
	Repo, Tag string // of the image; empty for none
	Comment   string
	Author    string
	Changes   []string              // lines of a Dockerfile
	Config    *wire.ContainerConfig // in place of the container's; nil for that
	Pause     bool                  // freeze the container meanwhile
}

// Commit is a container to make an image of.
type Commit struct {
	CommitOptions
	// ImageID and Manifest are what the container was made of.
	ImageID   string
	Manifest  *ocispec.Descriptor
	Own       wire.ContainerConfig // the container's configuration
	CreatedBy string
	// Layer writes what the container has changed as a layer's tar.
	Layer func(w io.Writer) (entries int, err error)
}

// Committer makes images.
type Committer interface {
	// CheckCommit finds what is wrong with the options.
	CheckCommit(c Commit) error
	// Commit returns the id of the new image, and its short name, if any.
	Commit(ctx context.Context, c Commit) (id, name string, err error)
}

// Commit makes an image of a container and what it has changed, and returns its
// id. An error leaves nothing behind.
func (c *Files) Commit(ctx context.Context, ref string, o CommitOptions) (string, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return "", err
	}
	s := a.view()
	switch s.state.Phase {
	case Dead:
		return "", errs.New(errs.Conflict, "You cannot commit container %s which is Dead", a.id)
	case Removing:
		return "", errs.New(errs.Conflict, "You cannot commit container %s which is being removed", a.id)
	}
	p := s.rec.Plan
	commit := Commit{
		CommitOptions: o, ImageID: s.rec.Image.ID, Manifest: s.rec.Image.Manifest, Own: p.Config,
		CreatedBy: strings.Join(p.Config.Cmd, " "),
	}
	if err := c.o.Committer.CheckCommit(commit); err != nil {
		return "", err
	}
	if o.Pause && s.state.Phase == Running {
		// If it ends just now there is nothing to freeze.
		if err := a.ask(ctx, Fact{Kind: AskPause}); err == nil {
			defer func() { _ = a.ask(context.WithoutCancel(ctx), Fact{Kind: AskUnpause}) }()
		} else if !errs.Is(err, errs.Conflict) {
			return "", err
		}
	}
	var id, name string
	err = c.aside(ctx, a, func(ctx context.Context) error {
		u, err := c.upper(ctx, a)
		if err != nil {
			return err
		}
		commit.Layer = func(w io.Writer) (int, error) { return u.WriteLayer(ctx, w, nil) }
		id, name, err = c.o.Committer.Commit(ctx, commit)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, a.as(ctx, func() error {
		a.announce("commit", "comment", o.Comment, "imageID", id, "imageRef", name)
		return nil
	})
}
