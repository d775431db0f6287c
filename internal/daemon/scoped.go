package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"gantry/internal/config"
	"gantry/internal/daemon/listen"
	"gantry/internal/errs"
	"gantry/internal/server"
	"gantry/internal/server/policy"
)

// maxPolicy is the size that a policy's file may have, in bytes.
const maxPolicy = 1 << 20

// readPolicy reads a policy: a file if name is a path, else a ready one.
func readPolicy(name string) (*policy.Policy, error) {
	data, ok := policy.Ready(name)
	if strings.Contains(name, "/") {
		st, err := os.Stat(name)
		if err == nil && (!st.Mode().IsRegular() || st.Size() > maxPolicy) {
			err = errs.New(errs.Invalid, "%s is no file of a policy", name)
		}
		if err == nil {
			data, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
	} else if !ok {
		return nil, errs.New(errs.Invalid, "policy %s: none of the ready ones (%s), and no path of a file", name, strings.Join(policy.ReadyNames(), ", "))
	}
	p, err := policy.Parse(name, data)
	if err != nil {
		return nil, err
	}
	return p, p.CheckOperations(server.Operations())
}

// openScoped opens a socket whose requests a policy bounds.
func (d *Daemon) openScoped(ctx context.Context, c *config.Config, a config.APISocket) error {
	p, err := readPolicy(a.Policy)
	if err != nil {
		return fmt.Errorf("api-socket %s: %w", a.Path, err)
	}
	o := listen.Options{Group: a.Group, Mode: fs.FileMode(a.FileMode())}
	if o.Group == "" {
		o.Group = c.Group
	}
	s := d.server.Scoped(p)
	err = d.openAPI(ctx, "unix://"+a.Path, o, door{
		what: "API, policy " + a.Policy, key: "scoped " + a.Path, serve: func(l net.Listener) error { return s.Serve(l) }, scoped: s, policy: a.Policy,
	})
	if err != nil {
		return fmt.Errorf("api-socket: %w", err)
	}
	return nil
}

// reloadPolicies reads the policies of the scoped sockets again: all of them,
// or, after an error, none.
func (ds doors) reloadPolicies() error {
	fresh := make([]*policy.Policy, len(ds))
	var all []error
	for i, o := range ds {
		if o.scoped == nil {
			continue
		}
		p, err := readPolicy(o.policy)
		fresh[i] = p
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	for i, o := range ds {
		if o.scoped != nil {
			o.scoped.SetPolicy(fresh[i])
		}
	}
	return nil
}
