package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// StatusError ends the process with Code, after printing Text if there is one.
type StatusError struct {
	Text string
	Code int
}

func (e *StatusError) Error() string {
	if e.Text != "" {
		return e.Text
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Exit codes of the command line's own failures.
const (
	codeFailed      = 125
	codeNotRunnable = 126
	codeNotFound    = 127
)

// flagError is how a flag that can't be parsed is reported.
func (a *App) flagError(cmd *cobra.Command, err error) error {
	return &StatusError{
		Text: fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, strings.TrimSpace(cmd.UseLine()), cmd.CommandPath()),
		Code: codeFailed,
	}
}

// withHelp is how run and create report a failure before the container runs.
func (a *App) withHelp(err error, command string) error {
	return &StatusError{
		Text: fmt.Sprintf("%s: %v\n\nRun '%s %s --help' for more information", a.name, err, a.name, command),
		Code: startCode(err),
	}
}

// startCode tells from the daemon's text whether the program was missing (127),
// not runnable (126), or something else failed (125).
func startCode(err error) int {
	s := strings.ToLower(err.Error())
	if !strings.HasPrefix(s, "error response from daemon:") {
		return codeFailed
	}
	has := func(text string) bool { return strings.Contains(s, strings.ToLower(text)) }
	switch {
	case strings.HasSuffix(s, "no such container"), has("No such image"):
		return codeFailed
	case has("executable file not found"), has("no such file or directory"), has("system cannot find the file specified"):
		// A mount's source that is missing is no missing program.
		if has("invalid mount config") {
			return codeFailed
		}
		return codeNotFound
	case has("permission denied") && (has("exec") || has("start")), has("is a directory"):
		return codeNotRunnable
	}
	return codeFailed
}

// each runs f for every name, prints errors as they come, and fails at the end if
// any failed.
func (a *App) each(names []string, f func(string) error) error {
	var failed []error
	for _, n := range names {
		if err := f(n); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(a.Out, n)
	}
	return errors.Join(failed...)
}

// containerPath returns /containers/NAME/VERB with NAME escaped.
func containerPath(name string, verb ...string) string {
	return objectPath("/containers/", name, verb...)
}

func objectPath(prefix, name string, verb ...string) string {
	p := prefix + url.PathEscape(name)
	for _, v := range verb {
		p += "/" + v
	}
	return p
}

// imagePath keeps the slashes of an image's name, as the API wants.
func imagePath(name string, verb ...string) string {
	u := url.URL{Path: name}
	p := "/images/" + strings.TrimPrefix(u.EscapedPath(), "./")
	for _, v := range verb {
		p += "/" + v
	}
	return p
}
