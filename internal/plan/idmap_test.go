package plan

import (
	"fmt"
	"strings"
	"testing"

	"gantry/internal/wire"
)

func TestParseIDMap(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"user", "{true [] []}"},
		{"0:1000:1", "{false [{0 1000 1}] [{0 1000 1}]}"},
		{"u:0:1000:1;g:5:6:7;g:100:200:1", "{false [{0 1000 1}] [{5 6 7} {100 200 1}]}"},
		{"", "invalid idmap"}, {"users", "invalid idmap"}, {"1:2", "invalid idmap"}, {"x:0:0:1;0:0:1", "invalid idmap"},
		{"0:0:0", "invalid idmap"}, {"-1:0:1", "invalid idmap"}, {"0:0:4294967296", "invalid idmap"}, {"u:0:0:1", "both need a range"},
		{"0:10:5;4:20:1", "overlap"}, {"0:10:5;7:12:1", "overlap"},
	} {
		m, err := ParseIDMap(c.in)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(*m)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}

func TestIDMapsAreOfBinds(t *testing.T) {
	p := &Plan{Mounts: []Mount{{Type: typeBind, Target: "/a"}, {Type: typeVolume, Target: "/v"}}}
	q, err := p.WithExtra(wire.CreateExtra{IDMaps: map[string]string{"/a/": "user"}})
	if err != nil || q.Mounts[0].IDMap == nil || p.Mounts[0].IDMap != nil {
		t.Errorf("%+v, %v", q, err)
	}
	for _, target := range []string{"/v", "/nosuch"} {
		if _, err := p.WithExtra(wire.CreateExtra{IDMaps: map[string]string{target: "user"}}); err == nil {
			t.Errorf("%s: no error", target)
		}
	}
}
