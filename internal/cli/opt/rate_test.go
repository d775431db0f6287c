package opt

import (
	"testing"

	"gantry/internal/wire"
)

func TestRate(t *testing.T) {
	for in, want := range map[string]wire.NetRate{
		"in=10mbit,out=5mbit": {In: 10e6, Out: 5e6}, "out=1.5gbit": {Out: 1.5e9}, "in=1000000": {In: 1e6},
		"in=1mbps": {In: 8e6}, "in=8kbit,in=16Kbit": {In: 16000}, "none": {}, "in=0": {},
	} {
		var r Rate
		if err := r.Set(in); err != nil || r.Value != want || !r.Given {
			t.Errorf("%s: %+v, %v", in, r, err)
		}
	}
	for _, in := range []string{"", "10mbit", "up=1mbit", "in=", "in=fast", "in=-1mbit", "in=1e30gbit", "in=NaN"} {
		var r Rate
		if err := r.Set(in); err == nil {
			t.Errorf("%q is %+v", in, r.Value)
		}
	}
}
