// Package policy decides what a client of a scoped API socket may do: which
// operations, on which containers, and with what content. Everything it is
// given is what the handler will act on, never the bytes that the client sent
// (row S11 of the threat model), and what a policy does not allow is denied.
//
// Package server calls it for every request of a scoped socket. It reads no
// files and writes nothing; it must not know HTTP, nor how a container runs.
//
// The format of a policy is described in docs/policies.md.
package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// A Policy is what a socket's clients may do. Parse makes one.
type Policy struct {
	// Name is how denials call it.
	Name string `json:"-"`
	// Operations are what is allowed: names ("container.list"), kinds
	// ("container.*") and classes ("@read").
	Operations []string `json:"operations"`
	// Deny takes back some of it.
	Deny []string `json:"deny,omitempty"`
	// Labels select the containers that can be touched or seen; new ones get
	// them. Empty: all containers.
	Labels map[string]string `json:"labels,omitempty"`
	// Images are patterns of the images that can be run, pulled, pushed and
	// named. Nil: all.
	Images []string `json:"images,omitempty"`
	// Networks are patterns of the networks that containers may join. Nil: all.
	Networks []string `json:"networks,omitempty"`
	Create   Create   `json:"create"`
	Exec     Exec     `json:"exec"`
	Build    Build    `json:"build"`
}

// Create is what a new container may have. The zero value allows nothing that
// reaches out of the container.
type Create struct {
	Privileged      bool     `json:"privileged,omitempty"`
	Capabilities    []string `json:"capabilities,omitempty"`    // that may be added: NET_ADMIN
	Binds           []Bind   `json:"binds,omitempty"`           // host directories
	Volumes         []string `json:"volumes,omitempty"`         // patterns of names; nil: all
	Namespaces      []string `json:"namespaces,omitempty"`      // of the host: network, pid, ipc, uts, user, cgroup
	Join            bool     `json:"join,omitempty"`            // other containers' namespaces and volumes, whatever the labels
	Devices         []string `json:"devices,omitempty"`         // paths on the host
	DeviceRequests  bool     `json:"deviceRequests,omitempty"`  // GPUs and CDI devices
	SecurityOptions []string `json:"securityOptions,omitempty"` // patterns
	Sysctls         []string `json:"sysctls,omitempty"`         // patterns
	Runtimes        []string `json:"runtimes,omitempty"`        // besides the default one
	LogDrivers      []string `json:"logDrivers,omitempty"`      // besides those that write to this machine
	Publish         []string `json:"publish,omitempty"`         // host ports and ranges, "8000-8999"; others are the daemon's choice
	Memory          string   `json:"memory,omitempty"`          // the most a container may have, and has if it asks for none
	CPUs            float64  `json:"cpus,omitempty"`
	Pids            int64    `json:"pids,omitempty"`

	memory int64 // bytes
	ports  []portRange
}

