// Package cdi reads what vendors say of their devices (Container Device
// Interface) and edits the specification of a container accordingly: device
// nodes, mounts, environment, hooks and groups under names such as
// "vendor.com/gpu=0".
//
// The daemon's wiring gives it to launch, which has it edit the specification at
// each start, and to /info, which lists the devices. It reads the directories of
// specifications anew each time, since vendors write them at any moment, and
// writes nothing. It must not know of containers.
//
// Source: CDI specification 1.1 (SPEC.md of container-device-interface).
package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"gantry/internal/errs"
)

// DefaultDirs are where specifications are; of two devices of one name the one
// in the later directory counts.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// File is one specification, in the words of the CDI specification.
type File struct {
	Version     string            `json:"cdiVersion"`
	Kind        string            `json:"kind"` // vendor/class
	Annotations map[string]string `json:"annotations,omitempty"`
	Devices     []Entry           `json:"devices"`
	Edits       Edits             `json:"containerEdits,omitzero"` // for any of the devices
}

// Entry is a device of a specification.
type Entry struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Edits       Edits             `json:"containerEdits"`
}

// Edits are what a container gets.
type Edits struct {
	Env            []string    `json:"env,omitempty"` // KEY=value
	DeviceNodes    []Node      `json:"deviceNodes,omitempty"`
	NetDevices     []NetDevice `json:"netDevices,omitempty"`
	Hooks          []Hook      `json:"hooks,omitempty"`
	Mounts         []Mount     `json:"mounts,omitempty"`
	IntelRdt       *IntelRdt   `json:"intelRdt,omitempty"`
	AdditionalGIDs []uint32    `json:"additionalGids,omitempty"`
}

// Node is a device node. What it leaves out is the host's.
type Node struct {
	Path        string  `json:"path"`               // in the container
	HostPath    string  `json:"hostPath,omitempty"` // Path if empty
	Type        string  `json:"type,omitempty"`     // c, u, b or p
	Major       int64   `json:"major,omitempty"`
	Minor       int64   `json:"minor,omitempty"`
	FileMode    *uint32 `json:"fileMode,omitempty"`
	Permissions string  `json:"permissions,omitempty"` // some of r, w, m; all if empty
	UID         *uint32 `json:"uid,omitempty"`
	GID         *uint32 `json:"gid,omitempty"`
}

// NetDevice is a network interface of the host to be moved into the container.
type NetDevice struct {
	HostName string `json:"hostInterfaceName"`
	Name     string `json:"name"`
}

// Hook is a program that the runtime runs at a moment of the container's life.
type Hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout *int     `json:"timeout,omitempty"` // seconds
}

// Mount is a mount.
type Mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options,omitempty"`
	Type          string   `json:"type,omitempty"`
}

// IntelRdt are settings of Intel's resource director.
type IntelRdt struct {
	ClosID           string   `json:"closID,omitempty"`
	L3CacheSchema    string   `json:"l3CacheSchema,omitempty"`
	MemBwSchema      string   `json:"memBwSchema,omitempty"`
	Schemata         []string `json:"schemata,omitempty"`
	EnableMonitoring bool     `json:"enableMonitoring,omitempty"`
	EnableCMT        bool     `json:"enableCMT,omitempty"`
	EnableMBM        bool     `json:"enableMBM,omitempty"`
}

// A device that a Set has: its specification and its place in it.
type device struct {
	file     *File
	path     string
	edits    *Edits
	priority int
	twice    bool // two files of one directory have it: which one is meant can't be said
}

// A Set is all that the directories say at one moment.
type Set struct {
	devices map[string]device // by vendor/class=name
	// Problems are the files that are left out, and why.
	Problems []error
}

// maxFile bounds a specification in bytes.
const maxFile = 16 << 20

// Read reads the directories, in the order of growing priority. A directory that
// does not exist has no devices; a file that can't be used is a problem of the
// Set.
func Read(dirs []string) *Set {
	s := &Set{devices: map[string]device{}}
	for priority, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Problems = append(s.Problems, err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch filepath.Ext(path) {
			case ".json", ".yaml", ".yml":
			default:
				continue
			}
			f, err := readFile(path)
			if err != nil {
				s.Problems = append(s.Problems, fmt.Errorf("%s: %w", path, err))
				continue
			}
			s.add(f, path, priority)
		}
	}
	return s
}

