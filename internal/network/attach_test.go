package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/id"
	"gantry/internal/network/kernel"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// bench is a daemon's networks in a namespace of the test.
type bench struct {
	*Networks
	opts Options
}

func open(t testing.TB, change func(*Options)) *bench {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Store: db, RunDir: filepath.Join(dir, "run"), Events: event.New(), Bridge: "gantry0"}
	if change != nil {
		change(&o)
	}
	b := &bench{opts: o}
	b.reopen(t)
	t.Cleanup(func() {
		ctx := context.Background()
		if b.Networks == nil { // closed by the test
			db.Close()
			return
		}
		if err := b.Reconcile(ctx, nil); err != nil {
			t.Error("reconcile:", err)
		}
		b.clean(t)
		if err := b.Close(ctx, CloseOptions{Remove: true}); err != nil {
			t.Error("close:", err)
		}
		if l, err := kernelLinks(); err != nil || l != "lo" {
			t.Errorf("links left: %s %v", l, err)
		}
		db.Close()
	})
	return b
}

// reopen plays a daemon that starts while the old one's things are there.
func (b *bench) reopen(t testing.TB) {
	t.Helper()
	if b.Networks != nil {
		b.stage.bridge.Close()
		b.book.Close() // the kernel closes a dead process's sockets
	}
	n, err := Open(context.Background(), b.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.Networks = n
}

func kernelLinks() (string, error) {
	h, err := kernel.Open()
	if err != nil {
		return "", err
	}
	defer h.Close()
	ls, err := h.Links("")
	var names []string
	for _, l := range ls {
		names = append(names, l.Name)
	}
	return strings.Join(names, " "), err
}

// clean checks that nothing exists for a container.
func (b *bench) clean(t testing.TB) {
	t.Helper()
	b.Settle()
	there, err := b.Existing(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, r := range there {
		if r.Kind == KindTable || r.Kind == KindLink && r.Owner == "bridge" {
			continue
		}
		t.Errorf("left over: %+v", r)
	}
}

func (b *bench) attach(t testing.TB, r AttachRequest) *Sandbox {
	t.Helper()
	if r.ID == "" {
		r.ID = id.New()
	}
	s, err := b.Attach(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) detach(t testing.TB, owner string) {
	t.Helper()
	if err := b.Detach(context.Background(), owner); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sandbox(context.Background(), owner); err == nil {
		t.Error("a detached sandbox is still there")
	}
}

func tcp(t testing.TB, p string) wire.Port {
	t.Helper()
	var port wire.Port
	if err := port.UnmarshalText([]byte(p)); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDefaultBridge(t *testing.T) {
	b := open(t, nil)
	_, sub := b.opts.Events.Subscribe(time.Time{})
	s := b.attach(t, AttachRequest{Name: "c1", Mode: "default", Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.conf.eth0.rp_filter": "0"}})
	e := s.Endpoints[0]
	if e.IPv4 != netip.MustParsePrefix("172.20.0.2/16") || e.Gateway4.String() != "172.20.0.1" || e.MAC != "02:42:ac:14:00:02" || e.Interface != "eth0" {
		t.Errorf("endpoint %+v", e)
	}
	ns, err := kernel.OpenNamespace(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		for k, want := range map[string]string{
			"net/ipv4/ip_unprivileged_port_start": "0", "net/ipv4/conf/eth0/rp_filter": "0",
			"net/ipv6/conf/eth0/disable_ipv6": "1", "net/ipv6/conf/lo/disable_ipv6": "0",
		} {
			if got, err := kernel.Sysctl(k); err != nil || got != want {
				return fmt.Errorf("%s is %q, want %q (%v)", k, got, want, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	in, err := b.Inspect(context.Background(), "bridge")
	if err != nil || in.Containers[s.ID].Name != "c1" || in.Containers[s.ID].IPv4Address != e.IPv4 {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	if u := in.Status.IPAM.Subnets[netip.MustParsePrefix("172.20.0.0/16")]; u.IPsInUse != 4 || u.DynamicIPsAvailable != 65532 {
		t.Errorf("usage %+v", u)
	}
	b.detach(t, s.ID)
	b.detach(t, s.ID)
	b.clean(t)
	for _, want := range []string{"connect", "disconnect"} {
		ev := <-sub.C
		if string(ev.Action) != want || ev.Actor.Attributes["container"] != s.ID || ev.Actor.Attributes["name"] != "bridge" || ev.Actor.Attributes["type"] != "bridge" {
			t.Errorf("event %+v, want %s", ev, want)
		}
	}
	if os.Getenv("GANTRY_TEST_HOSTNS") != "" {
		if _, err := os.Stat(s.Path); !errors.Is(err, os.ErrNotExist) {
			t.Error("the namespace's file is left:", err)
		}
	}
}

func TestModes(t *testing.T) {
	b := open(t, nil)
	host := b.attach(t, AttachRequest{Name: "h", Mode: "host"})
	none := b.attach(t, AttachRequest{Name: "n", Mode: "none"})
	joined := b.attach(t, AttachRequest{Name: "j", Mode: "container:" + none.ID, SharedWith: none.ID})
	if host.Path != "" || host.Endpoints[0].NetworkName != "host" {
		t.Errorf("host: %+v", host)
	}
	if none.Path == "" || none.Endpoints[0].NetworkName != "none" {
		t.Errorf("none: %+v", none)
	}
	if joined.Path != none.Path || joined.ID == none.ID || len(joined.Endpoints) != 0 {
		t.Errorf("joined: %+v", joined)
	}
	if l, _ := kernelLinks(); l != "lo" {
		t.Errorf("a host without bridged containers has links %s", l)
	}
	ctx := context.Background()
	for mode, want := range map[string]errs.Kind{"nosuch": errs.NotFound, "container:" + id.New(): errs.Conflict} {
		if _, err := b.Attach(ctx, AttachRequest{ID: id.New(), Mode: mode}); !errs.Is(err, want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	_, err := b.Attach(ctx, AttachRequest{ID: id.New(), Mode: "nosuch"})
	if fmt.Sprint(err) != "failed to set up container networking: network nosuch not found" {
		t.Error(err)
	}
	b.detach(t, joined.ID)
	if !kernel.IsNamespace(none.Path) {
		t.Error("detaching a guest removed the namespace")
	}
}

func TestPublishConflict(t *testing.T) {
	b := open(t, nil)
	req := func(host string) AttachRequest {
		return AttachRequest{ID: id.New(), Name: "p2", Mode: "bridge", Ports: wire.PortMap{tcp(t, "80/tcp"): {{HostPort: host}}},
			Exposed: wire.PortSet{tcp(t, "80/tcp"): {}, tcp(t, "81/tcp"): {}}}
	}
	s := b.attach(t, req("18080"))
	if got := s.Endpoints[0].Ports; len(got) != 2 || got[tcp(t, "81/tcp")] != nil || got[tcp(t, "80/tcp")][0] != (wire.PortBinding{HostIP: netip.IPv4Unspecified(), HostPort: "18080"}) {
		t.Errorf("ports %v", got)
	}
	_, err := b.Attach(context.Background(), req("18080"))
	text := fmt.Sprint(err)
	if !strings.HasPrefix(text, "failed to set up container networking: driver failed programming external connectivity on endpoint p2 (") ||
		!strings.HasSuffix(text, "): Bind for 0.0.0.0:18080 failed: port is already allocated: container p2 publishes it") {
		t.Error(text)
	}
	if s2 := b.attach(t, req("18080-18082")); s2.Endpoints[0].Ports[tcp(t, "80/tcp")][0].HostPort != "18081" {
		t.Errorf("range: %v", s2.Endpoints[0].Ports)
	}
	r := req("")
	r.PublishAll = true
	s3 := b.attach(t, r)
	for p, bs := range s3.Endpoints[0].Ports {
		if len(bs) != 2 || bs[0].HostPort < "32768" || bs[1] != (wire.PortBinding{HostIP: netip.IPv6Unspecified(), HostPort: bs[0].HostPort}) {
			t.Errorf("publish all: %v %v", p, bs)
		}
	}
	b.detach(t, s.ID)
	b.attach(t, req("18080"))
}

func TestParallel(t *testing.T) {
	b := open(t, nil)
	const many = 100
	var wg sync.WaitGroup
	sem := make(chan struct{}, 8)
	seen := sync.Map{}
	for i := range many {
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			r := AttachRequest{ID: id.New(), Name: fmt.Sprint(i), Mode: "bridge", Ports: wire.PortMap{tcp(t, "80/tcp"): {{}}}}
			s, err := b.Attach(context.Background(), r)
			if err != nil {
				t.Error(err)
				return
			}
			if _, dup := seen.LoadOrStore(s.Endpoints[0].IPv4, true); dup {
				t.Errorf("%v given twice", s.Endpoints[0].IPv4)
			}
		})
	}
	wg.Wait()
	published, err := b.stage.bridge.Published()
	if err != nil || len(published) != many {
		t.Errorf("%d published, %v", len(published), err)
	}
	var owners []string
	for _, e := range b.book.Entries() {
		owners = append(owners, e.ID)
	}
	for _, o := range owners {
		wg.Go(func() {
			if err := b.Detach(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.clean(t)
}

func BenchmarkAttachDetach(b *testing.B) {
	n := open(b, nil)
	n.attach(b, AttachRequest{Name: "first", Mode: "bridge"}) // raises the bridge
	for _, c := range []struct {
		name string
		r    AttachRequest
	}{{"bridge", AttachRequest{Mode: "bridge"}}, {"published", AttachRequest{Mode: "bridge", Ports: wire.PortMap{tcp(b, "80/tcp"): {{}}}}}, {"none", AttachRequest{Mode: "none"}}} {
		b.Run(c.name+"/attach", func(b *testing.B) {
			for b.Loop() {
				s := n.attach(b, c.r)
				b.StopTimer()
				n.detach(b, s.ID)
				n.Settle() // or the kernel's removal would be measured, too
				b.StartTimer()
			}
		})
		b.Run(c.name+"/detach", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := n.attach(b, c.r)
				b.StartTimer()
				n.detach(b, s.ID)
			}
		})
	}
}