// A Bind is a host directory that may be bound, with all below it.
type Bind struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"readonly,omitempty"`
}

// Exec is what a process in a container may have.
type Exec struct {
	Privileged bool     `json:"privileged,omitempty"`
	Users      []string `json:"users,omitempty"` // nil: all
}

// Build is what a build may have.
type Build struct {
	Networks []string `json:"networks,omitempty"` // of RUN; nil: the default one and none
	Remote   bool     `json:"remote,omitempty"`   // a context, or a file to import, that the daemon fetches
}

// Parse reads a policy. A key that is not known, twice there or of another type
// is an error: a policy that is not understood must not be served.
func Parse(name string, data []byte) (*Policy, error) {
	p := &Policy{Name: name}
	if err := unique(json.NewDecoder(bytes.NewReader(data))); err != nil {
		return nil, errs.New(errs.Invalid, "policy %s: %w", name, err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(p)
	if err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = fmt.Errorf("something follows the policy")
		}
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "policy %s: %w", name, err)
	}
	return p, nil
}

// unique returns an error for an object with the same key twice, in whatever
// case: json.Decoder would take the last.
func unique(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	d, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if d == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name := strings.ToLower(fmt.Sprint(key))
			if seen[name] {
				return fmt.Errorf("the key %q is there twice", name)
			}
			seen[name] = true
		}
		if err := unique(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// hostNamespaces are the namespaces that a container can share with the host.
var hostNamespaces = []string{"network", "pid", "ipc", "uts", "user", "cgroup"}

// check returns what is wrong with a policy, and prepares what is compared.
func (p *Policy) check() (err error) {
	if len(p.Operations) == 0 {
		return fmt.Errorf("no operations: nothing would be allowed")
	}
	for _, n := range p.Create.Namespaces {
		if !slices.Contains(hostNamespaces, n) {
			return fmt.Errorf("create.namespaces: %q is none of %s", n, strings.Join(hostNamespaces, ", "))
		}
	}
	for i, b := range p.Create.Binds {
		clean := cleanPath(b.Path)
		if clean == "" {
			return fmt.Errorf("create.binds: %q is not an absolute path", b.Path)
		}
		p.Create.Binds[i].Path = clean
	}
	for i, c := range p.Create.Capabilities {
		p.Create.Capabilities[i] = capability(c)
	}
	if p.Create.Memory != "" {
		if p.Create.memory, err = units.RAMInBytes(p.Create.Memory); err != nil || p.Create.memory <= 0 {
			return fmt.Errorf("create.memory: %q is no size", p.Create.Memory)
		}
	}
	if p.Create.CPUs < 0 || p.Create.Pids < 0 {
		return fmt.Errorf("create.cpus and create.pids can't be negative")
	}
	for _, text := range p.Create.Publish {
		r, err := parsePorts(text)
		if err != nil {
			return err
		}
		p.Create.ports = append(p.Create.ports, r)
	}
	for k := range p.Labels {
		if k == "" {
			return fmt.Errorf("labels: a label has no name")
		}
	}
	return nil
}

// CheckOperations returns an error for what p names and is no operation, kind
// or class of those given, so that a slip of the pen does not pass as a rule.
func (p *Policy) CheckOperations(known map[string]string) error {
	for _, o := range slices.Concat(p.Operations, p.Deny) {
		found := false
		for name, class := range known {
			found = found || names(o, name, class)
		}
		if !found && o != "*" {
			return errs.New(errs.Invalid, "policy %s: %q is no operation", p.Name, o)
		}
	}
	return nil
}

// names says whether an entry of a list names an operation.
func names(entry, operation, class string) bool {
	switch {
	case entry == operation:
		return true
	case class == "opaque":
		return false // must be named itself
	case entry == "*":
		return true
	case strings.HasPrefix(entry, "@"):
		return entry[1:] == class
	}
	kind, ok := strings.CutSuffix(entry, ".*")
	return ok && strings.HasPrefix(operation, kind+".")
}

// Operation decides about an operation of a class. An operation without a name
// is one that nobody has classified.
func (p *Policy) Operation(name, class string) error {
	if name == "" {
		return errs.New(errs.Denied, "policy %s: this operation is in no class: no policy allows it", p.Name)
	}
	for _, entry := range p.Deny {
		if names(entry, name, class) || entry == name {
			return p.deny(name, "deny: %q", entry)
		}
	}
	for _, entry := range p.Operations {
		if names(entry, name, class) {
			return nil
		}
	}
	return p.deny(name, "operations: it is not in the list")
}

// deny makes the error of a denial.
func (p *Policy) deny(operation, rule string, args ...any) error {
	return errs.New(errs.Denied, "policy %s denies %s by %s", p.Name, operation, fmt.Sprintf(rule, args...))
}

// Denial is the error of a denial that the caller finds itself.
func Denial(p *Policy, operation, rule string) error { return p.deny(operation, "%s", rule) }

// Touches says whether a container with these labels can be touched.
func (p *Policy) Touches(labels map[string]string) bool {
	for k, v := range p.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Container decides about an operation on a container with these labels.
func (p *Policy) Container(operation string, labels map[string]string) error {
	if p.Touches(labels) {
		return nil
	}
	return p.deny(operation, "labels: the container is none of those that this socket is for")
}

// Image decides about an image that an operation names.
func (p *Policy) Image(operation, ref string) error {
	if p.Images == nil || matchAny(p.Images, ref) {
		return nil
	}
	return p.deny(operation, "images: %q matches none of the patterns", ref)
}

// Network decides about a network that a container is to join.
func (p *Policy) Network(operation, name string) error {
	if p.Networks == nil || matchAny(p.Networks, name) {
		return nil
	}
	return p.deny(operation, "networks: %q matches none of the patterns", name)
}
