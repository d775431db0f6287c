package bootstrap

import (
	"strconv"
	"strings"
	"time"

	"gantry/internal/errs"
)

// A Release is what an image's name says of it.
type Release struct {
	Distro string // debian, ubuntu, or another one whose suites the programs know
	Suite  string // bookworm
	Slim   bool   // without documentation, manuals and translations
}

// releases are the numbers by which distributions also call their suites.
var releases = map[string]string{
	"debian:10": "buster", "debian:11": "bullseye", "debian:12": "bookworm", "debian:13": "trixie", "debian:14": "forky",
	"debian:latest": "stable", "debian:": "stable",
	"ubuntu:20.04": "focal", "ubuntu:22.04": "jammy", "ubuntu:24.04": "noble", "ubuntu:26.04": "resolute",
}

// ParseRelease reads DISTRIBUTION:SUITE[-slim], as images are called.
func ParseRelease(s string) (Release, error) {
	distro, tag, _ := strings.Cut(s, ":")
	if i := strings.LastIndexByte(distro, '/'); i >= 0 {
		distro = distro[i+1:]
	}
	tag, slim := strings.CutSuffix(tag, "-slim")
	if suite, ok := releases[distro+":"+tag]; ok {
		tag = suite
	}
	if distro == "" || tag == "" || !plain(tag) || !plain(distro) {
		return Release{}, errs.New(errs.Invalid, "invalid release %q: DISTRIBUTION:SUITE is needed, as debian:bookworm or ubuntu:noble", s)
	}
	return Release{Distro: distro, Suite: tag, Slim: slim}, nil
}

// plain reports whether s can be no option and no path.
func plain(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-._+", c)) {
			return false
		}
	}
	return s != ""
}

// CheckPackage reports whether s can be the name of a package, as apt takes it.
func CheckPackage(s string) error {
	if !plain(strings.NewReplacer("=", ".", ":", ".", "~", ".").Replace(s)) {
		return errs.New(errs.Invalid, "invalid package name %q", s)
	}
	return nil
}

// ParseDate reads a day, a time of RFC 3339, or seconds since 1970 (the form of
// SOURCE_DATE_EPOCH). Parts of a second are cut off.
func ParseDate(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && n < 1<<38 {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly, "20060102T150405Z", "20060102"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Second), nil
		}
	}
	return time.Time{}, errs.New(errs.Invalid, "invalid date %q: 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970 are understood", s)
}
