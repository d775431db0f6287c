package grammar

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

func TestOutputs(t *testing.T) {
	for in, want := range map[string]string{
		"out":                                   "type=local,dest=out",
		"-":                                     "type=tar,dest=-",
		"type=local,dest=a b":                   "type=local,dest=a b",
		"type=image,name=a:1,push=true":         "type=image,name=a:1,push=true",
		`type=image,"name=a:1,b:2"`:             `type=image,"name=a:1,b:2"`,
		"type=oci,dest=x.tar,Compression=zstd":  "type=oci,compression=zstd,dest=x.tar",
		"type=cacheonly":                        "type=cacheonly",
		"type=registry,ref=x,annotation.a.b=c=": "type=registry,annotation.a.b=c=,ref=x",
	} {
		e, err := Output(in)
		if err != nil || e.String() != want {
			t.Errorf("%s: %q %v, not %q", in, e, err, want)
		}
		if again, err := Output(e.String()); err != nil || !reflect.DeepEqual(e, again) {
			t.Errorf("%s: written and read again it is %v (%v), not %v", in, again, err, e)
		}
	}
	for in, want := range map[string]string{"a=b,c=d": "type is required for output", "type=local,x": "invalid value x", "": "invalid value", `"a`: "invalid value"} {
		if _, err := Output(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", in, err, want)
		}
	}
}

func TestCaches(t *testing.T) {
	for in, want := range map[string]string{
		"user/app:cache":                    "type=registry,ref=user/app:cache",
		"type=local,src=dir":                "type=local,src=dir",
		"type=registry,ref=a/b,mode=max":    "type=registry,mode=max,ref=a/b",
		"type=inline":                       "type=inline",
		"type=gha,scope=a":                  "type=gha,scope=a",
		"TYPE=s3,bucket=b,region=eu,mode=m": "type=s3,bucket=b,mode=m,region=eu",
	} {
		if e, err := Cache(in); err != nil || e.String() != want {
			t.Errorf("%s: %q %v", in, e, err)
		}
	}
	if _, err := Cache("src=dir"); err == nil || err.Error() != `type required for "src=dir"` {
		t.Error(err)
	}
}

func TestSecretsAndAgents(t *testing.T) {
	for in, want := range map[string]Secret{
		"id=a":                     {ID: "a"},
		"id=a,src=/p":              {ID: "a", Path: "/p"},
		"id=a,source=/p,type=file": {ID: "a", Path: "/p"},
		"id=a,env=B":               {ID: "a", Env: "B"},
		"type=env,id=a,src=B":      {ID: "a", Env: "B"},
	} {
		if got, err := ParseSecret(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
		if got, err := ParseSecret(want.String()); err != nil || got != want {
			t.Errorf("%s: %v %v", want, got, err)
		}
	}
	for in, want := range map[string]string{"id": "invalid field 'id' must be a key=value pair", "type=x": `unsupported secret type "x"`, "id=a,x=y": "unexpected key 'x' in 'x=y'"} {
		if _, err := ParseSecret(in); err == nil || err.Error() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
	if got := ParseSSH("default"); got.ID != "default" || got.Paths != nil {
		t.Error(got)
	}
	if got := ParseSSH("x=/a,/b"); got.ID != "x" || len(got.Paths) != 2 {
		t.Error(got)
	}
}

func TestAttestations(t *testing.T) {
	e, off, err := Attest("type=sbom,generator=x/y")
	if err != nil || off || e.Type != "sbom" || e.Attrs["generator"] != "x/y" {
		t.Error(e, off, err)
	}
	if _, off, err := Attest(ShortAttest("provenance", "false")); err != nil || !off {
		t.Error(off, err)
	}
	if got := ShortAttest("provenance", "mode=max"); got != "type=provenance,mode=max" {
		t.Error(got)
	}
	if got := ShortAttest("sbom", ""); got != "" {
		t.Error(got)
	}
	if _, _, err := Attest("mode=max"); err == nil {
		t.Error("an attestation needs a type")
	}
}

func TestCalls(t *testing.T) {
	for in, want := range map[string]Call{
		"": {}, "build": {}, "check": {Name: "lint"}, "lint,format=json": {Name: "lint", Format: "json"},
		"outline": {Name: "outline"}, "check,ignorestatus=true": {Name: "lint", IgnoreStatus: true},
	} {
		if got, err := ParseCall(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"a,b", "a,x=y", "a,ignorestatus=z"} {
		if _, err := ParseCall(in); err == nil {
			t.Errorf("%s is refused", in)
		}
	}
}

func TestKeyValues(t *testing.T) {
	env := func(k string) (string, bool) { return "env", k == "SET" }
	got, err := KeyValues([]string{"a=b=c", "SET", "UNSET", "e="}, env)
	if want := map[string]string{"a": "b=c", "SET": "env", "e": ""}; err != nil || !maps.Equal(got, want) {
		t.Error(got, err)
	}
	if got, _ := KeyValues([]string{"a"}, nil); got["a"] != "" || len(got) != 1 {
		t.Error(got)
	}
	if _, err := KeyValues([]string{"=x"}, nil); err == nil {
		t.Error("a key is needed")
	}
}

func TestHosts(t *testing.T) {
	gateway := func() (string, error) { return "192.0.2.1", nil }
	for in, want := range map[string]string{
		"a:10.0.0.1": "a=10.0.0.1", "a=10.0.0.1,10.0.0.2": "a=10.0.0.1,a=10.0.0.2", "a:[::1]": "a=::1", "a:::1": "a=::1", "a:host-gateway": "a=192.0.2.1",
	} {
		if got, err := Hosts([]string{in}, gateway); err != nil || got != want {
			t.Errorf("%s: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"a", "a:", ":1.2.3.4", "a:b"} {
		if _, err := Hosts([]string{in}, gateway); err == nil || err.Error() != "invalid host "+in {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestAnnotationsAndEntitlements(t *testing.T) {
	got, err := Annotations([]string{"a=b", "index:c=d", "manifest[linux/amd64],index:e=f"})
	want := map[string]string{"annotation.a": "b", "annotation-index.c": "d", "annotation-manifest[linux/amd64].e": "f", "annotation-index.e": "f"}
	if err != nil || !maps.Equal(got, want) {
		t.Error(got, err)
	}
	for _, in := range []string{"a", "x:a=b", "in dex:a=b"} {
		if _, err := Annotations([]string{in}); err == nil {
			t.Errorf("%s is refused", in)
		}
	}
	list, del, err := Entitlements([]string{"network.host", "buildx.local.delete", "device=x"})
	if err != nil || !del || len(list) != 2 {
		t.Error(list, del, err)
	}
	if _, _, err := Entitlements([]string{"root"}); err == nil {
		t.Error("an entitlement that there is none of is refused")
	}
}

func TestURLs(t *testing.T) {
	for in, want := range map[string]bool{
		"https://x/y.git#main:dir": true, "git@host:x.git": true, "github.com/a/b": true, "ssh://h/x": true, ".": false, "dir": false, "a:b": false, "docker-image://x": false,
	} {
		if IsURL(in) != want {
			t.Errorf("%s: %v", in, !want)
		}
	}
	if !IsGitSSH("git@host:x.git") || IsGitSSH("https://x") {
		t.Error("ssh")
	}
}
