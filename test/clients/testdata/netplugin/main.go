// Command netplugin is a plugin for tests that has networks of single links, gives
// out addresses of 10.77.0.0/24, and forbids what has "forbidden" in its path.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
)

// prefix begins the names of the links.
var prefix = os.Getenv("PREFIX")

func main() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM) // the first process of a container has no other way
	go func() {
		<-ends
		os.Exit(0)
	}()
	l, err := net.Listen("unix", "/run/docker/plugins/netkit.sock")
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	taken := map[string]bool{}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&in)
		mu.Lock()
		defer mu.Unlock()
		out, err := answer(strings.TrimPrefix(r.URL.Path, "/"), in, taken)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			out = map[string]any{"Err": err.Error()}
		}
		_ = json.NewEncoder(w).Encode(out)
	})))
}

func answer(method string, in map[string]any, taken map[string]bool) (map[string]any, error) {
	text := func(key string) string { s, _ := in[key].(string); return s }
	link := prefix + fmt.Sprintf("%.8s", text("EndpointID"))
	host := link[:len(link)-1] + "h" // the other end
	none := map[string]any{}
	switch method {
	case "NetworkDriver.GetCapabilities":
		return map[string]any{"Scope": "local", "ConnectivityScope": "local"}, nil
	case "NetworkDriver.CreateEndpoint":
		return none, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: link})
	case "NetworkDriver.DeleteEndpoint":
		if l, err := netlink.LinkByName(host); err == nil { // else it has gone with the container
			return none, netlink.LinkDel(l)
		}
		return none, nil
	case "NetworkDriver.Join":
		return map[string]any{"InterfaceName": map[string]string{"SrcName": link, "DstPrefix": "kit"}}, nil
	case "IpamDriver.GetDefaultAddressSpaces":
		return map[string]any{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}, nil
	case "IpamDriver.RequestPool":
		return map[string]any{"PoolID": "pool", "Pool": "10.77.0.0/24"}, nil
	case "IpamDriver.RequestAddress":
		for i := 1; i < 255; i++ {
			if a := fmt.Sprintf("10.77.0.%d", i); !taken[a] {
				taken[a] = true
				return map[string]any{"Address": a + "/24"}, nil
			}
		}
		return nil, fmt.Errorf("no address is left")
	case "IpamDriver.ReleaseAddress":
		delete(taken, text("Address"))
	case "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes":
		if strings.Contains(text("RequestUri"), "forbidden") {
			return map[string]any{"Allow": false, "Msg": "netkit says no"}, nil
		}
		return map[string]any{"Allow": true}, nil
	}
	return none, nil
}
