package formatter

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/cli/ref"
	"gantry/internal/wire"
)

const none = "<none>"

// ImageContext is a row of images: one tag or digest of an image.
type ImageContext struct {
	i                 *wire.ImageSummary
	repo, tag, digest string
	trunc             bool
	now               time.Time
}

// ImageOptions say how images become rows.
type ImageOptions struct {
	Trunc, Digests bool
	Now            time.Time
}

// Images makes the rows of list: one for each tag, or each digest of an image
// without tags, or <none>.
func Images(list []wire.ImageSummary, o ImageOptions) []*ImageContext {
	var out []*ImageContext
	for i := range list {
		out = append(out, imageRows(&list[i], o)...)
	}
	return out
}

func imageRows(img *wire.ImageSummary, o ImageOptions) []*ImageContext {
	row := func(repo, tag, digest string) *ImageContext {
		return &ImageContext{i: img, repo: repo, tag: tag, digest: digest, trunc: o.Trunc, now: o.Now}
	}
	digests := map[string][]string{}
	var order []string
	for _, d := range img.RepoDigests {
		if n, err := ref.Parse(d); err == nil && n.Digest != "" {
			if digests[n.Familiar()] == nil {
				order = append(order, n.Familiar())
			}
			digests[n.Familiar()] = append(digests[n.Familiar()], n.Digest)
		}
	}
	var out []*ImageContext
	tagged := map[string]bool{}
	for _, t := range img.RepoTags {
		n, err := ref.Parse(t)
		if err != nil || n.Tag == "" {
			continue
		}
		name := n.Familiar()
		tagged[name] = true
		if !o.Digests {
			out = append(out, row(name, n.Tag, none))
			continue
		}
		if len(digests[name]) == 0 {
			out = append(out, row(name, n.Tag, none))
		}
		for _, d := range digests[name] {
			out = append(out, row(name, n.Tag, d))
		}
	}
	for _, name := range order {
		if tagged[name] || name == none {
			continue
		}
		if !o.Digests {
			out = append(out, row(name, none, none))
			continue
		}
		for _, d := range digests[name] {
			out = append(out, row(name, none, d))
		}
	}
	if len(out) == 0 {
		out = append(out, row(none, none, none))
	}
	return out
}

// ImageTable describes images.
func ImageTable(o TableOptions) Table[*ImageContext] {
	cols := []Column[*ImageContext]{{"REPOSITORY", (*ImageContext).Repository}, {"TAG", (*ImageContext).Tag}}
	if o.Digests {
		cols = append(cols, Column[*ImageContext]{"DIGEST", (*ImageContext).Digest})
	}
	return Table[*ImageContext]{
		Columns: append(cols, []Column[*ImageContext]{
			{"IMAGE ID", (*ImageContext).ID}, {"CREATED", (*ImageContext).CreatedSince}, {"SIZE", (*ImageContext).Size},
		}...),
		Headers: map[string]string{
			"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
			"Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
		},
	}
}

// ID of the image.
func (i *ImageContext) ID() string {
	if i.trunc {
		return ShortID(i.i.ID)
	}
	return i.i.ID
}

// Repository without the tag.
func (i *ImageContext) Repository() string { return i.repo }

// Tag alone.
func (i *ImageContext) Tag() string { return i.tag }

// Digest of the manifest in this repository.
func (i *ImageContext) Digest() string { return i.digest }

// CreatedSince is the image's age.
func (i *ImageContext) CreatedSince() string {
	if i.i.Created == 0 {
		return "N/A"
	}
	return ago(i.now, time.Unix(i.i.Created, 0))
}

// CreatedAt is when the image was built.
func (i *ImageContext) CreatedAt() string { return time.Unix(i.i.Created, 0).String() }

// Size of the image.
func (i *ImageContext) Size() string { return units.HumanSizeWithPrecision(float64(i.i.Size), 3) }

// Containers that use the image.
func (i *ImageContext) Containers() string {
	if i.i.Containers == -1 {
		return "N/A"
	}
	return strconv.FormatInt(i.i.Containers, 10)
}

// VirtualSize is Size.
func (i *ImageContext) VirtualSize() string { return i.Size() }

// SharedSize is what other images have too.
func (i *ImageContext) SharedSize() string {
	if i.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(i.i.SharedSize))
}

