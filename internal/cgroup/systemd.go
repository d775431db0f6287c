package cgroup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gantry/internal/errs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// With the systemd driver a group is a transient scope unit that systemd makes,
// delegated to us (Delegate=yes): systemd owns the tree above and knows of the
// container, we set the limits. They are given to systemd as properties too, so
// that a reload of its configuration does not take them back.
// Source: systemd's org.freedesktop.systemd1(5), systemd.resource-control(5),
// and its document "Control Group APIs and Delegation".

// systemdSocket is systemd's private bus socket, for root only.
const systemdSocket = "/run/systemd/private"

// SystemdRuns reports whether systemd manages this host, as sd_booted(3) tells.
func SystemdRuns() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// A unit is a transient scope.
type unit struct {
	name, slice, description string
	socket                   string
	pending                  *specs.LinuxResources
	started                  bool
}

// SystemdGroup returns the group of a scope unit. The form of path is
// "slice:prefix:name", as the OCI runtimes have it: an empty slice is
// system.slice, and the unit is prefix-name.scope.
func (h *Host) SystemdGroup(path string) (*Group, error) {
	parts := strings.Split(path, ":")
	if len(parts) != 3 || parts[2] == "" {
		return nil, errs.New(errs.Invalid, "cgroup path %q: the systemd driver wants slice:prefix:name", path)
	}
	u := &unit{slice: parts[0], description: "container " + parts[2], socket: systemdSocket}
	if u.slice == "" {
		u.slice = "system.slice"
	}
	u.name = parts[2]
	if !strings.HasSuffix(u.name, ".slice") {
		u.name = strings.TrimPrefix(parts[1]+"-"+parts[2], "-") + ".scope"
	}
	dir, err := expandSlice(u.slice)
	if err != nil {
		return nil, err
	}
	return &Group{host: h, path: filepath.Join(dir, u.name), unit: u}, nil
}

// expandSlice turns a slice's name into its path: a-b.slice is below a.slice
// (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.ContainsAny(slice, "/\x00") {
		return "", errs.New(errs.Invalid, "cgroup parent %q: with the systemd driver it is the name of a slice, such as machine.slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	path, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		if part == "" {
			return "", errs.New(errs.Invalid, "cgroup parent %q: not a slice's name", slice)
		}
		prefix += part
		path = filepath.Join(path, prefix+".slice")
		prefix += "-"
	}
	return path, nil
}

// start makes the scope with pid in it and sets the limits that Create was
// given.
func (g *Group) start(pid int) error {
	u := g.unit
	props := append(unitProperties(u.pending, g.host.Mode == V2),
		property{"Description", "s", u.description}, property{"Slice", "s", u.slice},
		property{"Delegate", "b", true}, property{"DefaultDependencies", "b", false},
		property{"CollectMode", "s", "inactive-or-failed"},
		property{"PIDs", "au", []uint32{uint32(pid)}})
	if err := u.call("StartTransientUnit", "ssa(sv)a(sa(sv))", u.name, "fail", props, []struct{}{}); err != nil {
		return fmt.Errorf("start unit %s: %w", u.name, err)
	}
	// The call returns when the job is queued.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		pids, err := g.Procs()
		if err == nil && len(pids) > 0 {
			break
		}
		if time.Now().After(deadline) {
			return errs.New(errs.Unavailable, "start unit %s: systemd did not move process %d into it in ten seconds", u.name, pid)
		}
	}
	u.started = true
	// v1 hierarchies that systemd does not manage have no directory yet.
	for _, d := range g.dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if root := g.host.V1["cpuset"]; root != "" {
		if err := inheritCpuset(root, g.path); err != nil {
			return err
		}
	}
	if err := g.join(pid); err != nil {
		return err
	}
	return g.set(u.pending)
}

// stop ends the scope; a unit that is gone already is no error. A scope whose
// last process has ended goes by itself, and systemd may then leave the call
// unanswered: that is no error either, the caller looks at the directory.
func (u *unit) stop() error {
	err := u.callWithin(2*time.Second, "StopUnit", "ss", u.name, "replace")
	var be *busError
	if errors.As(err, &be) && be.name == "org.freedesktop.systemd1.NoSuchUnit" || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// update tells systemd of changed limits.
func (u *unit) update(res *specs.LinuxResources, v2 bool) error {
	props := unitProperties(res, v2)
	if len(props) == 0 {
		return nil
	}
	return u.call("SetUnitProperties", "sba(sv)", u.name, true, props)
}

// A property is a unit's property with its D-Bus signature.
type property struct {
	name, sig string
	value     any
}

// unitProperties says res in systemd's words.
func unitProperties(res *specs.LinuxResources, v2 bool) []property {
	if res == nil {
		return nil
	}
	var props []property
	add := func(name string, n *int64) {
		if n == nil || *n == 0 {
			return
		}
		v := uint64(*n)
		if *n < 0 {
			v = noLimit
		}
		props = append(props, property{name, "t", v})
	}
	if m := res.Memory; m != nil && v2 {
		add("MemoryMax", m.Limit)
		add("MemoryLow", m.Reservation)
		if swap, limit := deref(m.Swap), deref(m.Limit); swap == -1 || swap > 0 && limit > 0 && swap >= limit {
			left := swap - max(limit, 0)
			if swap == -1 {
				left = -1
			}
			props = append(props, property{"MemorySwapMax", "t", uint64(left)})
		}
	} else if m != nil {
		add("MemoryLimit", m.Limit)
	}
	if c := res.CPU; c != nil {
		props = append(props, cpuProperties(c, v2)...)
	}
	if p := res.Pids; p != nil {
		add("TasksMax", p.Limit)
	}
	if b := res.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if v2 {
			props = append(props, property{"IOWeight", "t", ioWeight(*b.Weight)})
		} else {
			props = append(props, property{"BlockIOWeight", "t", uint64(*b.Weight)})
		}
	}
	return props
}

func cpuProperties(c *specs.LinuxCPU, v2 bool) (props []property) {
	if c.Shares != nil && *c.Shares != 0 {
		if v2 {
			props = append(props, property{"CPUWeight", "t", cpuWeight(*c.Shares)})
		} else {
			props = append(props, property{"CPUShares", "t", *c.Shares})
		}
	}
	if quota := deref(c.Quota); quota != 0 {
		period := uint64(100_000)
		if c.Period != nil && *c.Period != 0 {
			period = *c.Period
			if v2 {
				props = append(props, property{"CPUQuotaPeriodUSec", "t", period})
			}
		}
		perSec := noLimit
		if quota > 0 {
			// systemd counts in whole percents.
			perSec = uint64(quota) * 1_000_000 / period
			perSec = (perSec + 9_999) / 10_000 * 10_000
		}
		props = append(props, property{"CPUQuotaPerSecUSec", "t", perSec})
	}
	return props
}

// call makes one method call to systemd's manager and waits for its answer.
func (u *unit) call(method, sig string, args ...any) error {
	return u.callWithin(25*time.Second, method, sig, args...)
}

func (u *unit) callWithin(limit time.Duration, method, sig string, args ...any) error {
	c, err := net.DialTimeout("unix", u.socket, 5*time.Second)
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if err := busAuth(c); err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	if _, err := c.Write(busCall(method, sig, args)); err != nil {
		return err
	}
	return busReply(c)
}
