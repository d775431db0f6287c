package daemon

import (
	"context"

	"gantry/internal/container"
	"gantry/internal/image"
)

// commitOptions are an engine's words for a commit in those of the images.
func commitOptions(c container.Commit) (image.CommitOptions, error) {
	config, err := image.CommitConfig(c.Own, c.Config, c.Changes)
	return image.CommitOptions{
		ParentID: c.ImageID, Manifest: c.Manifest, Repo: c.Repo, Tag: c.Tag, Author: c.Author, Comment: c.Comment,
		CreatedBy: c.CreatedBy, Config: config, Layer: c.Layer,
	}, err
}

// CheckCommit finds what is wrong with the options of a commit.
func (s *imageStore) CheckCommit(c container.Commit) error {
	if c.Repo != "" {
		if err := image.CheckName(c.Repo, c.Tag); err != nil {
			return err
		}
	}
	_, err := commitOptions(c)
	return err
}

// Commit makes an image of a container.
func (s *imageStore) Commit(ctx context.Context, c container.Commit) (id, name string, err error) {
	o, err := commitOptions(c)
	if err != nil {
		return "", "", err
	}
	d, name, err := s.Images.Commit(ctx, o)
	return d.String(), name, err
}
