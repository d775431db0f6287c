package plan

import (
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// leastRate is the smallest bound of network traffic, in bits per second: below
// it not even a connection comes about.
const leastRate = 8000

// setNetRate bounds the traffic of the container's networks.
func (p *Plan) setNetRate(r wire.NetRate) error {
	for _, v := range []int64{r.In, r.Out} {
		if v < 0 || v > 0 && v < leastRate {
			return errs.New(errs.Invalid, "invalid network rate: %d bit/s (at least %d, or 0 for no bound)", v, leastRate)
		}
	}
	switch p.Namespaces.Network.Mode {
	case Host, Container:
		if r != (wire.NetRate{}) {
			return errs.New(errs.Invalid, "conflicting options: a network rate and a network that is not the container's own")
		}
	}
	p.NetRate = r
	return nil
}
