package execute

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/wire"

	"gantry/internal/shim"
)

// sandboxName is the host name of steps that ask for none, as BuildKit has it:
// it must not differ from build to build.
const sandboxName = "buildkitsandbox"

// input decides what to launch for a process. Pure.
func input(containerID string, p executor.ProcessInfo, f *files, on Network, d plan.Defaults) (launch.Input, error) {
	req, err := request(p, on)
	if err != nil {
		return launch.Input{}, err
	}
	pl, _, err := plan.New(req, nil, d)
	if err != nil {
		return launch.Input{}, err
	}
	pl.Mounts = slices.Clone(f.mounts)
	slices.SortStableFunc(pl.Mounts, func(a, b plan.Mount) int {
		return cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/"))
	})
	pl.ReadOnly = pl.ReadOnly || f.readOnly
	in := launch.Input{ID: containerID, Name: "build-" + containerID[:12], Plan: pl, Lower: f.root.Lower, Trees: f.trees, Joins: on.Joins}
	if f.root.Upper != "" {
		in.Root = &launch.Root{Upper: f.root.Upper, Work: f.root.Work}
	}
	return in, nil
}

// request says in the words of the API what container a process gets. What is
// not said here is as for every container.
func request(p executor.ProcessInfo, on Network) (wire.CreateRequest, error) {
	m := p.Meta
	hc := &wire.HostConfig{
		NetworkMode: wire.NetworkMode(on.Mode), ReadonlyRootfs: m.ReadonlyRootFS, Privileged: m.SecurityMode == pb.SecurityMode_INSECURE,
		LogConfig: wire.LogConfig{Type: plan.LogNone},
	}
	if hc.Privileged {
		hc.UsernsMode = "host" // what it is granted is the host's
	}
	hc.CgroupParent = m.CgroupParent
	for _, h := range m.ExtraHosts {
		if h.Host != networkHost {
			hc.ExtraHosts = append(hc.ExtraHosts, h.Host+":"+hostIP(h.IP))
		}
	}
	for _, u := range m.Ulimit {
		hc.Ulimits = append(hc.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if r := m.LinuxResources; r != nil {
		hc.Memory, hc.MemorySwap = r.Memory, r.MemorySwap
		hc.CPUShares, hc.CPUPeriod, hc.CPUQuota = int64(r.CpuShares), int64(r.CpuPeriod), r.CpuQuota
		hc.CpusetCpus, hc.CpusetMems = r.CpusetCpus, r.CpusetMems
	}
	hostname := m.Hostname
	if hc.NetworkMode.IsContainer() {
		hostname = "" // that container's
	} else if hostname == "" && !hc.NetworkMode.IsHost() {
		hostname = sandboxName
	}
	if len(m.Args) == 0 {
		return wire.CreateRequest{}, errors.New("no command specified")
	}
	return wire.CreateRequest{
		Config: &wire.ContainerConfig{
			Hostname: hostname, User: m.User, Env: m.Env, Cmd: m.Args, WorkingDir: m.Cwd,
			Tty: m.Tty, OpenStdin: p.Stdin != nil, StdinOnce: p.Stdin != nil,
		},
		HostConfig: hc,
	}, nil
}

func hostIP(ip net.IP) string { return ip.String() }

func execRequest(p executor.ProcessInfo) wire.ExecCreate {
	m := p.Meta
	return wire.ExecCreate{
		User: m.User, Tty: m.Tty, Env: m.Env, WorkingDir: m.Cwd, Cmd: m.Args,
		Privileged:  m.SecurityMode == pb.SecurityMode_INSECURE,
		AttachStdin: p.Stdin != nil, AttachStdout: p.Stdout != nil, AttachStderr: p.Stderr != nil,
	}
}

func streams(p executor.ProcessInfo) shim.Streams {
	return shim.Streams{Stdin: p.Stdin != nil, Stdout: true, Stderr: true}
}

// split writes what a process has written to where it belongs: without a
// terminal the stream is framed.
func split(r io.Reader, p executor.ProcessInfo) error {
	out := [3]io.Writer{1: discardUnless(p.Stdout), 2: discardUnless(p.Stderr)}
	if p.Meta.Tty {
		_, err := io.Copy(out[1], r)
		return err
	}
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		w := io.Discard
		if n := head[0]; n == 1 || n == 2 {
			w = out[n]
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}

func discardUnless(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// tmpfs is a mount of files in memory with the options that BuildKit gives.
func tmpfs(target string, options []string) plan.Mount {
	var kept []string
	for _, o := range options {
		if k, v, ok := strings.Cut(o, "="); ok && k == "size" {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > 0 {
				kept = append(kept, o)
			}
			continue
		}
		kept = append(kept, o)
	}
	// Programs may be run from it, as in BuildKit.
	return plan.Mount{Type: "tmpfs", Target: target, Options: strings.Join(append([]string{"exec"}, kept...), ",")}
}
