package classic

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

// A Failure is why a build ended, in the classic builder's words.
type Failure struct {
	Message string
	Code    int // exit code of a RUN, 0 if that is not it
	cause   error
}

// Error is the message.
func (f *Failure) Error() string { return f.Message }

// Unwrap gives the builder's own error.
func (f *Failure) Unwrap() error { return f.cause }

var (
	exitCode = regexp.MustCompile(`did not complete successfully: exit code: (\d+)(: out of memory)?`)
	missing  = regexp.MustCompile(`(?s)failed to (?:calculate checksum|compute cache key).*"/?([^"]*)": not found$`)
	inFront  = regexp.MustCompile(`^(?:failed to solve: |rpc error: code = \w+ desc = |failed to solve with frontend [^:]*: |dockerfile parse error on line \d+: failed )`)
	resolve  = regexp.MustCompile(`(?s)^.*?(failed to resolve reference ".*)$`)
	metadata = regexp.MustCompile(`(?s)^.*?failed to resolve source metadata for (\S+): (.*)$`)
	badName  = regexp.MustCompile(`failed to parse stage name "([^"]*)": `)
)

// failure puts an error of the builder in the classic builder's words. at is
// the step to blame, nil if that is unknown.
func failure(err error, at *step) *Failure {
	text := err.Error()
	for inFront.MatchString(text) {
		text = inFront.ReplaceAllString(text, "")
	}
	f := &Failure{Message: text, cause: err}
	if m := exitCode.FindStringSubmatch(text); m != nil && at != nil && at.word == "RUN" {
		f.Code, _ = strconv.Atoi(m[1])
		f.Message = fmt.Sprintf("The command '%s' returned a non-zero code: %s%s", at.argv, m[1], m[2])
		return f
	}
	if m := missing.FindStringSubmatch(text); m != nil && at != nil && (at.word == "COPY" || at.word == "ADD") {
		f.Message = fmt.Sprintf("%s failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", at.word, m[1])
		return f
	}
	if m := resolve.FindStringSubmatch(text); m != nil {
		f.Message = m[1]
	} else if m := metadata.FindStringSubmatch(text); m != nil {
		if f.Message = m[2]; strings.HasPrefix(m[2], "failed to do request") {
			f.Message = fmt.Sprintf("failed to resolve reference %q: %s", m[1], m[2])
		}
	}
	if badName.MatchString(text) && at != nil && at.image != "" {
		if _, err := reference.ParseNormalizedNamed(at.image); err != nil {
			f.Message = err.Error()
		}
	}
	return f
}

// ExitCode is the exit code of the RUN that failed, 0 if that is not why.
func (f *Failure) ExitCode() int { return f.Code }
