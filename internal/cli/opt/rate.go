package opt

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gantry/internal/wire"
)

// Rate is the value of --net-rate: "in=10mbit,out=5mbit", or "none".
type Rate struct {
	Value wire.NetRate
	Given bool
}

// rateUnits are those of tc(8), in bits per second; without one it is bits.
func rateUnits() []rateUnit {
	return []rateUnit{
		{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}, {"bit", 1},
		{"kbps", 8e3}, {"mbps", 8e6}, {"gbps", 8e9}, {"tbps", 8e12}, {"bps", 8}, {"", 1},
	}
}

type rateUnit struct {
	suffix string
	bits   float64
}

// Set implements pflag.Value.
func (r *Rate) Set(v string) error {
	r.Given, r.Value = true, wire.NetRate{}
	if v == "none" {
		return nil
	}
	for part := range strings.SplitSeq(v, ",") {
		key, text, ok := strings.Cut(part, "=")
		bits, err := parseRate(text)
		switch {
		case !ok || key != "in" && key != "out":
			return fmt.Errorf("invalid network rate %q: want in=RATE,out=RATE or none", v)
		case err != nil:
			return err
		case key == "in":
			r.Value.In = bits
		default:
			r.Value.Out = bits
		}
	}
	return nil
}

func parseRate(s string) (int64, error) {
	low := strings.ToLower(strings.TrimSpace(s))
	for _, u := range rateUnits() {
		number, ok := strings.CutSuffix(low, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || v < 0 || math.IsNaN(v) || v*u.bits > 1e15 {
			break
		}
		return int64(v * u.bits), nil
	}
	return 0, fmt.Errorf("invalid network rate %q: want a number with bit, kbit, mbit or gbit, or bytes per second with bps, kbps, mbps or gbps", s)
}

// String implements pflag.Value.
func (r *Rate) String() string {
	if r.Value == (wire.NetRate{}) {
		return ""
	}
	return fmt.Sprintf("in=%dbit,out=%dbit", r.Value.In, r.Value.Out)
}

// Type implements pflag.Value.
func (r *Rate) Type() string { return "rate" }