// UniqueSize is what no other image has.
func (i *ImageContext) UniqueSize() string {
	if i.i.Size == -1 || i.i.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(i.i.Size - i.i.SharedSize))
}

// HistoryContext is a row of history.
type HistoryContext struct {
	h            *wire.ImageHistory
	trunc, human bool
	now          time.Time
}

// HistoryOptions say how a history is shown.
type HistoryOptions struct {
	Trunc, Human bool
	Now          time.Time
}

// History makes rows of list.
func History(list []wire.ImageHistory, o HistoryOptions) []*HistoryContext {
	out := make([]*HistoryContext, len(list))
	for i := range list {
		out[i] = &HistoryContext{h: &list[i], trunc: o.Trunc, human: o.Human, now: o.Now}
	}
	return out
}

// HistoryTable describes history.
func HistoryTable() Table[*HistoryContext] {
	return Table[*HistoryContext]{
		Columns: []Column[*HistoryContext]{
			{"IMAGE", (*HistoryContext).ID}, {"CREATED", (*HistoryContext).CreatedSince}, {"CREATED BY", (*HistoryContext).CreatedBy},
			{"SIZE", (*HistoryContext).Size}, {"COMMENT", (*HistoryContext).Comment},
		},
		Headers: map[string]string{"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT"},
	}
}

// ID of the layer's image, or <missing>.
func (h *HistoryContext) ID() string {
	if h.trunc {
		return ShortID(h.h.ID)
	}
	return h.h.ID
}

// CreatedAt is when the layer was made.
func (h *HistoryContext) CreatedAt() string { return time.Unix(h.h.Created, 0).Format(time.RFC3339) }

// CreatedSince is the layer's age, or the time itself with --human=false.
func (h *HistoryContext) CreatedSince() string {
	if !h.human {
		return h.CreatedAt()
	}
	if h.h.Created == 0 {
		return "N/A"
	}
	return ago(h.now, time.Unix(h.h.Created, 0))
}

// CreatedBy is the build step.
func (h *HistoryContext) CreatedBy() string {
	s := strings.ReplaceAll(h.h.CreatedBy, "\t", " ")
	if h.trunc {
		return Ellipsis(s, 45)
	}
	return s
}

// Size of the layer.
func (h *HistoryContext) Size() string {
	if h.human {
		return units.HumanSizeWithPrecision(float64(h.h.Size), 3)
	}
	return strconv.FormatInt(h.h.Size, 10)
}

// Comment on the layer.
func (h *HistoryContext) Comment() string { return h.h.Comment }

// content is the size of what of img is in the content store.
func content(img wire.ImageSummary) string {
	total := int64(0)
	for _, m := range img.Manifests {
		total += m.Size.Content
	}
	return units.HumanSizeWithPrecision(float64(total), 3)
}

// ImageTree writes list with the platforms of each image below it.
func ImageTree(w io.Writer, list []wire.ImageSummary) error {
	var tw strings.Builder
	fmt.Fprint(&tw, "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA\n")
	for _, img := range list {
		names := img.RepoTags
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		used := ""
		if img.Containers > 0 {
			used = "U"
		}
		for i, n := range names {
			if i > 0 {
				fmt.Fprintf(&tw, "%s\t\t\t\t\n", n)
				continue
			}
			fmt.Fprintf(&tw, "%s\t%s\t%s\t%s\t%s\n", n, ShortID(img.ID), units.HumanSizeWithPrecision(float64(img.Size), 3), content(img), used)
		}
		var kids []string
		for _, m := range img.Manifests {
			if m.ImageData == nil {
				continue
			}
			p := m.ImageData.Platform
			name := p.OS + "/" + p.Architecture
			if p.Variant != "" {
				name += "/" + p.Variant
			}
			use := ""
			if len(m.ImageData.Containers) > 0 {
				use = "U"
			}
			kids = append(kids, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", name, ShortID(m.ID), units.HumanSizeWithPrecision(float64(m.Size.Total), 3), units.HumanSizeWithPrecision(float64(m.Size.Content), 3), use))
		}
		for i, k := range kids {
			branch := "├─ "
			if i == len(kids)-1 {
				branch = "└─ "
			}
			fmt.Fprintln(&tw, branch+k)
		}
	}
	return Lists().Write(w, tw.String())
}
