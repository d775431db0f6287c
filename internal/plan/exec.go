package plan

import (
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// ExecPlan is everything decided about a further process in a container.
type ExecPlan struct {
	Process    Process // Env is complete but for HOME and links
	Privileged bool    // every capability
	// What the client wants of its streams.
	AttachStdin, AttachStdout, AttachStderr bool
	// DetachKeys are the bytes that detach, nil for the daemon's.
	DetachKeys []byte
	Request    wire.ExecCreate // as the user said, for inspect
}

// Exec decides what the process asked for by req in p's container shall be.
// hostname is the container's. Errors are of kind Invalid. The user is looked
// up later; an unknown one is the request's fault (Invalid) here.
func Exec(req wire.ExecCreate, p *Plan, hostname string) (*ExecPlan, error) {
	if len(req.Cmd) == 0 {
		return nil, errs.New(errs.Invalid, "No exec command specified")
	}
	var keys []byte
	if req.DetachKeys != "" {
		var err error
		if keys, err = ParseDetachKeys(req.DetachKeys); err != nil {
			return nil, errs.New(errs.Invalid, "Invalid escape keys (%s) provided", req.DetachKeys)
		}
	}
	proc := Process{
		Args: req.Cmd,
		Env:  Override(Environ(p.Process.Env, hostname, nil, Terminal(req.Tty)), req.Env),
		Dir:  firstNonEmpty(req.WorkingDir, p.Process.Dir),
		User: firstNonEmpty(req.User, p.Process.User),
		TTY:  req.Tty, OpenStdin: req.AttachStdin, StdinOnce: req.AttachStdin,
		GroupAdd: p.Process.GroupAdd, Umask: p.Process.Umask,
	}
	if req.ConsoleSize != nil {
		proc.Console = console(*req.ConsoleSize)
	}
	return &ExecPlan{
		Process: proc, Privileged: req.Privileged,
		AttachStdin: req.AttachStdin, AttachStdout: req.AttachStdout, AttachStderr: req.AttachStderr,
		DetachKeys: keys, Request: req,
	}, nil
}

// ParseDetachKeys reads keys as users write them: "ctrl-p,ctrl-q", "a,b". Each
// is one character, or ctrl- with one of a-z, @, [, \, ], ^ and _.
func ParseDetachKeys(s string) ([]byte, error) {
	var out []byte
	for _, key := range strings.Split(s, ",") {
		ctrl, isCtrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			out = append(out, key[0])
		case isCtrl && len(ctrl) == 1 && ctrl[0] >= 'a' && ctrl[0] <= 'z':
			out = append(out, ctrl[0]-'a'+1)
		case isCtrl && len(ctrl) == 1 && strings.Contains("@[\\]^_", ctrl):
			out = append(out, ctrl[0]-'@')
		default:
			return nil, errs.New(errs.Invalid, "Unknown character: '%s'", key)
		}
	}
	return out, nil
}
