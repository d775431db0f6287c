package image

import (
	"errors"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// danglingPrefix begins the record of an image without a name. It is followed
// by the image's id, and is no name that anyone can give.
const danglingPrefix = "gantry-dangling@"

func dangling(d digest.Digest) string { return danglingPrefix + d.String() }

func isDangling(name string) bool { return strings.HasPrefix(name, danglingPrefix) }

func noSuchImage(ref string) error { return errs.New(errs.NotFound, "No such image: %s", ref) }

// shortID is what may begin an image's id. Fewer than four characters are
// taken for a name.
var shortID = regexp.MustCompile(`^(?:sha256:)?([a-f0-9]{4,64})$`)

// A query is what a user called an image by, parsed.
type query struct {
	text string
	// name is the full name with a tag; empty if the text can't be one.
	name string
	// repo and digest are set for name@digest; digest alone for an id.
	repo   string
	digest digest.Digest
	// prefix begins an id, in hex; empty if the text can't be one.
	prefix string
	named  string // how errors call it
}

// parseQuery reads what a user called an image by. errs.Invalid if nothing can
// be called so.
func parseQuery(text string) (query, error) {
	ref, err := reference.ParseAnyReference(text)
	if err != nil {
		return query{}, errs.With(errs.Invalid, err)
	}
	q := query{text: text}
	if m := shortID.FindStringSubmatch(text); m != nil {
		q.prefix = m[1]
	}
	named, ok := ref.(reference.Named)
	if !ok { // sha256:… or 64 hex characters
		if d, ok := ref.(reference.Digested); ok {
			q.digest = d.Digest()
		}
		q.named = text
		return q, nil
	}
	if d, ok := named.(reference.Digested); ok {
		q.repo, q.digest, q.prefix, q.named = named.Name(), d.Digest(), "", text
		return q, nil
	}
	named = reference.TagNameOnly(named)
	q.name, q.named = named.String(), reference.FamiliarString(named)
	return q, nil
}

// familiar returns the short form of a stored name.
func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}

// repository returns the short repository of a stored name.
func repository(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarName(ref)
}

// hex64 is what an id looks like without its algorithm.
var hex64 = regexp.MustCompile(`^[a-f0-9]{64}$`)

// newName returns the full name for repository and tag as the API takes them:
// repo may carry the tag, which is "latest" if there is none at all.
func newName(repo, tag string) (string, error) {
	if hex64.MatchString(repo) {
		return "", errs.New(errs.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", repo)
	}
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return "", errs.With(errs.Invalid, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return "", errs.New(errs.Invalid, "cannot import digest reference")
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return "", errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	if tag != "" {
		if named, err = reference.WithTag(reference.TrimNamed(named), tag); err != nil {
			return "", errs.With(errs.Invalid, err)
		}
	}
	return reference.TagNameOnly(named).String(), nil
}

// ParsePlatform reads "os/arch[/variant]", or a part of it, as users write it.
// An empty text is no platform.
func ParsePlatform(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return &p, nil
}

// host is the platform of this machine.
func host() ocispec.Platform { return platforms.DefaultSpec() }

// errPlatform is an image that exists, but not for the platform.
func errPlatform(ref string, p ocispec.Platform) error {
	return errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, platforms.Format(p))
}

// matches reports whether an image for have runs on want: the same system and
// architecture, and a variant that the machine has too.
func matches(want, have ocispec.Platform) bool {
	return platforms.Only(want).Match(platforms.Normalize(have))
}

// better reports whether a suits want more than b does; both match it.
func better(want, a, b ocispec.Platform) bool {
	return platforms.Only(want).Less(platforms.Normalize(a), platforms.Normalize(b))
}

var errNoManifest = errors.New("no manifest of it is here")
