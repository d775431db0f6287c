package filter

import (
	"testing"

	"gantry/internal/errs"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		ok   bool
		keys int
	}{
		{"", true, 0}, {"null", true, 0}, {"{}", true, 0},
		{`{"label":["a","b=c"]}`, true, 1},
		{`{"label":{"a":true},"name":{"x":false}}`, true, 2},
		{`{"status":[]}`, true, 1},
		{`{"status":`, false, 0}, {"abc", false, 0}, {"[]", false, 0}, {"5", false, 0}, {`""`, false, 0},
		{`{"status":"running"}`, false, 0}, {`{"label":["a",5]}`, false, 0}, {`{"label":{"a":"b"}}`, false, 0},
		{`{"status":["running"]} x`, false, 0},
	} {
		a, err := Parse(c.in)
		if (err == nil) != c.ok || len(a) != c.keys {
			t.Errorf("Parse(%s) = %v, %v", c.in, a, err)
		}
		if err != nil && (err.Error() != "invalid filter" || !errs.Is(err, errs.Invalid)) {
			t.Errorf("Parse(%s): %v (%v)", c.in, err, errs.KindOf(err))
		}
	}
}

func TestMatch(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": "front", "empty": ""}
	for _, c := range []struct {
		in   string
		want bool
	}{
		{`{}`, true},
		{`{"label":["app"]}`, true}, {`{"label":["app=web"]}`, true}, {`{"label":["app=db"]}`, false},
		{`{"label":["app=web","tier=front"]}`, true}, {`{"label":["app=web","app=db"]}`, false},
		{`{"label":["empty"]}`, true}, {`{"label":["empty="]}`, true}, {`{"label":["=x"]}`, false}, {`{"label":[]}`, false},
		{`{"label!":["app=web"]}`, false}, {`{"label!":["app=db"]}`, true}, {`{"label!":["nosuch"]}`, true},
		{`{"label":["app"],"label!":["nosuch","tier"]}`, false},
	} {
		a, err := Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Labels(labels); got != c.want {
			t.Errorf("%s: %v", c.in, got)
		}
	}
	name := Args{"name": {"w.b": false}, "id": {"c18": true, "": true}, "driver": {"local": false}}
	if !name.Pattern("name", "/web-1") || name.Pattern("name", "/WEB") || !name.Pattern("nosuch", "x") {
		t.Error("Pattern")
	}
	if (Args{"name": {"[": true}}).Pattern("name", "x[") || !(Args{"name": {"[": true}}).Pattern("name", "[") {
		t.Error("a bad expression must only match itself")
	}
	if !name.Prefix("id", "c18d91") || name.Prefix("id", "18d9") || !name.Exact("driver", "local") || name.Exact("driver", "x") {
		t.Error("Prefix, Exact")
	}
	if !name.Contains("driver", "my-local") || name.Contains("driver", "x") {
		t.Error("Contains")
	}
	if (Args{"status": {}}).Exact("status", "running") {
		t.Error("a key without values matches nothing")
	}
}

func TestErrors(t *testing.T) {
	for in, want := range map[string]string{
		`{"nosuch":["x"]}`: "invalid filter 'nosuch'",
		`{"nosuch":[]}`:    "invalid filter 'nosuch'",
		`{"label!":["a"]}`: "invalid filter 'label!'",
		`{"z":[],"b":[]}`:  "invalid filter 'b'",
		`{"label":["a"]}`:  "",
	} {
		a, _ := Parse(in)
		err := a.Check(Containers)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := (Args{"dangling": {"x": true}}).Bool("dangling", OtherwiseFalse); err == nil || err.Error() != "invalid filter 'dangling=[x]'" {
		t.Error(err)
	}
	if _, err := (Args{"all": {"x": true}}).All(); err == nil || err.Error() != `invalid filter 'all': strconv.ParseBool: parsing "x": invalid syntax` {
		t.Error(err)
	}
	if b, err := (Args{"d": {"true": false}}).Bool("d", OtherwiseFalse); !b || err != nil {
		t.Error(b, err)
	}
	if b, err := (Args(nil)).Bool("d", OtherwiseTrue); !b || err != nil {
		t.Error(b, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "null", `{"label":["a","b=c"]}`, `{"label":{"a":true}}`, `{"x":null}`, `[[`, `{"name":["["]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil && a != nil {
			t.Fatal("both a filter and an error")
		}
		_ = a.Check(Images)
		a.Labels(map[string]string{"a": "b"})
		for key := range a {
			a.Pattern(key, "x")
			if len(a[key]) == 0 && (a.Pattern(key, "x") || a.Exact(key, "x") || a.Prefix(key, "x")) {
				t.Fatal("a key without values matched")
			}
			_, _ = a.Bool(key, OtherwiseTrue)
		}
	})
}
