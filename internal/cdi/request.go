package cdi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// Devices edits the specifications of containers by what directories say at that
// moment.
type Devices struct {
	Dirs func() []string // in the order of growing priority
}

// Add edits the specification of a container with the plan p so that it has the
// devices that it asks for.
func (d Devices) Add(spec *specs.Spec, p *plan.Plan) error {
	s := Read(d.Dirs())
	names, err := s.Resolve(p.DeviceRequests)
	if err != nil {
		return err
	}
	if err := s.Inject(spec, names); err != nil {
		return fmt.Errorf("CDI device injection failed: %w", errors.Join(append([]error{err}, s.Problems...)...))
	}
	return nil
}

// vendors of GPUs, by the driver that names them in a request, and their kinds.
var vendors = []struct{ driver, kind string }{{"nvidia", "nvidia.com/gpu"}, {"amd", "amd.com/gpu"}}

// Resolve turns the device requests of a container (--gpus, --device) into the
// names of devices. The errors are Docker's, without a kind, as it answers a
// start with 500.
func (s *Set) Resolve(requests []wire.DeviceRequest) ([]string, error) {
	var out []string
	for _, r := range requests {
		names, err := s.resolve(r)
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	return out, nil
}

func (s *Set) resolve(r wire.DeviceRequest) ([]string, error) {
	none := fmt.Errorf("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	wants := func(capability string) bool {
		return slices.ContainsFunc(r.Capabilities, func(set []string) bool { return slices.Contains(set, capability) })
	}
	if r.Driver == "cdi" || r.Driver == "" && wants("cdi") {
		return r.DeviceIDs, nil
	}
	if r.Driver == "" {
		if !wants("gpu") {
			return nil, none
		}
		for _, v := range vendors {
			if len(s.of(v.kind)) > 0 {
				return s.gpus(v.kind, r)
			}
		}
		return nil, fmt.Errorf("failed to discover GPU vendor from CDI: no known GPU vendor found")
	}
	for _, v := range vendors {
		if r.Driver == v.driver || r.Driver == v.driver+".cdi" {
			return s.gpus(v.kind, r)
		}
	}
	return nil, none
}

// of returns the names of all devices of a kind.
func (s *Set) of(kind string) []string {
	return slices.DeleteFunc(s.Names(), func(name string) bool { return !strings.HasPrefix(name, kind+"=") })
}

// gpus names the GPUs of a kind: those with the IDs, or so many, -1 for all.
func (s *Set) gpus(kind string, r wire.DeviceRequest) ([]string, error) {
	if len(r.DeviceIDs) > 0 && r.Count > 0 {
		return nil, errs.New(errs.Invalid, "cannot set both Count and DeviceIDs on device request")
	}
	ids := r.DeviceIDs
	switch {
	case len(ids) > 0:
	case r.Count < 0:
		if _, ok := s.devices[kind+"=all"]; !ok {
			return s.of(kind), nil
		}
		ids = []string{"all"}
	default:
		for i := range r.Count {
			ids = append(ids, strconv.Itoa(i))
		}
	}
	var out []string
	for _, id := range ids {
		if !strings.Contains(id, "=") {
			id = kind + "=" + id
		}
		out = append(out, id)
	}
	return out, nil
}
