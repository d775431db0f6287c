package testkit

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A VolumePlugin keeps volumes in directories, by Docker's protocol.
type VolumePlugin struct {
	Socket string
	dir    string
	srv    *http.Server

	mu     sync.Mutex
	vols   map[string]map[string]string // options by name
	mounts map[string][]string          // callers by name
	calls  []string
	refuse map[string]string // text by method
	hang   chan struct{}     // methods wait for it to be closed
	hung   map[string]bool
}

// StartVolumePlugin starts one that listens at socket and keeps its volumes
// below a directory of the test's.
func StartVolumePlugin(t testing.TB, socket string) *VolumePlugin {
	t.Helper()
	p := &VolumePlugin{
		Socket: socket, dir: t.TempDir(), vols: map[string]map[string]string{}, mounts: map[string][]string{},
		refuse: map[string]string{}, hang: make(chan struct{}), hung: map[string]bool{},
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	p.Listen(t)
	t.Cleanup(func() {
		close(p.hang)
		p.Close()
	})
	return p
}

// Listen serves; after Close, as the same plugin that has been restarted.
func (p *VolumePlugin) Listen(t testing.TB) {
	t.Helper()
	os.Remove(p.Socket)
	l, err := net.Listen("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	p.srv = &http.Server{Handler: p}
	go p.srv.Serve(l)
}

// Close stops serving.
func (p *VolumePlugin) Close() { p.srv.Close() }

// Refuse has a method ("Mount") fail with a text; empty: no more.
func (p *VolumePlugin) Refuse(method, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse[method] = text
}

// Hang has exactly these methods never answer.
func (p *VolumePlugin) Hang(methods ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = map[string]bool{}
	for _, m := range methods {
		p.hung[m] = true
	}
}

// Dir is the directory of a volume.
func (p *VolumePlugin) Dir(name string) string { return filepath.Join(p.dir, name) }

// Calls returns the calls so far, "Method name", and forgets them.
func (p *VolumePlugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls
	p.calls = nil
	return c
}

// Mounts returns the callers that have a volume mounted.
func (p *VolumePlugin) Mounts(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.mounts[name]...)
}

// Options returns the options of a volume; false if there is none.
func (p *VolumePlugin) Options(name string) (map[string]string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.vols[name]
	return o, ok
}

// ServeHTTP answers one call.
func (p *VolumePlugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name, ID string
		Opts     map[string]string
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	if r.URL.Path == "/Plugin.Activate" {
		_ = json.NewEncoder(w).Encode(map[string]any{"Implements": []string{"VolumeDriver"}})
		return
	}
	method := r.URL.Path[len("/VolumeDriver."):]
	p.mu.Lock()
	p.calls = append(p.calls, method+" "+in.Name)
	hung := p.hung[method]
	p.mu.Unlock()
	if hung {
		select {
		case <-p.hang:
		case <-r.Context().Done():
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := p.refuse[method]; text != "" {
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(map[string]string{"Err": text})
		return
	}
	_ = json.NewEncoder(w).Encode(p.answer(method, in.Name, in.ID, in.Opts))
}

func (p *VolumePlugin) answer(method, name, caller string, opts map[string]string) any {
	type volume = map[string]any
	about := func(name string) volume {
		v := volume{"Name": name, "CreatedAt": "2020-01-02T03:04:05Z", "Status": volume{"callers": len(p.mounts[name])}}
		if len(p.mounts[name]) > 0 {
			v["Mountpoint"] = p.Dir(name)
		}
		return v
	}
	_, known := p.vols[name]
	if !known && (method == "Remove" || method == "Mount" || method == "Path" || method == "Unmount" || method == "Get") {
		return volume{"Err": "sample: no volume " + name}
	}
	switch method {
	case "Create":
		if err := os.MkdirAll(p.Dir(name), 0o755); err != nil {
			return volume{"Err": err.Error()}
		}
		p.vols[name] = opts
		return volume{}
	case "Remove":
		delete(p.vols, name)
		_ = os.RemoveAll(p.Dir(name))
		return volume{}
	case "Mount":
		p.mounts[name] = append(p.mounts[name], caller)
		return volume{"Mountpoint": p.Dir(name)}
	case "Path":
		return volume{"Mountpoint": p.Dir(name)}
	case "Unmount":
		for i, c := range p.mounts[name] {
			if c == caller {
				p.mounts[name] = append(p.mounts[name][:i:i], p.mounts[name][i+1:]...)
				return volume{}
			}
		}
		return volume{"Err": "sample: " + caller + " has not mounted " + name}
	case "Get":
		return volume{"Volume": about(name)}
	case "List":
		list := []volume{}
		for n := range p.vols {
			list = append(list, about(n))
		}
		return volume{"Volumes": list}
	case "Capabilities":
		return volume{"Capabilities": volume{"Scope": "global"}}
	}
	return volume{"Err": "sample: unknown method " + method}
}

// ServeVolume gives the plugin a volume that no engine has asked for.
func (p *VolumePlugin) ServeVolume(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vols[name] = nil
}
