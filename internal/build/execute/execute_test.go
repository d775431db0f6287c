package execute

import (
	"context"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"gantry/internal/launch"
	"gantry/internal/plan"
)

func TestOverlayAt(t *testing.T) {
	const table = `29 1 8:1 / / rw - ext4 /dev/vda rw
30 29 0:40 / /run/x rw shared:1 - tmpfs tmpfs rw
31 29 0:41 / /run/b/m1 rw,relatime - overlay overlay rw,lowerdir=/l/2/fs:/l/1/fs,upperdir=/l/3/fs,workdir=/l/3/work
32 29 0:42 / /run/b/m2 rw,relatime - overlay overlay rw,lowerdir=2/fs:1/fs,upperdir=3/fs,workdir=3/work
33 29 0:43 / /run/b/m3 ro,relatime - overlay overlay ro,lowerdir=/l/2/fs:/l/1/fs
`
	want := launch.Tree{Lower: []string{"/l/2/fs", "/l/1/fs"}, Root: launch.Root{Upper: "/l/3/fs", Work: "/l/3/work"}}
	if got, ok := overlayAt(strings.NewReader(table), "/run/b/m1"); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, at := range []string{"/", "/run/x", "/run/b/m2", "/run/b/m3", "/none"} {
		if got, ok := overlayAt(strings.NewReader(table), at); ok {
			t.Errorf("%s: %+v", at, got)
		}
	}
}

func TestTree(t *testing.T) {
	for _, c := range []struct {
		m    mount.Mount
		want launch.Tree
		ok   bool
	}{
		{mount.Mount{Type: "bind", Source: "/s", Options: []string{"rbind", "ro"}}, launch.Tree{Root: launch.Root{Upper: "/s"}}, true},
		{mount.Mount{Type: "overlay", Options: []string{"index=off", "lowerdir=/a:/b"}}, launch.Tree{Lower: []string{"/a", "/b"}}, true},
		{mount.Mount{Type: "overlay"}, launch.Tree{}, false},
		{mount.Mount{Type: "ext4", Source: "/dev/x"}, launch.Tree{}, false},
	} {
		if got, err := tree(c.m); (err == nil) != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, %v", c.m, got, err)
		}
	}
}

func TestInput(t *testing.T) {
	id := strings.Repeat("ab", 32)
	f := &files{root: launch.Tree{Lower: []string{"/l"}, Root: launch.Root{Upper: "/u", Work: "/w"}}, mounts: []plan.Mount{{Type: "image", Target: "/a/b"}, tmpfs("/a", []string{"size=7", "nosuid"})}}
	p := executor.ProcessInfo{Meta: executor.Meta{
		Args: []string{"id"}, Env: []string{"A=b"}, User: "1:2", Cwd: "/d", NetMode: pb.NetMode_NONE, CgroupParent: "/p",
		ExtraHosts: []executor.HostIP{{Host: "h", IP: net.IPv4(10, 0, 0, 1)}}, Ulimit: []*pb.Ulimit{{Name: "nofile", Soft: 5, Hard: 6}},
		LinuxResources: &pb.LinuxResources{Memory: 64 << 20},
	}}
	in, err := input(id, p, f, onNetwork(t, p), plan.Defaults{Kernel: plan.CompleteKernel(2, plan.CgroupV2)})
	if err != nil {
		t.Fatal(err)
	}
	pl := in.Plan
	if in.Root == nil || in.Root.Upper != "/u" || pl.Process.User != "1:2" || pl.Process.Dir != "/d" || pl.Hostname(id) != sandboxName || pl.Namespaces.Network.Mode != plan.None {
		t.Errorf("%+v %+v", in, pl.Process)
	}
	if pl.CgroupParent != "/p" || pl.Resources.Memory != 64<<20 || len(pl.Ulimits) != 1 || len(pl.ExtraHosts) != 1 || pl.ExtraHosts[0] != "h:10.0.0.1" || pl.Log.Driver != plan.LogNone {
		t.Errorf("%+v", pl)
	}
	if len(pl.Mounts) != 2 || pl.Mounts[0].Target != "/a" || pl.Mounts[0].Options != "exec,size=7,nosuid" {
		t.Errorf("mounts %+v", pl.Mounts)
	}
	if s := pl.Security; s.Privileged || s.Seccomp != plan.Builtin || len(s.MaskedPaths) == 0 {
		t.Errorf("a step is not confined: %+v", s)
	}
	p.Meta.SecurityMode, p.Meta.NetMode = pb.SecurityMode_INSECURE, pb.NetMode_HOST
	if in, err := input(id, p, f, onNetwork(t, p), plan.Defaults{}); err != nil || !in.Plan.Security.Privileged || in.Plan.Namespaces.Network.Mode != plan.Host {
		t.Errorf("insecure: %+v, %v", in.Plan, err)
	}
	if _, err := input(id, executor.ProcessInfo{}, f, Network{Mode: "bridge"}, plan.Defaults{}); err == nil {
		t.Error("a step without a command")
	}
}

