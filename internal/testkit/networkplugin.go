package testkit

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A NetworkPlugin makes networks out of bridges and gives out addresses, by
// Docker's protocol: in the network namespace of the test, with ip(8).
type NetworkPlugin struct {
	srv *http.Server

	mu        sync.Mutex
	calls     []string
	bodies    map[string]map[string]any // the last of each method
	networks  map[string]string         // gateway by ID
	endpoints map[string]bool
	pools     map[string]netip.Prefix
	addresses map[netip.Addr]bool
	refuse    map[string]string
}

// StartNetworkPlugin starts one that listens at socket. When the test ends, nothing
// of it may be left that the daemon has asked for.
func StartNetworkPlugin(t testing.TB, socket string) *NetworkPlugin {
	t.Helper()
	p := &NetworkPlugin{
		bodies: map[string]map[string]any{}, networks: map[string]string{}, endpoints: map[string]bool{},
		pools: map[string]netip.Prefix{}, addresses: map[netip.Addr]bool{}, refuse: map[string]string{},
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p.srv = &http.Server{Handler: p}
	go p.srv.Serve(l)
	t.Cleanup(func() {
		p.srv.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.networks)+len(p.endpoints)+len(p.pools)+len(p.addresses) > 0 {
			t.Errorf("the plugin still has networks %v, endpoints %v, pools %v, addresses %v", p.networks, p.endpoints, p.pools, p.addresses)
		}
		for e := range p.endpoints {
			exec.Command("ip", "link", "del", "ph"+e[:8]).Run()
		}
		for n := range p.networks {
			exec.Command("ip", "link", "del", "pl"+n[:8]).Run()
		}
	})
	return p
}

// Refuse makes a method answer with an error; with an empty text no more.
func (p *NetworkPlugin) Refuse(method, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse[method] = text
}

// Calls returns the methods that were called, in order.
func (p *NetworkPlugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Body returns what a method was last called with.
func (p *NetworkPlugin) Body(method string) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bodies[method]
}

// ServeHTTP implements http.Handler.
func (p *NetworkPlugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/")
	in := map[string]any{}
	_ = json.NewDecoder(r.Body).Decode(&in)
	p.calls, p.bodies[method] = append(p.calls, method), in
	out, err := p.answer(method, in)
	if text := p.refuse[method]; text != "" {
		err = fmt.Errorf("%s", text)
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		out = map[string]any{"Err": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(out)
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func (p *NetworkPlugin) answer(method string, in map[string]any) (map[string]any, error) {
	none := map[string]any{}
	if p.refuse[method] != "" {
		return none, nil
	}
	text := func(key string) string { s, _ := in[key].(string); return s }
	switch method {
	case "Plugin.Activate":
		return map[string]any{"Implements": []string{"NetworkDriver", "IpamDriver"}}, nil
	case "NetworkDriver.GetCapabilities":
		return map[string]any{"Scope": "local", "ConnectivityScope": "local"}, nil
	case "NetworkDriver.Leave", "NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity":
		return none, nil
	}
	if strings.HasPrefix(method, "IpamDriver.") {
		return p.address(method, text)
	}
	return p.network(method, in, text)
}

func (p *NetworkPlugin) network(method string, in map[string]any, text func(string) string) (map[string]any, error) {
	none, id, ep := map[string]any{}, text("NetworkID"), text("EndpointID")
	switch method {
	case "NetworkDriver.CreateNetwork":
		if _, ok := p.networks[id]; ok {
			return nil, fmt.Errorf("network %s exists", id)
		}
		gw := ""
		if all, _ := in["IPv4Data"].([]any); len(all) > 0 {
			gw, _ = all[0].(map[string]any)["Gateway"].(string)
		}
		p.networks[id] = gw
		if err := run("ip", "link", "add", "pl"+id[:8], "type", "bridge"); err != nil {
			return nil, err
		}
		if gw != "" {
			if err := run("ip", "addr", "add", gw, "dev", "pl"+id[:8]); err != nil {
				return nil, err
			}
		}
		return none, run("ip", "link", "set", "pl"+id[:8], "up")
	case "NetworkDriver.DeleteNetwork":
		delete(p.networks, id)
		return none, run("ip", "link", "del", "pl"+id[:8])
	case "NetworkDriver.CreateEndpoint":
		p.endpoints[ep] = true
		if err := run("ip", "link", "add", "ph"+ep[:8], "type", "veth", "peer", "name", "pc"+ep[:8]); err != nil {
			return nil, err
		}
		answer := map[string]any{}
		if i, _ := in["Interface"].(map[string]any); i["MacAddress"] == "" {
			answer["MacAddress"] = fmt.Sprintf("02:77:%s:%s:%s:%s", ep[:2], ep[2:4], ep[4:6], ep[6:8])
		}
		return map[string]any{"Interface": answer}, run("ip", "link", "set", "ph"+ep[:8], "master", "pl"+id[:8], "up")
	case "NetworkDriver.DeleteEndpoint":
		delete(p.endpoints, ep)
		return none, run("ip", "link", "del", "ph"+ep[:8])
	case "NetworkDriver.Join":
		gw, _, _ := strings.Cut(p.networks[id], "/")
		return map[string]any{
			"InterfaceName": map[string]string{"SrcName": "pc" + ep[:8], "DstPrefix": "plug"}, "Gateway": gw,
			"StaticRoutes": []map[string]any{{"Destination": "198.51.100.0/24", "RouteType": 1}, {"Destination": "203.0.113.0/24", "RouteType": 0, "NextHop": gw}},
		}, nil
	}
	return nil, fmt.Errorf("no method %s", method)
}

func (p *NetworkPlugin) address(method string, text func(string) string) (map[string]any, error) {
	none := map[string]any{}
	switch method {
	case "IpamDriver.GetCapabilities":
		return map[string]any{"RequiresMACAddress": true}, nil
	case "IpamDriver.GetDefaultAddressSpaces":
		return map[string]any{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}, nil
	case "IpamDriver.RequestPool":
		subnet := netip.MustParsePrefix("10.77.0.0/24")
		if s := text("Pool"); s != "" {
			subnet = netip.MustParsePrefix(s)
		}
		id := text("AddressSpace") + "/" + subnet.String()
		p.pools[id] = subnet
		return map[string]any{"PoolID": id, "Pool": subnet.String()}, nil
	case "IpamDriver.ReleasePool":
		delete(p.pools, text("PoolID"))
		return none, nil
	case "IpamDriver.RequestAddress":
		subnet, ok := p.pools[text("PoolID")]
		if !ok {
			return nil, fmt.Errorf("no pool %s", text("PoolID"))
		}
		a := subnet.Addr().Next()
		for p.addresses[a] {
			a = a.Next()
		}
		if s := text("Address"); s != "" {
			a = netip.MustParseAddr(s)
		}
		if p.addresses[a] {
			return nil, fmt.Errorf("address %s is taken", a)
		}
		p.addresses[a] = true
		return map[string]any{"Address": netip.PrefixFrom(a, subnet.Bits()).String()}, nil
	case "IpamDriver.ReleaseAddress":
		delete(p.addresses, netip.MustParseAddr(text("Address")))
		return none, nil
	}
	return nil, fmt.Errorf("no method %s", method)
}