func readFile(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errs.New(errs.Invalid, "is no file, or one of more than %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

func (s *Set) add(f *File, path string, priority int) {
	for i := range f.Devices {
		name := f.Kind + "=" + f.Devices[i].Name
		old, ok := s.devices[name]
		if ok && old.priority == priority {
			old.twice = true
			s.devices[name] = old
			s.Problems = append(s.Problems, errs.New(errs.Conflict, "%s: device %s is in %s too", path, name, old.path))
			continue
		}
		s.devices[name] = device{file: f, path: path, edits: &f.Devices[i].Edits, priority: priority}
	}
}

// Names returns the names of all devices, in order.
func (s *Set) Names() []string {
	var out []string
	for name, d := range s.devices {
		if !d.twice {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Parse reads and checks a specification in JSON or YAML. Fields that the
// specification does not have are an error, as it demands.
func Parse(data []byte) (*File, error) {
	var any any
	if err := yaml.Unmarshal(data, &any); err != nil { // JSON is YAML
		return nil, errs.With(errs.Invalid, err)
	}
	data, err := json.Marshal(any)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	f := new(File)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if err := f.check(); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return f, nil
}

func (f *File) check() error {
	if !slices.Contains(versions, strings.TrimPrefix(f.Version, "v")) {
		return fmt.Errorf("unknown cdiVersion %q", f.Version)
	}
	vendor, class, ok := strings.Cut(f.Kind, "/")
	if !ok || !word(vendor, "_-.") || !word(class, "_-.") || !letter(vendor[0]) || !letter(class[0]) {
		return fmt.Errorf("invalid kind %q: it is vendor/class", f.Kind)
	}
	if len(f.Devices) == 0 {
		return errors.New("it has no devices")
	}
	if err := f.Edits.check(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, d := range f.Devices {
		if !word(d.Name, "_-.:") {
			return fmt.Errorf("invalid device name %q", d.Name)
		}
		if seen[d.Name] {
			return fmt.Errorf("device %q is there twice", d.Name)
		}
		seen[d.Name] = true
		if err := d.Edits.check(); err != nil {
			return fmt.Errorf("device %q: %w", d.Name, err)
		}
	}
	return nil
}

// versions are those of the specification that can be read.
var versions = []string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// word reports whether s has letters, digits and the marks given, the latter not
// at its ends.
func word(s, marks string) bool {
	alnum := func(c byte) bool { return letter(c) || c >= '0' && c <= '9' }
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && strings.IndexByte(marks, s[i]) < 0 {
			return false
		}
	}
	return true
}

// hookNames are the moments at which hooks run (OCI runtime-spec, config.md).
var hookNames = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

func (e *Edits) check() error {
	for _, kv := range e.Env {
		if i := strings.IndexByte(kv, '='); i <= 0 {
			return fmt.Errorf("invalid environment variable %q", kv)
		}
	}
	for _, n := range e.DeviceNodes {
		if n.Path == "" || !slices.Contains([]string{"", "b", "c", "u", "p"}, n.Type) || strings.Trim(n.Permissions, "rwm") != "" {
			return fmt.Errorf("invalid device node %q of type %q with permissions %q", n.Path, n.Type, n.Permissions)
		}
	}
	for _, h := range e.Hooks {
		if !slices.Contains(hookNames, h.Name) || h.Path == "" {
			return fmt.Errorf("invalid hook %q with path %q", h.Name, h.Path)
		}
	}
	for _, m := range e.Mounts {
		if m.HostPath == "" || m.ContainerPath == "" {
			return fmt.Errorf("invalid mount of %q at %q", m.HostPath, m.ContainerPath)
		}
	}
	for _, n := range e.NetDevices {
		if n.HostName == "" || n.Name == "" {
			return fmt.Errorf("invalid network device %q as %q", n.HostName, n.Name)
		}
	}
	return nil
}
