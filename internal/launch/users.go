package launch

import (
	"context"
	"fmt"

	"gantry/internal/errs"
	"gantry/internal/plan"
)

// openUsers makes the container's user namespace, or opens the one that goes
// with the namespaces it joins: what belongs to one user namespace is of no use
// in another.
func (b *build) openUsers(context.Context) error {
	u := b.l.o.Users
	mode, err := b.in.Plan.UserMode(u != nil && u.Remaps())
	if err != nil || mode == plan.Host {
		return err
	}
	if u == nil {
		return errs.New(errs.Unsupported, "user namespaces are not supported")
	}
	if len(b.l.runtime(b.in.Plan)) > 0 {
		return errs.New(errs.Unsupported, "runtime %s: a container in a user namespace needs the built-in runtime, or --userns=host", b.in.Plan.Runtime)
	}
	j := b.in.Joins
	for _, pid := range []int{j.NetworkPID, j.PID, j.IPC} {
		if pid == 0 {
			continue
		}
		if b.users, err = u.Join(pid); err != nil {
			return fmt.Errorf("user namespace: %w", err)
		}
		return nil
	}
	if b.users, err = u.Open(b.in.ID, string(mode)); err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	return nil
}

// releaseUsers gives back what a container's user namespace took.
func (l *Launcher) releaseUsers(id string) error {
	if l.o.Users == nil {
		return nil
	}
	return l.o.Users.Release(id)
}
