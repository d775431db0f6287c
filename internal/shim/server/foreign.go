package server

import (
	"os"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// foreign is another OCI runtime's program that works on a bundle.
type foreign struct {
	s      *server
	argv   []string
	bundle string
}

func (f *foreign) create(stdio [3]*os.File) (task, error) {
	return nil, errs.New(errs.Unsupported, "runtime %s", f.argv[0])
}

func (f *foreign) exec(p *job.Process, stdio [3]*os.File) (task, error) {
	return nil, errs.New(errs.Unsupported, "runtime %s", f.argv[0])
}

func (f *foreign) remove() {}
