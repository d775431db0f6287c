package conf

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func clean(t *testing.T) {
	t.Helper()
	for _, v := range []string{"GANTRY_HOST", "DOCKER_HOST", "GANTRY_CONTEXT", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"} {
		t.Setenv(v, "")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestFieldsOfOthersAreKept(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/config.json", `{"auths":{"r.io":{"auth":"dTpw"}},"psFormat":"{{.ID}}","experimental":"enabled","plugins":{"x":{"y":"z"}},"detachKeys":"ctrl-a"}`)
	f, err := Load(dir)
	if err != nil || f.DetachKeys != "ctrl-a" || f.Formats["psFormat"] != "{{.ID}}" {
		t.Fatalf("got %+v, %v", f, err)
	}
	if err := f.SetCurrentContext("c"); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	b, _ := os.ReadFile(dir + "/config.json")
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if m["currentContext"] != "c" || m["experimental"] != "enabled" || m["plugins"].(map[string]any)["x"] == nil {
		t.Errorf("wrote %s", b)
	}
	if fi, _ := os.Stat(dir + "/config.json"); fi.Mode().Perm() != 0o600 {
		t.Errorf("readable by %v", fi.Mode())
	}
	if err := f.SetCurrentContext(DefaultContext); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(dir + "/config.json"); strings.Contains(string(b), "currentContext") {
		t.Errorf("wrote %s", b)
	}
}

func TestALinkedConfigStaysALink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/dotfiles/real.json", `{}`)
	if err := os.Symlink("dotfiles/real.json", dir+"/config.json"); err != nil {
		t.Fatal(err)
	}
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetCurrentContext("c"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(dir + "/config.json"); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	if b, _ := os.ReadFile(dir + "/dotfiles/real.json"); !strings.Contains(string(b), "currentContext") {
		t.Errorf("its target holds %s", b)
	}
}

func TestBrokenAndMissingConfig(t *testing.T) {
	if f, err := Load(t.TempDir() + "/none"); err != nil || len(f.Auths) != 0 {
		t.Errorf("missing: %v", err)
	}
	dir := t.TempDir()
	write(t, dir+"/config.json", `{"auths":`)
	if _, err := Load(dir); err == nil || !strings.HasPrefix(err.Error(), "parsing config file ("+dir+"/config.json)") {
		t.Errorf("broken: %v", err)
	}
}

func TestCredentialsInTheFile(t *testing.T) {
	dir := t.TempDir()
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if helper, err := f.Store("r.io", Auth{Username: "u", Password: "p:w"}); helper != "" || err != nil {
		t.Fatal(helper, err)
	}
	if f, err = Load(dir); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"r.io", "https://r.io/v1/"} {
		if a, err := f.Credentials(server); err != nil || a.Username != "u" || a.Password != "p:w" || a.ServerAddress != server {
			t.Errorf("%s: %+v, %v", server, a, err)
		}
	}
	if a, err := f.Credentials("other.io"); err != nil || a != (Auth{}) || a.Header() != "e30=" {
		t.Errorf("other registry: %+v, %v", a, err)
	}
	if err := f.Erase("r.io"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(dir + "/config.json"); strings.Contains(string(b), "r.io") {
		t.Errorf("left %s", b)
	}
}

func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write(t, dir+"/docker-credential-test", `#!/bin/sh
in=$(cat)
case "$1 $in" in
"get r.io") echo '{"ServerURL":"r.io","Username":"u","Secret":"s"}';;
"get t.io") echo '{"Username":"<token>","Secret":"tok"}';;
get*) echo 'credentials not found in native keychain'; exit 1;;
store*) printf '%s' "$in" > `+dir+`/stored;;
esac
`)
	write(t, dir+"/config.json", `{"credsStore":"test"}`)
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := f.Credentials("r.io"); err != nil || a.Username != "u" || a.Password != "s" {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := f.Credentials("t.io"); err != nil || a.IdentityToken != "tok" || a.Username != "" {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := f.Credentials("x.io"); err != nil || a != (Auth{}) {
		t.Errorf("got %+v, %v", a, err)
	}
	if h, err := f.Store("r.io", Auth{Username: "u", Password: "new"}); h != "test" || err != nil {
		t.Errorf("stored by %q, %v", h, err)
	}
	if b, _ := os.ReadFile(dir + "/stored"); string(b) != `{"ServerURL":"r.io","Username":"u","Secret":"new"}` {
		t.Errorf("stored %s", b)
	}
	if b, _ := os.ReadFile(dir + "/config.json"); strings.Contains(string(b), "new") {
		t.Error("a secret of the helper is in config.json")
	}
}

func TestWhichDaemon(t *testing.T) {
	dir := t.TempDir()
	if err := Contexts(dir).Put(Context{Name: "c1", Endpoints: map[string]Endpoint{"docker": {Host: "unix:///c1"}}}, TLS{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		env     map[string]string
		g       Global
		current string
		context string
		host    string
	}{
		{name: "flag before all", env: map[string]string{"DOCKER_HOST": "unix:///e", "DOCKER_CONTEXT": "c1"}, g: Global{Hosts: []string{"unix:///f"}}, context: "default", host: "unix:///f"},
		{name: "--context before the environment", env: map[string]string{"DOCKER_HOST": "unix:///e"}, g: Global{Context: "c1"}, context: "c1", host: "unix:///c1"},
		{name: "GANTRY_HOST before DOCKER_HOST", env: map[string]string{"DOCKER_HOST": "unix:///e", "GANTRY_HOST": "unix:///g"}, context: "default", host: "unix:///g"},
		{name: "host before DOCKER_CONTEXT", env: map[string]string{"DOCKER_HOST": "unix:///e", "DOCKER_CONTEXT": "c1"}, context: "default", host: "unix:///e"},
		{name: "DOCKER_CONTEXT before config.json", env: map[string]string{"DOCKER_CONTEXT": "default", "GANTRY_HOST": ""}, current: "c1", context: "default"},
		{name: "config.json", current: "c1", context: "c1", host: "unix:///c1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			c.g.Dir = dir
			got, err := Resolve(c.g, &File{CurrentContext: c.current})
			if err != nil || got.Context != c.context || c.host != "" && got.Host != c.host {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"/run/x.sock": "unix:///run/x.sock", "unix://": "unix://" + DockerSocket, "1.2.3.4:5": "tcp://1.2.3.4:5", "tcp://h": "tcp://h:2375", "tcp://:77": "tcp://localhost:77",
		"tcp://": "tcp://localhost:2375", "tcp://[::1]": "tcp://[::1]:2375", "tcp://[::1]:5/p": "tcp://[::1]:5/p", "ssh://u@h": "ssh://u@h", "https://h/x": "https://h/x",
	} {
		if got, err := ParseHost(in, false); got != want || err != nil {
			t.Errorf("%s: got %s, %v", in, got, err)
		}
	}
	if got, _ := ParseHost("tcp://h", true); got != "tcp://h:2376" {
		t.Errorf("with TLS: %s", got)
	}
	if _, err := ParseHost("bogus://x", false); err == nil || err.Error() != "invalid bind address format: bogus://x" {
		t.Errorf("got %v", err)
	}
}

func TestVerifyNeedsACertificateAuthority(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	_, err := Resolve(Global{Dir: dir, Hosts: []string{"tcp://h"}, TLSVerify: true, VerifySet: true}, nil)
	if err == nil || !strings.Contains(err.Error(), "ca.pem: no such file") {
		t.Errorf("got %v", err)
	}
	got, err := Resolve(Global{Dir: dir, Hosts: []string{"tcp://h"}, TLS: true}, nil)
	if err != nil || got.TLS == nil || !got.TLS.InsecureSkipVerify || got.Host != "tcp://h:2376" {
		t.Errorf("--tls alone: %+v, %v", got, err)
	}
	if got, err := Resolve(Global{Dir: dir, Hosts: []string{"unix:///x"}, TLS: true}, nil); err != nil || got.TLS != nil {
		t.Errorf("a unix socket has no TLS: %+v, %v", got, err)
	}
}

func TestProxies(t *testing.T) {
	f := &File{Proxies: map[string]Proxy{"default": {HTTPProxy: "http://p", NoProxy: "x"}, "unix:///s": {HTTPProxy: "http://s"}}}
	if m := f.ProxyEnv("unix:///other"); m["HTTP_PROXY"] != "http://p" || m["no_proxy"] != "x" || len(m) != 4 {
		t.Errorf("got %v", m)
	}
	if m := f.ProxyEnv("unix:///s"); m["http_proxy"] != "http://s" || len(m) != 2 {
		t.Errorf("got %v", m)
	}
}