func TestExitError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		code  int
		valid []int
		err   error
		want  string
	}{
		{0, nil, nil, ""}, {3, nil, nil, "exit code: 3"}, {3, []int{3}, nil, ""}, {0, []int{3}, nil, "exit code: 0"},
		{-1, nil, errors.New("no such user"), "no such user"}, {137, nil, errors.New("cannot allocate memory"), "cannot allocate memory"},
	} {
		err := exitError(ctx, executor.Meta{ValidExitCodes: c.valid}, c.code, c.err)
		var exit *gateway.ExitError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &exit) || err.Error() != c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	cancel()
	if err := exitError(ctx, executor.Meta{}, 137, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSplit(t *testing.T) {
	var out, err strings.Builder
	in := "\x01\x00\x00\x00\x00\x00\x00\x03out\x02\x00\x00\x00\x00\x00\x00\x03err\x01\x00\x00\x00\x00\x00\x00\x01!"
	if e := split(strings.NewReader(in), executor.ProcessInfo{Stdout: nopCloser{&out}, Stderr: nopCloser{&err}}); e != nil || out.String() != "out!" || err.String() != "err" {
		t.Errorf("%q, %q, %v", out.String(), err.String(), e)
	}
	if e := split(strings.NewReader(in[:14]), executor.ProcessInfo{}); e == nil {
		t.Error("a frame that is cut off is no error")
	}
}

type nopCloser struct{ *strings.Builder }

func (nopCloser) Close() error { return nil }

// onNetwork is the network of a step without a ticket.
func onNetwork(t *testing.T, p executor.ProcessInfo) Network {
	t.Helper()
	n, err := new(tickets).network(p.Meta)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNetworkTickets(t *testing.T) {
	e := New(Options{})
	entry, done := e.Network(Network{Mode: "mine"})
	name, addr, _ := strings.Cut(entry, "=")
	m := executor.Meta{ExtraHosts: []executor.HostIP{{Host: "x", IP: net.ParseIP("1.2.3.4")}, {Host: name, IP: net.ParseIP(addr)}}}
	for mode, want := range map[pb.NetMode]string{pb.NetMode_UNSET: "mine", pb.NetMode_HOST: "host", pb.NetMode_NONE: "none"} {
		m.NetMode = mode
		if n, err := e.tickets.network(m); err != nil || n.Mode != want {
			t.Errorf("%v: %v, %v", mode, n, err)
		}
	}
	req, err := request(executor.ProcessInfo{Meta: executor.Meta{Args: []string{"x"}, ExtraHosts: m.ExtraHosts}}, Network{Mode: "mine"})
	if err != nil || strings.Join(req.HostConfig.ExtraHosts, " ") != "x:1.2.3.4" || req.HostConfig.NetworkMode != "mine" {
		t.Errorf("%+v, %v", req.HostConfig, err)
	}
	done()
	if _, err := e.tickets.network(m); err == nil {
		t.Error("a ticket was good after its build")
	}
}
