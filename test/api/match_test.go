package api

import "testing"

func TestMatch(t *testing.T) {
	b := bindings{}
	id := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	if !b.match(`container <id1> at <time.ns>`, "container "+id+" at 2026-01-02T03:04:05.6Z") || b["id1"] != id {
		t.Fatalf("%v", b)
	}
	if !b.match("<id1:12>", id[:12]) || b.match("<id1>", id[:63]+"0") || b.match("<unix>", "x") {
		t.Error("bound values")
	}
	if s, ok := b.fill("/exec/<id1:12>/json"); !ok || s != "/exec/"+id[:12]+"/json" {
		t.Error(s, ok)
	}
	if _, ok := b.fill("<id2>"); ok {
		t.Error("not bound")
	}
}

func TestCompare(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":1,"b":[1,2]}`, `{"a":1,"b":[1,2]}`, ""},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, "x.order"},
		{`{"a":1}`, `{"a":1,"b":2}`, "x.b"},
		{`{"a":1,"b":2}`, `{"a":1}`, "x.b"},
		{`{"a":"<pid>"}`, `{"a":5}`, ""},
		{`{"a":null}`, `{"a":[]}`, "x.a"},
		{`[1]`, `[1,2]`, "x.length"},
	} {
		want, _ := parseText(c[0])
		got, _ := parseText(c[1])
		ds := bindings{}.compare("x", want, got)
		path := ""
		if len(ds) > 0 {
			path = ds[0].path
		}
		if path != c[2] {
			t.Errorf("%s against %s: %v", c[0], c[1], ds)
		}
	}
	if !glob("*HostConfig.Runtime", "body.HostConfig.Runtime") || glob("*.x", "body.y") || !glob("a*b*c", "a1b2c") {
		t.Error("glob")
	}
}
