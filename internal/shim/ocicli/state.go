package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/cgroup"
	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// specVersion is the version of the OCI runtime spec that is implemented.
const specVersion = "1.3.0"

// Files in a container's directory below --root.
const (
	stateFile = "state.json"
	jobFile   = "job"       // the container's job in its wire form
	fifoFile  = "exec.fifo" // there as long as the container waits for start

	pausedFile = "paused" // there as long as it is frozen
)

// A container is one directory below --root.
type container struct {
	dir    string
	record record
	job    *job.Job
}

// A record is the content of stateFile.
type record struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	StartTime   uint64            `json:"startTime"` // of Pid, in clock ticks since boot (proc(5))
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      string            `json:"cgroup,omitempty"`
}

// checkID refuses what is no file name.
func checkID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > 255 {
		return errs.New(errs.Invalid, "container ID %q is not usable", id)
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+-.", r) {
			return errs.New(errs.Invalid, "container ID %q: characters are letters, digits and _+-.", id)
		}
	}
	return nil
}

func (c *cli) load(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	ct := &container{dir: filepath.Join(c.root, id)}
	data, err := os.ReadFile(filepath.Join(ct.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "container %s does not exist", id)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &ct.record); err != nil {
		return nil, errs.New(errs.Corrupt, "state of container %s: %w", id, err)
	}
	if data, err = os.ReadFile(filepath.Join(ct.dir, jobFile)); err != nil {
		return nil, err
	}
	if ct.job, err = job.Decode(data); err != nil {
		return nil, errs.New(errs.Corrupt, "job of container %s: %w", id, err)
	}
	return ct, nil
}

func (ct *container) save() error {
	data, err := json.MarshalIndent(ct.record, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(ct.dir, stateFile), append(data, '\n'), 0o600)
}

func (ct *container) fifo() string { return filepath.Join(ct.dir, fifoFile) }

// group returns the container's cgroup, or nil if it has none.
func (ct *container) group() (*cgroup.Group, error) {
	if ct.record.Cgroup == "" {
		return nil, nil
	}
	h, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if strings.Contains(ct.record.Cgroup, ":") {
		return h.SystemdGroup(ct.record.Cgroup)
	}
	return h.Group(ct.record.Cgroup), nil
}

// needGroup is group for commands that are about nothing else.
func (ct *container) needGroup() (*cgroup.Group, error) {
	g, err := ct.group()
	if err == nil && g == nil {
		err = errs.New(errs.Unsupported, "container %s has no cgroup", ct.record.ID)
	}
	return g, err
}

// status says where in its life the container is (runtime-spec, runtime.md),
// with "paused" as everybody does.
func (ct *container) status() (specs.ContainerState, error) {
	start, state, err := processStat(ct.record.Pid)
	if err != nil || state == 'Z' || state == 'X' || start != ct.record.StartTime {
		return specs.StateStopped, nil
	}
	if _, err := os.Stat(ct.fifo()); err == nil {
		return specs.StateCreated, nil
	}
	if _, err := os.Stat(filepath.Join(ct.dir, pausedFile)); err == nil {
		return "paused", nil
	}
	return specs.StateRunning, nil
}

// processStat returns when a process was started and its state letter.
func processStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, field 2, may hold spaces and parentheses of its own.
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(f) < 20 {
		return 0, 0, errs.New(errs.Corrupt, "/proc/%d/stat has %d fields", pid, len(f)+2)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0][0], err
}

// state is the command of that name.
func (c *cli) state(_ options, args []string) error {
	id, err := one(args)
	if err != nil {
		return err
	}
	ct, err := c.load(id)
	if err != nil {
		return err
	}
	info, err := ct.info()
	if err != nil {
		return err
	}
	return c.print(info)
}

// An info is what state and list print.
type info struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

func (ct *container) info() (info, error) {
	status, err := ct.status()
	if err != nil {
		return info{}, err
	}
	r := ct.record
	i := info{
		State:  specs.State{Version: r.OCIVersion, ID: r.ID, Status: status, Pid: r.Pid, Bundle: r.Bundle, Annotations: r.Annotations},
		Rootfs: r.Rootfs, Created: r.Created,
	}
	if status == specs.StateStopped {
		i.Pid = 0
	}
	return i, nil
}

// list is the command of that name.
func (c *cli) list(o options, _ []string) error {
	names, err := os.ReadDir(c.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := []info{}
	for _, n := range names {
		ct, err := c.load(n.Name())
		if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid) {
			continue // being made or removed, or not ours
		}
		if err != nil {
			return err
		}
		i, err := ct.info()
		if err != nil {
			return err
		}
		all = append(all, i)
	}
	if o.get("format") == "json" {
		return c.print(all)
	}
	if !o.has("quiet") {
		fmt.Fprintf(c.stdout, "%-20s %-8s %-10s %-30s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED")
	}
	for _, i := range all {
		if o.has("quiet") {
			fmt.Fprintln(c.stdout, i.ID)
			continue
		}
		fmt.Fprintf(c.stdout, "%-20s %-8d %-10s %-30s %s\n", i.ID, i.Pid, i.Status, i.Bundle, i.Created.Format(time.RFC3339Nano))
	}
	return nil
}
