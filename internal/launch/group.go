package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/cgroup"
	"gantry/internal/durable"
	"gantry/internal/id"
	"gantry/internal/plan"
)

// cgroupFile holds, in a container's run directory, what cgroupPath said when
// the container was launched: it outlives the plan, and a daemon that comes back
// with another driver or another parent.
const cgroupFile = "cgroup"

// cgroupPath is where the container's processes are counted and limited: a path
// below every hierarchy, or, where systemd makes the groups,
// "slice:prefix:name" of a scope, as the OCI runtimes have it.
func (l *Launcher) cgroupPath(id string, p *plan.Plan) string {
	parent := l.o.CgroupParent
	if p != nil && p.CgroupParent != "" {
		parent = p.CgroupParent
	}
	if l.o.Systemd {
		return parent + ":" + l.o.ScopePrefix + ":" + id
	}
	return path.Join("/", parent, id)
}

// noteCgroup writes the path down before the first process is in the group.
func (l *Launcher) noteCgroup(id string, p *plan.Plan) error {
	if err := durable.Replace(filepath.Join(l.runDir(id), cgroupFile), []byte(l.cgroupPath(id, p)), 0o600); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return nil
}

// Cgroup returns the container's control group. It exists while the container
// is up. The plan may be nil for one that has been launched.
func (l *Launcher) Cgroup(id string, p *plan.Plan) *cgroup.Group {
	at := l.cgroupPath(id, p)
	// A group that is not the container's own alone must never be taken for
	// it, whatever the file says: its processes are going to be killed.
	if noted, err := os.ReadFile(filepath.Join(l.runDir(id), cgroupFile)); err == nil && strings.HasSuffix(string(noted), id) {
		at = string(noted)
	}
	if strings.Count(at, ":") == 2 {
		// An error says that the parent is no slice: then there was no launch.
		if g, err := l.o.Cgroups.SystemdGroup(at); err == nil {
			return g
		}
	}
	return l.o.Cgroups.Group(at)
}

// cgroupDirs are the directories that hold containers' control groups.
func cgroupDirs(l *Launcher) []string {
	parent := l.o.CgroupParent
	if l.o.Systemd {
		g, err := l.o.Cgroups.SystemdGroup(l.cgroupPath("x", nil))
		if err != nil {
			return nil
		}
		parent = path.Dir(g.Path())
	}
	var dirs []string
	for _, root := range l.o.Cgroups.V1 {
		dirs = append(dirs, filepath.Join(root, parent))
	}
	if l.o.Cgroups.V2 != "" {
		dirs = append(dirs, filepath.Join(l.o.Cgroups.V2, parent))
	}
	return dirs
}

// Scopes returns the ID of the container of each directory of a scope that this
// daemon's containers have; none without systemd.
func (l *Launcher) Scopes() (map[string]string, error) {
	if !l.o.Systemd {
		return nil, nil
	}
	found := map[string]string{}
	for _, dir := range cgroupDirs(l) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("scopes: %w", err)
		}
		for _, e := range entries {
			if name := l.owner(e.Name()); e.IsDir() && id.Valid(name) {
				found[filepath.Join(dir, e.Name())] = name
			}
		}
	}
	return found, nil
}

// owner returns the ID in the name of a container's directory or scope.
func (l *Launcher) owner(name string) string {
	if scope, ok := strings.CutSuffix(name, ".scope"); ok {
		return strings.TrimPrefix(scope, l.o.ScopePrefix+"-")
	}
	return name
}

// withDriver has another runtime make the control group as we would.
func withDriver(l *Launcher, program []string) []string {
	if l.o.Systemd {
		return append(slices.Clone(program), "--systemd-cgroup")
	}
	return program
}
