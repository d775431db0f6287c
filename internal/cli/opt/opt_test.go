package opt

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSizesAndCPUs(t *testing.T) {
	var b Bytes
	for in, want := range map[string]Bytes{"4096": 4096, "1k": 1024, "64m": 64 << 20, "1.5g": 3 << 29, "0": 0} {
		if err := b.Set(in); err != nil || b != want {
			t.Errorf("%s: %d, %v", in, b, err)
		}
	}
	if err := b.Set("abc"); err == nil || err.Error() != "invalid size: 'abc'" {
		t.Errorf("got %v", err)
	}
	var s SwapBytes
	if err := s.Set("-1"); err != nil || s != -1 {
		t.Errorf("unlimited swap: %d, %v", s, err)
	}
	if err := b.Set("-1"); err == nil {
		t.Error("a negative size is refused")
	}
	var c CPUs
	for in, want := range map[string]CPUs{"1": 1e9, "0.5": 5e8, "1/4": 25e7, ".000000001": 1} {
		if err := c.Set(in); err != nil || c != want {
			t.Errorf("%s: %d, %v", in, c, err)
		}
	}
	for _, in := range []string{"", "x", "1/3", "0.0000000001", "99999999999999"} {
		if err := c.Set(in); err == nil {
			t.Errorf("%q: %d", in, c)
		}
	}
}

func TestFilterIsTheAPIsForm(t *testing.T) {
	var f Filter
	for _, v := range []string{"label=a=b", "Label = c ", "status=exited", ""} {
		if err := f.Set(v); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := json.Marshal(f); string(b) != `{"label":{"a=b":true,"c":true},"status":{"exited":true}}` {
		t.Errorf("got %s", b)
	}
	if err := f.Set("novalue"); err == nil || err.Error() != "bad format of filter (expected name=value)" {
		t.Errorf("got %v", err)
	}
}

func TestPlatform(t *testing.T) {
	for in, want := range map[string]string{"linux/amd64": "linux amd64 ", "linux/arm64/v8": "linux arm64 v8", "linux": "linux  ", "arm64": "linux arm64 "} {
		os, arch, variant, err := Platform(in)
		if got := strings.Join([]string{os, arch, variant}, " "); got != want || err != nil {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"a/b/c/d", "linux/", "linux/a b"} {
		if _, _, _, err := Platform(in); err == nil {
			t.Errorf("%s is no platform", in)
		}
	}
}

func TestLists(t *testing.T) {
	l := List{Check: Label}
	for _, v := range []string{"a=b", "c"} {
		if err := l.Set(v); err != nil {
			t.Fatal(err)
		}
	}
	if !l.Has("c") || l.Has("d") || l.String() != "[a=b c]" || ToMap(l.Values)["a"] != "b" {
		t.Errorf("got %v", l.Values)
	}
	for v, want := range map[string]string{"=x": "invalid label '=x': empty name", "a b=c": "label 'a b' contains whitespaces"} {
		if err := l.Set(v); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", v, err)
		}
	}
	for v, ok := range map[string]bool{"x.y": true, ".": true, "a-b.c": true, "-a.b": false, "1.2": false, "a_b": false, "": false, "a..b": false} {
		if _, err := DNSSearch(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
	for v, ok := range map[string]bool{"vendor.com/class=name": true, "/dev/x": false, "a=b": false, "/c=n": false, "a/b/c=d": false} {
		if IsCDI(v) != ok {
			t.Errorf("%s is a CDI name: %v", v, !ok)
		}
	}
}

func TestGPUs(t *testing.T) {
	for in, want := range map[string]string{
		"all":                          `[{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]`,
		"2":                            `[{"Driver":"","Count":2,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]`,
		`"device=0,1",driver=nvidia`:   `[{"Driver":"nvidia","Count":0,"DeviceIDs":["0","1"],"Capabilities":[["gpu"]],"Options":{}}]`,
		`"capabilities=compute,video"`: `[{"Driver":"","Count":1,"DeviceIDs":null,"Capabilities":[["compute","video","gpu"]],"Options":{}}]`,
	} {
		var g GPUs
		if err := g.Set(in); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if b, _ := json.Marshal(g); string(b) != want {
			t.Errorf("%s: %s", in, b)
		}
	}
	for in, want := range map[string]string{"x": `invalid count (x): value must be either "all" or an integer`, "count=1,count=2": "gpu request key 'count' can be specified only once", "bogus=1": "unexpected key 'bogus' in 'bogus=1'"} {
		if err := new(GPUs).Set(in); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", in, err)
		}
	}
}
