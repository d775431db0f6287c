package container

import (
	"bytes"
	"context"
	"errors"
	osexec "os/exec"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Top lists the processes of a container as the host's ps(1) shows them.
// psArgs are its arguments, "-ef" if empty; they must leave the PID column in.
func (c *Query) Top(ctx context.Context, ref, psArgs string) (wire.TopResponse, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return wire.TopResponse{}, err
	}
	s := a.view()
	switch {
	case s.state.Phase == Restarting:
		return wire.TopResponse{}, errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", a.id)
	case !s.state.Phase.live():
		return wire.TopResponse{}, refuse(NotRunning, s)
	}
	pids, err := c.o.Launcher.Cgroup(a.id, s.rec.Plan).Procs()
	if err != nil {
		return wire.TopResponse{}, err
	}
	args := strings.Fields(psArgs)
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := runPS(ctx, args)
	if err != nil {
		return wire.TopResponse{}, err
	}
	top, err := parsePS(out, pids)
	if err == nil {
		a.tellOf("top")
	}
	return top, err
}

// runPS runs ps, whose arguments are the client's: they can't reach a shell.
func runPS(ctx context.Context, args []string) (string, error) {
	var out, failure bytes.Buffer
	cmd := osexec.CommandContext(ctx, "ps", args...)
	cmd.Stdout, cmd.Stderr = &out, &failure
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	err := cmd.Run()
	if text, _, _ := strings.Cut(strings.TrimSpace(failure.String()), "\n"); err != nil && text != "" {
		if !strings.HasPrefix(text, "ps: ") {
			text = "ps: " + text
		}
		return "", errs.New(errs.Unknown, "%s", text)
	}
	if errors.Is(err, osexec.ErrNotFound) {
		return "", errs.New(errs.Unsupported, "list processes: this host has no ps program: %w", err)
	}
	if err != nil {
		return "", errs.New(errs.Unknown, "list processes: %w", err)
	}
	return out.String(), nil
}

// parsePS picks the lines of the given processes out of the output of ps(1).
func parsePS(out string, pids []int) (wire.TopResponse, error) {
	var top wire.TopResponse
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	top.Titles = strings.Fields(lines[0])
	at := slices.Index(top.Titles, "PID")
	if at < 0 {
		return top, errs.New(errs.Unknown, "Couldn't find PID field in ps output")
	}
	top.Processes = [][]string{}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= at {
			continue
		}
		pid, err := strconv.Atoi(fields[at])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if n := len(top.Titles); len(fields) > n {
			// The last column holds spaces.
			fields = append(fields[:n-1:n-1], strings.Join(fields[n-1:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
