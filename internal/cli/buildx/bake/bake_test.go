package bake

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func none(string) (string, bool) { return "", false }

func env(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

// print resolves a definition and prints it as --print does.
func printed(t *testing.T, files []File, names, sets []string, lookup func(string) (string, bool)) string {
	t.Helper()
	c, _, err := Parse(files, map[string]string{"BAKE_LOCAL_PLATFORM": "linux/amd64"}, lookup)
	if err != nil {
		t.Fatal(err)
	}
	targets, groups, err := c.Resolve(names, sets, lookup)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(map[string]any{"group": groups, "target": targets}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("GANTRY_UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s (%v):\n%s", name, err, got)
	}
}

const definition = `
variable "TAG" { default = "latest" }
variable "N" { default = 2 }
function "image" {
  params = [name]
  result = "registry.example/${name}:${TAG}"
}
group "default" { targets = ["app", "tools"] }
target "_common" {
  args = { GO = "1.26", EMPTY = null }
  platforms = ["linux/amd64"]
  cache-from = ["user/app:cache"]
}
target "app" {
  inherits = ["_common"]
  context = "src"
  dockerfile-inline = "FROM scratch\nCOPY $${x} /"
  args = { COUNT = N, ODD = N % 2 == 1 }
  tags = [image("app"), equal("latest", TAG) ? "" : "app:x"]
  output = [{ type = "local", dest = "out" }, "type=docker"]
  cache-from = [{ type = "registry", ref = "b" }]
  secret = ["id=a,env=A", { id = "b", src = "f" }]
  ssh = ["default", { id = "k", paths = ["/a", "/b"] }]
  attest = ["type=provenance,mode=max"]
  contexts = { base = "target:base" }
}
target "base" { dockerfile = "base.Dockerfile" }
target "tools" {
  name = "tool-${item}"
  matrix = { item = ["a", "b"] }
  target = item
  network = "host"
  labels = { from = target.base.dockerfile }
}
`

func TestDefinitions(t *testing.T) {
	f := []File{{"docker-bake.hcl", []byte(definition)}}
	golden(t, "default.json", printed(t, f, nil, nil, none))
	golden(t, "set.json", printed(t, f, []string{"app"}, []string{
		"*.platform=linux/arm64", "*.platform=linux/arm/v7", "app.args.GO=1.27", "app.tags+=more", "app.output=", "app.secret.b=env=B", "*.no-cache=true", "*.push=true", "app.contexts.base=", "*.attest=type=sbom",
	}, env(map[string]string{"TAG": "v2", "N": "3"})))
	golden(t, "pattern.json", printed(t, f, []string{"tool-*"}, nil, none))
	over := File{"docker-bake.override.json", []byte(`{"target": {"base": {"args": {"X": "1"}}, "app": {"platforms": ["linux/s390x"]}}, "variable": {"TAG": {"default": "json"}}}`)}
	golden(t, "override.json", printed(t, append(f, over), []string{"app"}, nil, none))
}

const services = `
x-args: &args { SHARED: "1", A: "2" }
services:
  web:
    image: web:${TAG:-latest}
    environment: { FROM_SERVICE: "1" }
    build:
      context: ./web
      args: [A=1, FROM_SERVICE, UNSET]
      additional_contexts: { db: "service:d.b" }
      secrets: [token, { source: key, target: id }]
      ulimits: { nofile: 10, nproc: { soft: 1, hard: 2 } }
      extra_hosts: ["h:10.0.0.1"]
      x-bake: { platforms: [linux/amd64, linux/arm64], output: type=docker, no-cache: true }
  d.b:
    build:
      context: ./db
      args: { <<: *args, A: "1" }
  only-image:
    image: x
secrets:
  token: { environment: TOKEN }
  key: { file: ./key }
`

func TestComposeFiles(t *testing.T) {
	golden(t, "compose.json", printed(t, []File{{"compose.yaml", []byte(services)}}, nil, nil, none))
	golden(t, "compose-and-hcl.json", printed(t, []File{{"compose.yaml", []byte(services)}, {"docker-bake.hcl", []byte(`target "web" { args = { B = "2" } }`)}}, []string{"web"}, nil, env(map[string]string{"TAG": "3"})))
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		`target "a" { context = nope }`: "docker-bake.hcl:1,24-28: Unknown variable",
		`target "a b" {}`:               "only",
		`target "a" {`:                  "Unclosed configuration block",
		`group "g" { targets = ["x"] }`: "failed to find target default",
		`target "default" { contexts = { b = "target:default" } }`:                                                       "cannot link to itself",
		`target "default" { inherits = ["nope"] }`:                                                                       "failed to find target nope",
		"target \"default\" { contexts = { b = \"target:b\" } }\ntarget \"b\" { contexts = { d = \"target:default\" } }": "infinite loop",
	} {
		c, _, err := Parse([]File{{"docker-bake.hcl", []byte(text)}}, nil, none)
		if err == nil {
			_, _, err = c.Resolve(nil, nil, none)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", text, err, want)
		}
	}
	_, _, err := Parse([]File{{"a.hcl", []byte("\n\ntarget \"a\" { context = nope }")}}, nil, none)
	var e Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if f, first, last := e.Place(); f.Name != "a.hcl" || first != 3 || last != 3 {
		t.Error(f.Name, first, last)
	}
	c, _, _ := Parse([]File{{"docker-bake.hcl", []byte(definition)}}, nil, none)
	for set, want := range map[string]string{
		"app": "invalid override key app", "app.tags": "expected target.name=value", "nope.tags=a": "could not find any target matching 'nope'",
		"app.what=1": "unknown key: what", "app.pull=x": "invalid value x for boolean key pull", "app.secret.z=env=A": "must be declared before",
	} {
		if _, _, err := c.Resolve([]string{"app"}, []string{set}, none); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", set, err)
		}
	}
}

func TestSubstitution(t *testing.T) {
	look := env(map[string]string{"A": "1", "E": ""})
	for in, want := range map[string]string{
		"x$A-${A}": "x1-1", "$$A": "$A", "${N:-d}": "d", "${E:-d}": "d", "${E-d}": "", "${A:+s}": "s", "${N:+s}": "", "${N:-${A}}": "1", "${A:?m}": "1",
	} {
		if got, err := substitute(in, look); err != nil || got != want {
			t.Errorf("%s: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"${N:?gone}", "${", "$-", "${A!}", "${}"} {
		if _, err := substitute(in, look); err == nil {
			t.Errorf("%s is refused", in)
		}
	}
}

func TestOrder(t *testing.T) {
	c, _, err := Parse([]File{{"docker-bake.hcl", []byte(definition)}}, nil, none)
	if err != nil {
		t.Fatal(err)
	}
	targets, _, err := c.Resolve([]string{"app"}, nil, none)
	if err != nil {
		t.Fatal(err)
	}
	if got := Order(targets); len(got) != 2 || got[0] != "base" || got[1] != "app" || !targets["base"].Linked {
		t.Error(got)
	}
}
